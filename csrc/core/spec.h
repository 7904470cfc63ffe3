/* Python values -> one spec. All allocation of a start happens here, before the clone. */
#ifndef TC_SPEC_H
#define TC_SPEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "child.h"
#include "cstrings.h"

/* Fills what a plan's setup and streams say: None, or a tuple (cwd or None, mask of ignored signals, mask of defaulted
 * ones, signal mask or None, parent-death signal or 0, close_fds, (stdin, stdout, stderr), (control group or -1, ids,
 * uid_map or None, gid_map or None, Mapper or None, no_new_privs)). The path stays the property
 * of the tuple. 0, or -1 with an exception. */
int tc_setup_from(PyObject *setup, struct tc_spec *spec);

/* The ids that the task is to have: a tuple, innermost PID namespace first. 0, or -1 with an exception. */
int tc_set_tid_from(PyObject *ids, struct tc_spec *spec);

/* struct clone_args for a spec: everything but the stack, which is the route's. */
void tc_clone_args(const struct tc_spec *spec, struct clone_args *args, int *pidfd, pid_t *tid);

#endif
