/* Python values -> one spec. All allocation of a start happens here, before the clone. */
#ifndef TC_SPEC_H
#define TC_SPEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct clone_args;

#include "child.h"

/* An array of C strings out of a sequence of bytes, NULL at the end; the strings stay the property of the sequence.
 * PyMem_Free() it. NULL with an exception: not a sequence of bytes, or a NUL byte inside. */
const char **tc_strings(PyObject *sequence, const char *what);

/* Fills what a plan's setup and streams say: None, or a tuple (cwd or None, mask of ignored signals, mask of defaulted
 * ones, signal mask or None, parent-death signal or 0, close_fds, (stdin, stdout, stderr)). The path stays the property
 * of the tuple. 0, or -1 with an exception. */
int tc_setup_from(PyObject *setup, struct tc_spec *spec);

/* Converter for "O&": bytes without a NUL, or None; fills a const char *, which stays the property of the object. */
int tc_bytes_or_none(PyObject *object, void *result);

/* struct clone_args for a spec: everything but the stack, which is the route's. */
void tc_clone_args(const struct tc_spec *spec, struct clone_args *args, int *pidfd, pid_t *tid);

#endif
