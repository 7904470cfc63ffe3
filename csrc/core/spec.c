#include <linux/sched.h>

#include "spec.h"

#include <string.h>

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

int tc_setup_from(PyObject *setup, struct tc_spec *spec)
{
    for (int i = 0; i < 3; i++) spec->streams[i] = -1;
    if (setup == Py_None) return 0;
    unsigned long long ignored, defaulted;
    PyObject *mask;
    int close_fds;
    if (!PyTuple_Check(setup)) return PyErr_BadArgument(), -1;
    if (!PyArg_ParseTuple(setup, "O&KKOip(iii):setup", tc_bytes_or_none, &spec->cwd, &ignored, &defaulted, &mask,
                          &spec->parent_death, &close_fds, &spec->streams[0], &spec->streams[1], &spec->streams[2]))
        return -1;
    if (mask != Py_None) {
        spec->sigmask = PyLong_AsUnsignedLongLong(mask);
        if (spec->sigmask == (uint64_t)-1 && PyErr_Occurred()) return -1;
        spec->own_sigmask = 1;
    }
    spec->ignored = ignored;
    spec->defaulted = defaulted;
    spec->close_fds = (unsigned)close_fds;
    spec->awaited = 1;
    return 0;
}

void tc_clone_args(const struct tc_spec *spec, struct clone_args *args, int *pidfd, pid_t *tid)
{
    memset(args, 0, sizeof *args);
    args->flags = spec->flags | CLONE_PARENT_SETTID;
    args->exit_signal = spec->exit_signal;
    if (spec->flags & CLONE_PIDFD) args->pidfd = (uint64_t)(uintptr_t)pidfd;
    args->parent_tid = (uint64_t)(uintptr_t)tid;
}
