/* A piece of a file, mapped for as long as any object is made from it. */
#ifndef TC_MAPPING_H
#define TC_MAPPING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int tc_mapping_ready(PyObject *module);
/* A private, writable mapping; the descriptor may be closed at once. NULL with an OSError. */
PyObject *tc_mapping_new(int fd, uint64_t at, uint64_t size);

#endif
