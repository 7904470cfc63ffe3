/* Bare starts from inside an interpreter, without its lock: see bare_loop.h for what is measured and how. */
#include "route_bare.h"

#include <stdbool.h>
#include <stdlib.h>

#include "bare_loop.h"

#define ENTRY ((Py_ssize_t)sizeof(uint64_t))

/* The one edge that raises. */
static PyObject *raise_error(const struct bare *b, int error)
{
    char text[160];
    bare_explain(b, error, text, sizeof text);
    PyObject *value = Py_BuildValue("(is)", error, text);
    if (value) PyErr_SetObject(PyExc_OSError, value);
    Py_XDECREF(value);
    return NULL;
}

/* Launches until the count or the time is reached; false with an exception set. */
static bool run_all(struct bare *b)
{
    do {
        PyThreadState *save = PyEval_SaveThread();
        int r = run_chunk(b);
        PyEval_RestoreThread(save);
        if (r) {
            raise_error(b, -r);
            return false;
        }
        if (PyErr_CheckSignals()) return false;
    } while (b->done < b->count && now_ns() < b->deadline);
    return true;
}

/* Touched, so that no page is made while the clock runs. */
static PyObject *new_stamps(Py_ssize_t count)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * ENTRY);
    if (bytes) memset(PyBytes_AS_STRING(bytes), 0, (size_t)PyBytes_GET_SIZE(bytes));
    return bytes;
}

static uint64_t *stamps_of(PyObject *bytes) { return (uint64_t *)(void *)PyBytes_AS_STRING(bytes); }

static bool check_count(const char *name, Py_ssize_t count)
{
    if (count > 0 && count <= PY_SSIZE_T_MAX / 64) return true;
    PyErr_Format(PyExc_ValueError, "%s must be positive, and not as large as %zd", name, count);
    return false;
}

PyObject *tc_bare_run(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    Py_ssize_t count;
    double seconds;
    if (!PyArg_ParseTuple(args, "snd:bare_run", &name, &count, &seconds) || !check_count("count", count)) return NULL;
    struct bare b = {.kind = FIND_KIND(kinds, name), .count = (size_t)count};
    if (!b.kind)
        return PyErr_Format(PyExc_ValueError,
                            "no bare kind '%.40s': fork, pthread, vm_vfork or vm, "
                            "each also with _first",
                            name);
    if (!(seconds > 0 && seconds < 1e9)) {
        PyErr_SetString(PyExc_ValueError, "seconds must be positive and below 1e9");
        return NULL;
    }

    int times = times_of(b.kind);
    PyObject *values[MOST_TIMES] = {NULL}, *result = NULL;
    bool ran = true;
    for (int i = 0; i < times && ran; i++) {
        values[i] = new_stamps(count);
        ran = values[i] != NULL;
        if (ran) b.ns[i] = stamps_of(values[i]);
    }
    if (ran) {
        int r = bare_open(&b, seconds);
        ran = r ? (raise_error(&b, -r), false) : run_all(&b);
        bare_close(&b);
    }
    for (int i = 0; i < times && ran; i++) ran = _PyBytes_Resize(&values[i], (Py_ssize_t)b.done * ENTRY) == 0;
    if (ran) result = PyTuple_New(times);
    for (int i = 0; i < times; i++) {
        if (result)
            PyTuple_SET_ITEM(result, i, values[i]);
        else
            Py_XDECREF(values[i]);
    }
    return result;
}

PyObject *tc_bare_memcpy(PyObject *module, PyObject *args)
{
    (void)module;
    Py_ssize_t size, repeats;
    if (!PyArg_ParseTuple(args, "nn:bare_memcpy", &size, &repeats)) return NULL;
    if (!check_count("size", size) || !check_count("repeats", repeats)) return NULL;
    PyObject *result = new_stamps(repeats);
    char *from = malloc((size_t)size), *to = malloc((size_t)size);
    if (!result || !from || !to) {
        if (result) PyErr_NoMemory();
        Py_CLEAR(result);
    } else {
        uint64_t *ns = stamps_of(result);
        memset(from, 1, (size_t)size);
        memset(to, 2, (size_t)size);
        for (Py_ssize_t i = 0; i < repeats && result; i++) {
            PyThreadState *save = PyEval_SaveThread();
            uint64_t before = now_ns();
            memcpy(to, from, (size_t)size);
            __asm__ volatile("" : : "r"(to) : "memory"); /* the copy is wanted although nobody reads it */
            ns[i] = now_ns() - before;
            PyEval_RestoreThread(save);
            if (PyErr_CheckSignals()) Py_CLEAR(result);
        }
    }
    free(from);
    free(to);
    return result;
}
