/* Descriptors that tell an event loop of a task's outcome. */
#ifndef TC_BELL_H
#define TC_BELL_H

#include "shared.h"

/* Of a record, for ever: bells come and go. */
struct tc_hook {
    struct tc_hook *next;
    _Atomic int fd; /* to be rung; -1: it is free */
};

int tc_bell_ready(PyObject *module);
void tc_bells_free(struct tc_task *task);         /* nobody has the record any more */
PyObject *tc_bell_for_task(struct tc_task *task); /* that no thread with files of its own is */
PyObject *tc_bell_for_pidfd(int pidfd);           /* readable when that is */

#endif
