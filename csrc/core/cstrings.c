#include "cstrings.h"

const char **tc_strings(PyObject *sequence, const char *what)
{
    PyObject *fast = PySequence_Fast(sequence, what);
    if (!fast) return NULL;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(fast);
    const char **strings = PyMem_Calloc((size_t)n + 1, sizeof *strings);
    if (!strings) PyErr_NoMemory();
    for (Py_ssize_t i = 0; strings && i < n; i++) {
        char *text;
        if (PyBytes_AsStringAndSize(PySequence_Fast_GET_ITEM(fast, i), &text, NULL) < 0) {
            PyMem_Free(strings);
            strings = NULL;
        } else
            strings[i] = text;
    }
    Py_DECREF(fast);
    return strings;
}

int tc_bytes_or_none(PyObject *object, void *result)
{
    const char **text = result;
    *text = NULL;
    if (object == Py_None) return 1;
    return PyBytes_AsStringAndSize(object, (char **)text, NULL) == 0; /* the last NULL: no NUL byte inside */
}
