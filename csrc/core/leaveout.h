/* Buffers that a copy is made without: MADV_DONTFORK for the moment of the fork. */
#ifndef TC_LEAVEOUT_H
#define TC_LEAVEOUT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct tc_left_out; /* NULL: nothing is left out */

/* The whole pages of a tuple of buffers, each held until it is freed. 0, or -1 with an exception: not a buffer, or not
 * a whole page in it. */
int tc_left_out_new(PyObject *buffers, struct tc_left_out **left_out);
void tc_left_out_free(struct tc_left_out *left_out);
/* Before and after the fork, without a break between them in which another thread could run Python: that is what keeps
 * two starts with one buffer apart. 0, or -errno and nothing is changed. */
int tc_leave_out(const struct tc_left_out *left_out);
void tc_put_back(const struct tc_left_out *left_out);

#endif
