/* Descriptors that belong to an object, which may go in another process or file table than they are in. */
#ifndef TC_DESCRIPTOR_H
#define TC_DESCRIPTOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* Closes a descriptor that was opened in that file table (tc_file_table()), in this copy of the memory or, if
 * tc_may_close() says so, in an earlier one. Where the caller has another table, in which the number is another file's,
 * it is left to the creator, if it is the creator's. With the interpreter lock. */
void tc_close_in(uint64_t file_table, unsigned generation, int fd);
void tc_close_left(void); /* by whoever opens the next: what was left to the creator, if that is the caller */
void tc_descriptors_after_fork(void); /* in the child: they are the parent's to close */

int tc_descriptor_ready(PyObject *module);
/* descriptor(number) -> an object that owns it from now on, also if this fails */
PyObject *tc_descriptor(PyObject *module, PyObject *number);

#endif
