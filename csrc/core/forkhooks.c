/* What of its creator's is not a copy's affair, where the two share their descriptors.
 *
 * The interpreter's own list of what is called in the child of a fork: there is no way to it but the internal header,
 * which comes with each version. */
#define Py_BUILD_CORE 1
#include "forkhooks.h"

#include <internal/pycore_interp.h>

static PyObject *kept;

PyObject *tc_fork_hooks(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *list = PyInterpreterState_Get()->after_forkers_child;
    return list ? PyList_GetSlice(list, 0, PY_SSIZE_T_MAX) : PyList_New(0);
}

PyObject *tc_keep_fork_hooks(PyObject *module, PyObject *list)
{
    (void)module;
    if (!PyList_Check(list)) return PyErr_BadArgument(), NULL;
    Py_XSETREF(kept, Py_NewRef(list));
    Py_RETURN_NONE;
}

void tc_after_fork_keeping(void)
{
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    PyObject *all = interpreter->after_forkers_child;
    if (kept) interpreter->after_forkers_child = kept;
    PyOS_AfterFork_Child();
    interpreter->after_forkers_child = all;
}

void tc_leave_garbage(PyObject *gc)
{
    int enabled = PyGC_Disable();
    PyObject *frozen = PyObject_CallMethod(gc, "freeze", NULL);
    if (!frozen) return PyErr_WriteUnraisable(gc); /* and it stays disabled */
    Py_DECREF(frozen);
    if (enabled) PyGC_Enable();
}
