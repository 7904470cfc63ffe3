/* Descriptors that belong to an object, and who closes them.
 *
 * Objects are collected wherever the collector happens to run: in a task with a file table of its own, where the number
 * is another file's or none, or in a copy whose descriptors were all closed and made anew. */
#include "descriptor.h"

#include <unistd.h>

#include "error.h"
#include "shared.h"

static struct number {
    struct number *next;
    int fd;
} *unclosed;

void tc_close_in(uint64_t file_table, unsigned generation, int fd)
{
    if (!tc_may_close(generation)) return;
    if (file_table == tc_file_table())
        close(fd);
    else if (!file_table) {
        struct number *one = PyMem_Malloc(sizeof *one);
        if (!one) return; /* a descriptor is lost: there is no memory left to say so */
        *one = (struct number){unclosed, fd};
        unclosed = one;
    } /* else it is a task's that made it, and goes with that */
}

void tc_close_left(void)
{
    if (!unclosed || !tc_own_files()) return;
    for (struct number *one; (one = unclosed); PyMem_Free(one)) {
        unclosed = one->next;
        close(one->fd);
    }
}

/* A task's copy has the task's file table, where these numbers are other files'. */
void tc_descriptors_after_fork(void) { unclosed = NULL; }

/* ---- the object ------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    int fd;
    uint64_t file_table;
    unsigned generation;
} DescriptorObject;

static PyTypeObject *descriptor_type;

PyObject *tc_descriptor(PyObject *module, PyObject *number)
{
    (void)module;
    int fd = (int)PyLong_AsLong(number);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    tc_close_left();
    DescriptorObject *self = PyObject_New(DescriptorObject, descriptor_type);
    if (!self) {
        close(fd);
        return NULL;
    }
    self->fd = fd;
    self->file_table = tc_file_table();
    self->generation = tc_generation;
    return (PyObject *)self;
}

static PyObject *descriptor_fileno(DescriptorObject *self, PyObject *unused)
{
    (void)unused;
    if (self->fd < 0) return PyErr_Format(PyExc_ValueError, "the descriptor is closed");
    if (self->file_table == tc_file_table() && self->generation >= tc_closed_generation)
        return PyLong_FromLong(self->fd);
    return tc_raise_named("UnsupportedOperation",
                          "this file is not open here: the caller has a file table of its own, or closed all files");
}

static PyObject *descriptor_close(DescriptorObject *self, PyObject *unused)
{
    (void)unused;
    int fd = self->fd;
    self->fd = -1;
    if (fd >= 0) tc_close_in(self->file_table, self->generation, fd);
    Py_RETURN_NONE;
}

static void descriptor_dealloc(DescriptorObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(descriptor_close(self, NULL));
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef descriptor_methods[] = {
    {"fileno", (PyCFunction)descriptor_fileno, METH_NOARGS, "the number; UnsupportedOperation where it means another"},
    {"close", (PyCFunction)descriptor_close, METH_NOARGS, "close it, or leave that to those whose it is"},
    {0},
};
static PyType_Slot descriptor_slots[] = {
    {Py_tp_dealloc, descriptor_dealloc},
    {Py_tp_methods, descriptor_methods},
    {Py_tp_doc, "Owns a descriptor, and closes it only where its number means it."},
    {0, NULL},
};
static PyType_Spec descriptor_spec = {"taskclone._core.Descriptor", sizeof(DescriptorObject), 0,
                                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, descriptor_slots};

int tc_descriptor_ready(PyObject *module)
{
    descriptor_type = (PyTypeObject *)PyType_FromSpec(&descriptor_spec);
    return descriptor_type ? PyModule_AddObjectRef(module, "Descriptor", (PyObject *)descriptor_type) : -1;
}
