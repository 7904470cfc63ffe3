#ifndef TC_ROUTE_PROGRAM_H
#define TC_ROUTE_PROGRAM_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* program_start(type, daemon, paths, argv, environment, cwd | None, (fd0, fd1, fd2), flags, exit_signal) -> an object
 * of that type, which is derived from Child. Strings are bytes; a descriptor of -1 leaves that stream as it is.
 * StartError names the step that failed. */
PyObject *tc_program_start(PyObject *module, PyObject *args);

#endif
