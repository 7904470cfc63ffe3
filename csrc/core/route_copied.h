#ifndef TC_ROUTE_COPIED_H
#define TC_ROUTE_COPIED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* copied_start(record, child, name) -> True in the creator, and the child is filled; False in the new task. */
PyObject *tc_copied_start(PyObject *module, PyObject *args);

/* flush_streams(): sys.stdout and sys.stderr, unless they are closed. */
PyObject *tc_flush_streams(PyObject *module, PyObject *unused);

extern PyType_Spec tc_record_spec;

#endif
