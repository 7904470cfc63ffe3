/* Bare starts into bodies of C only: the floor that every other way to start a task is measured against. */
#ifndef TC_ROUTE_BARE_H
#define TC_ROUTE_BARE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* bare_run(kind, count, seconds) -> (start_ns, total_ns), and first_ns for the kinds named _first: bytes objects of
 * native uint64, one entry a launch. */
PyObject *tc_bare_run(PyObject *module, PyObject *args);

/* bare_memcpy(size, repeats) -> bytes of native uint64: nanoseconds that each copy of size bytes took. */
PyObject *tc_bare_memcpy(PyObject *module, PyObject *args);

#endif
