/* The guard of _thread.start_new_thread.
 *
 * A thread started in a task belongs to the task's own process. When that ends, a thread of it may hold the interpreter
 * lock or wait for it, and the creator hangs. So a start is refused there.
 *
 * Not an audit hook: 3.11 has no such event, and a hook doubles the cost of id(). The method table entries of the
 * built-in functions are changed, so that what `threading` has imported already is covered too. */
#include "shared.h"

#include <string.h>

#include "error.h"
#include "interp.h"

int tc_may_start_thread(void)
{
    if (tc_current_task())
        PyErr_SetString(
            PyExc_RuntimeError,
            "this task shares its creator's memory and may not start threads: they would be killed with it, "
            "perhaps holding the interpreter lock. Start the task with flags=THREAD (threads stay the "
            "creator's) or flags=PROCESS");
    else if (tc_private)
        PyErr_SetString(
            PyExc_RuntimeError,
            "this thread has files, a directory or namespaces of its own, which a thread started here would "
            "share without knowing: start it from another thread");
    else
        return 1;
    return 0;
}

/* ---- the wrappers ----------------------------------------------------------------------------------------------- */

static PyCFunction plain_original[2];
static PyCFunctionWithKeywords keyword_original;

static PyObject *start_new_thread(PyObject *self, PyObject *args)
{
    return tc_may_start_thread() ? plain_original[0](self, args) : NULL;
}
static PyObject *start_new(PyObject *self, PyObject *args)
{
    return tc_may_start_thread() ? plain_original[1](self, args) : NULL;
}
/* 3.13 */
static PyObject *start_joinable_thread(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return tc_may_start_thread() ? keyword_original(self, args, kwargs) : NULL;
}

static PyMethodDef *method_of(PyObject *module, const char *name, int flags)
{
    PyObject *function = PyObject_GetAttrString(module, name);
    if (!function) {
        PyErr_Clear(); /* start_joinable_thread is there from 3.13 only */
        return NULL;
    }
    PyMethodDef *method = PyCFunction_Check(function) ? ((PyCFunctionObject *)function)->m_ml : NULL;
    Py_DECREF(function); /* the module keeps it */
    return method && method->ml_flags == flags ? method : NULL;
}

/* Once, when the first shared task or thread starts. 0, or -1 with an exception: then none may start. */
int tc_guard_threads(void)
{
    static int done;
    if (done) return 0;
    if (!tc_known_interpreter()) {
        tc_raise_named("UnsupportedOperation",
                       "tasks that share memory, and threads, are not started on CPython %.20s: this version of "
                       "taskclone does not know its thread states. Without VM (flags=PROCESS) and as programs they are",
                       Py_GetVersion());
        return -1;
    }
    PyObject *module = PyImport_ImportModule("_thread");
    if (!module) return -1;
    PyMethodDef *plain[2] = {method_of(module, "start_new_thread", METH_VARARGS),
                             method_of(module, "start_new", METH_VARARGS)};
    PyMethodDef *joinable = method_of(module, "start_joinable_thread", METH_VARARGS | METH_KEYWORDS);
    int missing = !plain[0] || (!joinable && PyObject_HasAttrString(module, "start_joinable_thread"));
    Py_DECREF(module);
    if (missing) {
        tc_raise_named("UnsupportedOperation", "cannot guard _thread.start_new_thread: it is not the interpreter's own "
                                               "function (has another library replaced it?)");
        return -1;
    }
    PyCFunction replacement[2] = {start_new_thread, start_new};
    for (int i = 0; i < 2; i++) {
        if (!plain[i] || (i && plain[i] == plain[0])) continue;
        plain_original[i] = plain[i]->ml_meth;
        plain[i]->ml_meth = replacement[i];
    }
    if (joinable) {
        keyword_original = (PyCFunctionWithKeywords)(void *)joinable->ml_meth;
        joinable->ml_meth = (PyCFunction)(void *)start_joinable_thread;
    }
    done = 1;
    return 0;
}
