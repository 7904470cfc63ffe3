/* -errno inside, and here the one edge that turns it into an exception. */
#ifndef TC_ERROR_H
#define TC_ERROR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "report.h"

/* OSError(errno, "call: text"); err is positive. Always returns NULL. */
PyObject *tc_raise(int err, const char *call);
/* taskclone.errors.StartError for a failed step. Always returns NULL. */
PyObject *tc_raise_step(enum tc_step step, int err);
/* An exception of taskclone.errors by name. Always returns NULL. */
PyObject *tc_raise_named(const char *exception, const char *format, ...);

#endif
