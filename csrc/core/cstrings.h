/* Bytes of Python's as C strings. */
#ifndef TC_CSTRINGS_H
#define TC_CSTRINGS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* An array of C strings out of a sequence of bytes, NULL at the end; the strings stay the property of the sequence.
 * PyMem_Free() it. NULL with an exception: not a sequence of bytes, or a NUL byte inside. */
const char **tc_strings(PyObject *sequence, const char *what);

/* Converter for "O&": bytes without a NUL, or None; fills a const char *, which stays the property of the object. */
int tc_bytes_or_none(PyObject *object, void *result);

#endif
