#include "error.h"

#include <string.h>

PyObject *tc_raise(int err, const char *call)
{
    PyObject *text = PyUnicode_FromFormat("%s: %s", call, strerror(err));
    PyObject *args = text ? Py_BuildValue("(iN)", err, text) : NULL;
    if (args) PyErr_SetObject(PyExc_OSError, args); /* OSError picks the subclass by errno */
    Py_XDECREF(args);
    return NULL;
}

static PyObject *errors_attribute(const char *name)
{
    PyObject *module = PyImport_ImportModule("taskclone.errors");
    PyObject *value = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return value;
}

PyObject *tc_raise_step(enum tc_step step, int err)
{
    PyObject *make = errors_attribute("start_error");
    PyObject *error = make ? PyObject_CallFunction(make, "is", err, tc_step_name(step)) : NULL;
    if (error) PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    Py_XDECREF(make);
    return NULL;
}

PyObject *tc_raise_named(const char *exception, const char *format, ...)
{
    PyObject *class = errors_attribute(exception);
    if (!class) return NULL;
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(class, format, arguments);
    va_end(arguments);
    Py_DECREF(class);
    return NULL;
}
