/* What os.register_at_fork() has collected for the child of a fork. */
#ifndef TC_FORKHOOKS_H
#define TC_FORKHOOKS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *tc_fork_hooks(PyObject *module, PyObject *unused); /* -> a list, in the order of the calls */
PyObject *tc_keep_fork_hooks(PyObject *module, PyObject *list);
/* PyOS_AfterFork_Child(), in which of the hooks only those that were last given to tc_keep_fork_hooks() are called. */
void tc_after_fork_keeping(void);
/* What the creator has left to its collector is not the copy's to finalize: a file that was closed here would be closed
 * there once more, under a number that means another by then. `gc`: the module. */
void tc_leave_garbage(PyObject *gc);

#endif
