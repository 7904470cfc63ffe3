/* What this system has, asked of the kernel itself: calls that fail or do nothing, and children that end at once. */
#ifndef TC_PROBE_H
#define TC_PROBE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *tc_probe(PyObject *module, PyObject *name);
PyObject *tc_probe_flags(PyObject *module, PyObject *args);
PyObject *tc_probe_user_namespace(PyObject *module, PyObject *unused);

#endif
