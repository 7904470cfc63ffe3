#ifndef TC_KCMP_H
#define TC_KCMP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* kcmp(pid1, pid2, type, index1=0, index2=0): 0 shared, 1 less, 2 greater (kcmp(2)). Trap: two tasks that have no I/O
 * context, or no undo list, compare as equal. */
PyObject *tc_kcmp(PyObject *module, PyObject *args);

#endif
