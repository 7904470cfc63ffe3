/* Descriptors that tell an event loop of a task's outcome. */
#ifndef TC_BELL_H
#define TC_BELL_H

#include "shared.h"

int tc_bell_ready(PyObject *module);
PyObject *tc_bell_for_task(struct tc_task *task); /* that no thread with files of its own is */
PyObject *tc_bell_for_pidfd(int pidfd);           /* readable when that is */

#endif
