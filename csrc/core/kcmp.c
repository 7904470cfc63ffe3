#include "kcmp.h"

#include "error.h"
#include "sys.h"

PyObject *tc_kcmp(PyObject *module, PyObject *args)
{
    (void)module;
    int first, second, type;
    unsigned long index1 = 0, index2 = 0;
    if (!PyArg_ParseTuple(args, "iii|kk:kcmp", &first, &second, &type, &index1, &index2)) return NULL;
    long order = TC_SYS(SYS_kcmp, first, second, type, index1, index2);
    if (order < 0) return tc_raise((int)-order, "kcmp");
    return PyLong_FromLong(order);
}
