/* The guard of _thread.start_new_thread.
 *
 * A thread started in a task belongs to the task's own process. When that ends, a thread of it may hold the interpreter
 * lock or wait for it, and the creator hangs. So a start is refused there, unless the plan allows threads: then they
 * are counted, and the task waits for them before it ends.
 *
 * Not an audit hook: 3.11 has no such event, and a hook doubles the cost of id(). The method table entries of the
 * built-in functions are changed, so that what `threading` has imported already is covered too. */
#include "shared.h"

#include <string.h>

#include "error.h"
#include "sys.h"

struct tc_task *tc_current_task(void) { return (struct tc_task *)tc_current; }

/* ---- a thread of a task: sets the TLS pointer, counts itself out ------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *fn;
    struct tc_task *task;
} BodyObject;

static PyObject *body_call(BodyObject *self, PyObject *args, PyObject *kwargs)
{
    struct tc_task *task = self->task;
    tc_current = &task->signals; /* it may start threads of its own, and its crash is the task's */
    PyObject *result = PyObject_Call(self->fn, args, kwargs);
    tc_current = NULL;
    return result;
}

static void count_out(struct tc_task *task)
{
    if (atomic_fetch_sub(&task->threads, 1) == 1) tc_futex_wake(&task->threads);
}

static void body_dealloc(BodyObject *self)
{
    /* The interpreter lets go of the function when the thread ends, or when it could not be started. */
    Py_XDECREF(self->fn);
    count_out(self->task);
    tc_task_release(self->task);
    PyObject_Free(self);
}

static PyTypeObject body_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "taskclone._core.ThreadBody",
    .tp_basicsize = sizeof(BodyObject),
    .tp_dealloc = (destructor)body_dealloc,
    .tp_call = (ternaryfunc)body_call,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
};

/* Arguments with the function replaced, or NULL with an exception. */
static PyObject *guarded(struct tc_task *task, PyObject *args)
{
    if (!task->may_thread) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "this task shares its creator's memory and may not start threads: they would be killed with it, "
            "perhaps holding the interpreter lock. Start the task with flags=THREAD (threads stay the "
            "creator's) or flags=PROCESS, or allow it with setup=ChildSetup(threads=True)");
        return NULL;
    }
    if (PyTuple_GET_SIZE(args) < 1) return Py_NewRef(args); /* the function itself complains */
    BodyObject *body = PyObject_New(BodyObject, &body_type);
    if (!body) return NULL;
    body->fn = Py_NewRef(PyTuple_GET_ITEM(args, 0));
    body->task = task;
    atomic_fetch_add(&task->threads, 1);
    atomic_fetch_add(&task->references, 1);
    PyObject *copy = PyTuple_New(PyTuple_GET_SIZE(args));
    if (!copy) {
        Py_DECREF(body);
        return NULL;
    }
    PyTuple_SET_ITEM(copy, 0, (PyObject *)body);
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(args); i++)
        PyTuple_SET_ITEM(copy, i, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    return copy;
}

/* ---- the wrappers ----------------------------------------------------------------------------------------------- */

static PyCFunction plain_original[2];
static PyCFunctionWithKeywords keyword_original;

static PyObject *start_plain(int which, PyObject *self, PyObject *args)
{
    struct tc_task *task = tc_current_task();
    if (!task) return plain_original[which](self, args);
    PyObject *changed = guarded(task, args);
    PyObject *result = changed ? plain_original[which](self, changed) : NULL;
    Py_XDECREF(changed);
    return result;
}
static PyObject *start_new_thread(PyObject *self, PyObject *args) { return start_plain(0, self, args); }
static PyObject *start_new(PyObject *self, PyObject *args) { return start_plain(1, self, args); }

/* start_joinable_thread(function, handle=None, daemon=True), 3.13 */
static PyObject *start_joinable_thread(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct tc_task *task = tc_current_task();
    if (!task) return keyword_original(self, args, kwargs);
    PyObject *copy = NULL, *result = NULL;
    if (!PyTuple_GET_SIZE(args) && kwargs && PyDict_GetItemString(kwargs, "function")) {
        /* by keyword: move it to the front */
        copy = PyDict_Copy(kwargs);
        PyObject *front = copy ? PyTuple_Pack(1, PyDict_GetItemString(copy, "function")) : NULL;
        if (front && PyDict_DelItemString(copy, "function") == 0) result = start_joinable_thread(self, front, copy);
        Py_XDECREF(front);
        Py_XDECREF(copy);
        return result;
    }
    PyObject *changed = guarded(task, args);
    result = changed ? keyword_original(self, changed, kwargs) : NULL;
    Py_XDECREF(changed);
    return result;
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

/* Once, when the first shared task starts. 0, or -1 with an exception: then no shared task may start. */
int tc_guard_threads(void)
{
    static int done;
    if (done) return 0;
    if (PyType_Ready(&body_type) < 0) return -1;
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

/* In the task, at its end, with the interpreter lock. */
void tc_join_threads(struct tc_task *task)
{
    Py_BEGIN_ALLOW_THREADS;
    for (uint32_t n; (n = atomic_load(&task->threads));) tc_futex_wait(&task->threads, n, NULL);
    Py_END_ALLOW_THREADS;
}
