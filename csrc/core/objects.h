#ifndef TC_OBJECTS_H
#define TC_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *tc_memory_of(PyObject *module, PyObject *object);
PyObject *tc_set_word(PyObject *module, PyObject *args);
PyObject *tc_keep(PyObject *module, PyObject *object);
PyObject *tc_of_types(PyObject *module, PyObject *args);

#endif
