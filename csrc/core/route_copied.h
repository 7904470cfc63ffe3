#ifndef TC_ROUTE_COPIED_H
#define TC_ROUTE_COPIED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* copied_start(type, name, daemon, fn, args, kwargs[, setup, prepare, how, leave_out, harmless threads]) -> an object
 * of that type, which is Copied or derived from it. */
PyObject *tc_copied_start(PyObject *module, PyObject *args);
PyObject *tc_copied_hooks(PyObject *module, PyObject *args);
PyObject *tc_flush_streams(PyObject *module, PyObject *unused);

#endif
