#include "leaveout.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

struct range {
    Py_buffer view;
    char *start;
    size_t size;
};

struct tc_left_out {
    Py_ssize_t count;
    struct range ranges[];
};

/* 0, or -1 with an exception; the view is held in any case but the first. */
static int take(struct range *range, PyObject *buffer, Py_ssize_t number)
{
    if (PyObject_GetBuffer(buffer, &range->view, PyBUF_SIMPLE) < 0) return -1;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)range->view.buf;
    uintptr_t first = (start + page - 1) & ~(page - 1), last = (start + (uintptr_t)range->view.len) & ~(page - 1);
    if (first < last) {
        range->start = (char *)first;
        range->size = last - first;
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 "leave_out[%zd], of type %.100s and %zd bytes, has no whole page of %zu bytes in it: leave it out of "
                 "leave_out",
                 number, Py_TYPE(buffer)->tp_name, range->view.len, (size_t)page);
    PyBuffer_Release(&range->view);
    return -1;
}

int tc_left_out_new(PyObject *buffers, struct tc_left_out **left_out)
{
    *left_out = NULL;
    if (!PyTuple_Check(buffers)) return PyErr_BadArgument(), -1;
    Py_ssize_t count = PyTuple_GET_SIZE(buffers);
    if (!count) return 0;
    struct tc_left_out *made = PyMem_Calloc(1, sizeof *made + (size_t)count * sizeof *made->ranges);
    if (!made) return PyErr_NoMemory(), -1;
    for (; made->count < count; made->count++)
        if (take(&made->ranges[made->count], PyTuple_GET_ITEM(buffers, made->count), made->count) < 0) {
            tc_left_out_free(made);
            return -1;
        }
    *left_out = made;
    return 0;
}

void tc_left_out_free(struct tc_left_out *left_out)
{
    if (!left_out) return;
    for (Py_ssize_t i = 0; i < left_out->count; i++) PyBuffer_Release(&left_out->ranges[i].view);
    PyMem_Free(left_out);
}

static int advise(const struct range *range, int advice)
{
    return madvise(range->start, range->size, advice) ? -errno : 0;
}

int tc_leave_out(const struct tc_left_out *left_out)
{
    int err = 0;
    /* First what undoes it: memory of a device (VM_IO) refuses that, and would be left out for good. */
    for (Py_ssize_t i = 0; left_out && !err && i < left_out->count; i++)
        err = advise(&left_out->ranges[i], MADV_DOFORK);
    for (Py_ssize_t i = 0; left_out && !err && i < left_out->count; i++)
        err = advise(&left_out->ranges[i], MADV_DONTFORK);
    if (err) tc_put_back(left_out);
    return err;
}

void tc_put_back(const struct tc_left_out *left_out)
{
    for (Py_ssize_t i = 0; left_out && i < left_out->count; i++) advise(&left_out->ranges[i], MADV_DOFORK);
}
