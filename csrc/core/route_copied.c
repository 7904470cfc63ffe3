/* Copied memory: a copy of this process, and a body that leaves its outcome in a page. */
#include "route_copied.h"

#include <signal.h>
#include <unistd.h>

#include "copied.h"
#include "copies.h"
#include "interp.h"
#include "spec.h"

static const uint64_t SIGTERM_BIT = 1ull << (SIGTERM - 1);

static struct hooks {
    PyObject *signal, *arguments; /* signal(*arguments): SIGTERM rises as an exception in a task */
    PyObject *finish;             /* finish(self, value, exception): leaves any other outcome; does not return */
} hooks;

/* copied_hooks(signal, arguments, finish, nothing) */
PyObject *tc_copied_hooks(PyObject *module, PyObject *args)
{
    (void)module;
    struct hooks now;
    PyObject *nothing;
    if (!PyArg_ParseTuple(args, "OO!OO:copied_hooks", &now.signal, &PyTuple_Type, &now.arguments, &now.finish,
                          &nothing))
        return NULL;
    Py_INCREF(now.signal), Py_INCREF(now.arguments), Py_INCREF(now.finish);
    hooks = now;
    tc_nothing = Py_NewRef(nothing);
    Py_RETURN_NONE;
}

/* ---- in the task ------------------------------------------------------------------------------------------------ */

static int flush_stream(const char *name, PyObject *flush, PyObject *closed)
{
    PyObject *stream = PySys_GetObject(name); /* borrowed; None where there is none */
    if (!stream || stream == Py_None) return 0;
    Py_INCREF(stream);
    PyObject *done = PyObject_CallMethodNoArgs(stream, flush);
    if (!done && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyObject *error = tc_take_exception(), *is_closed = PyObject_GetAttr(stream, closed);
        if (is_closed == Py_True)
            done = Py_NewRef(Py_None);
        else if (is_closed)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(is_closed);
        Py_DECREF(error);
    }
    Py_DECREF(stream);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* sys.stdout and sys.stderr, unless they are closed. */
PyObject *tc_flush_streams(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    static PyObject *flush, *closed;
    if (!flush) flush = PyUnicode_InternFromString("flush");
    if (!closed) closed = PyUnicode_InternFromString("closed");
    if (!flush || !closed || flush_stream("stdout", flush, closed) < 0 || flush_stream("stderr", flush, closed) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void handle_sigterm(const struct tc_copy *copy)
{
    if ((copy->spec->ignored | copy->spec->defaulted) & SIGTERM_BIT) return;
    PyObject *set = PyObject_Call(hooks.signal, hooks.arguments, NULL);
    Py_XDECREF(set);
}

/* From the copy to the end. In C for the body that returns None: a copied task pays for each page that it writes to,
 * reference counts are writes, and Python functions are spread over many pages. */
static _Noreturn void run_copied(struct copied *self, PyObject *fn, PyObject *args, PyObject *kwargs)
{
    /* What was blocked until now must not wait for the end of a body that is one call in C. */
    int called = !PyErr_Occurred() && PyErr_CheckSignals() == 0;
    PyObject *value = called ? PyObject_Call(fn, args, kwargs) : NULL;
    if (value == Py_None && tc_flush_streams(NULL, NULL)) {
        self->page->kind = TC_KIND_NONE;
        atomic_store(&self->page->done, 1);
        _exit(0);
    }
    PyObject *error = PyErr_Occurred() ? tc_take_exception() : Py_NewRef(Py_None);
    PyObject *never =
        PyObject_CallFunctionObjArgs(hooks.finish, self, value && error == Py_None ? value : Py_None, error, NULL);
    if (!never) PyErr_Print();
    _exit(255);
}

/* ---- in the creator --------------------------------------------------------------------------------------------- */

PyObject *tc_copied_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *type, *fn, *fn_args, *kwargs, *setup = Py_None, *how = Py_None, *leave_out = NULL;
    struct tc_spec spec = {0};
    struct tc_copy copy = {.spec = &spec, .prepare = Py_None, .held = SIGTERM_BIT, .handle = handle_sigterm};
    int daemon;
    if (!PyArg_ParseTuple(args, "O!O&pOO!O|OOOO!O!:copied_start", &PyType_Type, &type, tc_bytes_or_none, &spec.name,
                          &daemon, &fn, &PyTuple_Type, &fn_args, &kwargs, &setup, &copy.prepare, &how, &PyTuple_Type,
                          &leave_out, &PyTuple_Type, &copy.harmless) ||
        tc_setup_from(setup, &spec) < 0)
        return NULL;
    if (spec.name) spec.awaited = 1;
    if (!PyType_IsSubtype((PyTypeObject *)type, tc_copied_type) || !hooks.finish)
        return PyErr_Format(PyExc_TypeError, "copied_start() needs a Copied and its hooks");
    if (tc_copy_from(how, &copy) < 0) return NULL;
    if (!tc_flush_streams(NULL, NULL) || PySys_Audit("os.fork", NULL) < 0) return NULL;
    struct tc_left_out *left_out = NULL;
    if (leave_out && tc_left_out_new(leave_out, &left_out) < 0) return NULL;
    copy.left_out = left_out;
    struct copied *self = tc_copied_new((PyTypeObject *)type, daemon);
    int made = -1;
    if (self) {
        copy.start = &self->page->start;
        spec.report = &self->page->start.report;
        spec.kept_fd = self->fd;
        made = tc_copy(&copy);
    }
    if (made == 1) run_copied(self, fn, fn_args, kwargs == Py_None ? NULL : kwargs);
    if (made < 0)
        Py_CLEAR(self);
    else {
        tc_copy_started(&copy, &self->child);
        tc_copied_keep(self);
    }
    tc_left_out_free(left_out);
    return (PyObject *)self;
}
