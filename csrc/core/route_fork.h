#ifndef TC_ROUTE_FORK_H
#define TC_ROUTE_FORK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* fork_start(type, setup, prepare, how, harmless threads) -> an object of that type, which is Child or derived from it;
 * None in the copy.
 */
PyObject *tc_fork_start(PyObject *module, PyObject *args);

#endif
