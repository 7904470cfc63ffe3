#ifndef TC_ROUTE_COPIED_H
#define TC_ROUTE_COPIED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* copied_start(record, name) -> (pid, pidfd) in the creator, (0, -1) in the new task. */
PyObject *tc_copied_start(PyObject *module, PyObject *args);

extern PyType_Spec tc_record_spec;

#endif
