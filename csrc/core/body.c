/* Running a body on a thread state of its own, and what it leaves in the record. */
#include "shared.h"

#include <signal.h>

#include "interp.h"

static int exit_code_of(PyObject *exception)
{
    if (PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) return 128 + SIGINT;
    if (!PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)) return 1;
    PyObject *code = PyObject_GetAttrString(exception, "code");
    int value = 1; /* as the interpreter: anything but None and a number is a message */
    if (code == Py_None)
        value = 0;
    else if (code && PyLong_Check(code))
        value = (int)(PyLong_AsUnsignedLongMask(code) & 0xff);
    Py_XDECREF(code);
    PyErr_Clear();
    return value;
}

/* ---- what the module threading knows of it ------------------------------------------------------------------------
 */

static PyObject *threading; /* its dictionary, borrowed from a module that is never unloaded */

int tc_body_init(void)
{
    PyObject *module = PyImport_ImportModule("threading");
    if (module) threading = PyModule_GetDict(module);
    Py_XDECREF(module);
    return module ? 0 : -1;
}

/* As Thread does: what threading.settrace() and setprofile() have set is set in each new thread. */
static int install_hook(const char *name, const char *setter)
{
    PyObject *hook = PyDict_GetItemString(threading, name); /* borrowed */
    if (!hook || hook == Py_None) return 0;
    PyObject *set = PySys_GetObject(setter), *done = set ? PyObject_CallOneArg(set, hook) : NULL;
    Py_XDECREF(done);
    return done || !set ? 0 : -1;
}

static int enter(struct tc_task *task, PyObject *key)
{
    PyObject *active = PyDict_GetItemString(threading, "_active");
    if (task->entry && active && PyDict_SetItem(active, key, task->entry) < 0) return -1;
    return install_hook("_trace_hook", "settrace") < 0 ? -1 : install_hook("_profile_hook", "setprofile");
}

/* threading.current_thread() in a task makes an entry that on 3.11 and 3.12 outlives it: the next task on this host,
 * whose ident is the same, would find it. */
static void leave(PyObject *key)
{
    PyObject *active = PyDict_GetItemString(threading, "_active");
    if (active && PyDict_CheckExact(active) && PyDict_Contains(active, key) == 1) PyDict_DelItem(active, key);
    PyErr_Clear();
}

/* ---- exceptions that nobody asks for ------------------------------------------------------------------------------
 */

static PyObject *uncaught_hook;

PyObject *tc_set_uncaught_hook(PyObject *module, PyObject *hook)
{
    (void)module;
    Py_XSETREF(uncaught_hook, Py_NewRef(hook));
    Py_RETURN_NONE;
}

void tc_tell_uncaught(struct tc_task *task, PyObject *entry)
{
    if (!task->thread || !task->exception || task->asked || !uncaught_hook) return;
    task->asked = 1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    /* The kernel's name: it may be cut in the middle of a character. */
    PyObject *name = task->name[0] ? PyUnicode_DecodeUTF8(task->name, (Py_ssize_t)strlen(task->name), "ignore") : NULL;
    PyObject *done = PyErr_Occurred()
                         ? NULL
                         : PyObject_CallFunction(uncaught_hook, "OOOki", task->exception, entry ? entry : Py_None,
                                                 name ? name : Py_None, (unsigned long)task->ident, (int)task->pid);
    Py_XDECREF(name);
    if (!done) PyErr_WriteUnraisable(uncaught_hook);
    Py_XDECREF(done);
    PyErr_Restore(type, value, traceback);
}

/* Nobody but the entry in threading.enumerate() has the handle: the Task is gone. */
static int let_go_of(struct tc_task *task)
{
    PyObject *handle = PyObject_GetAttrString(task->entry, "core");
    if (!handle) PyErr_Clear(); /* then whoever lets go of it tells */
    int alone = handle && task->handles == 1 && Py_REFCNT(handle) == 2;
    Py_XDECREF(handle);
    return alone;
}

/* ---- the body --------------------------------------------------------------------------------------------------- */

void tc_run_body(struct tc_task *task)
{
    task->ident = PyThread_get_thread_ident();
    task->ts = PyThreadState_Get();
    PyObject *key = PyLong_FromUnsignedLong(task->ident);
    if (task->cancelled)
        PyErr_SetNone(task->cancel);
    else if (key && enter(task, key) == 0 && PyContext_Enter(task->context) == 0) {
        task->value = PyObject_Call(task->fn, task->args, task->kwargs);
        if (!task->value) task->exception = tc_take_exception();
        PyContext_Exit(task->context);
    }
    if (PyErr_Occurred()) task->exception = tc_take_exception();
    if (task->exception) task->exit_code = exit_code_of(task->exception);
    /* An end that was asked for too late would rise in a destructor below. */
    if (task->interrupted) {
        PyThreadState_SetAsyncExc(task->ident, NULL);
        tc_settle_async(task->cancel);
    }
    if (task->entry && task->exception && let_go_of(task)) tc_tell_uncaught(task, task->entry);
    task->ts = NULL; /* with the lock held: no end is asked of this state from here on */
    if (key) leave(key);
    Py_XDECREF(key);
    Py_CLEAR(task->entry); /* it holds a handle, and so this record */
    Py_CLEAR(task->fn);
    Py_CLEAR(task->args);
    Py_CLEAR(task->kwargs);
    Py_CLEAR(task->context);
    if (!task->handles) { /* nobody can ask any more */
        Py_CLEAR(task->value);
        Py_CLEAR(task->exception);
    }
}
