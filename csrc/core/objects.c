/* What Python does not do with objects: for damage.py, which looks for what a death has left behind. */
#include "objects.h"

/* memory_of(object): some locks say who holds them in a field that Python does not show. */
PyObject *tc_memory_of(PyObject *module, PyObject *object)
{
    (void)module;
    return PyBytes_FromStringAndSize((const char *)object, Py_TYPE(object)->tp_basicsize);
}

/* set_word(object, at, value): in that memory, in words of unsigned long. */
PyObject *tc_set_word(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *object;
    Py_ssize_t at;
    unsigned long value;
    if (!PyArg_ParseTuple(args, "Onk:set_word", &object, &at, &value)) return NULL;
    if (at < 0 || (at + 1) * (Py_ssize_t)sizeof value > Py_TYPE(object)->tp_basicsize)
        return PyErr_Format(PyExc_IndexError, "word %zd of a %s", at, Py_TYPE(object)->tp_name);
    memcpy((char *)object + at * (Py_ssize_t)sizeof value, &value, sizeof value);
    Py_RETURN_NONE;
}

/* keep(object): a module's variable would let go of it when the interpreter is finalized. */
PyObject *tc_keep(PyObject *module, PyObject *object)
{
    (void)module;
    Py_INCREF(object);
    Py_RETURN_NONE;
}

/* of_types(list, types): a million objects in some milliseconds. */
PyObject *tc_of_types(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *objects, *types;
    if (!PyArg_ParseTuple(args, "O!O!:of_types", &PyList_Type, &objects, &PyTuple_Type, &types)) return NULL;
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found && i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        int is_one = 0;
        for (Py_ssize_t t = 0; !is_one && t < PyTuple_GET_SIZE(types); t++)
            is_one = PyType_IsSubtype(Py_TYPE(object), (PyTypeObject *)PyTuple_GET_ITEM(types, t));
        if (is_one && PyList_Append(found, object) < 0) Py_CLEAR(found);
    }
    return found;
}
