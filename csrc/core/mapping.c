/* A piece of a file as a Python buffer. mmap.mmap would do, but that keeps a descriptor of its own open (until 3.13).
 */
#include "mapping.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"

typedef struct {
    PyObject_HEAD
    char *base; /* what was mapped, from a page's start */
    size_t length, skip;
} MappingObject;

static PyTypeObject *mapping_type;

PyObject *tc_mapping_new(int fd, uint64_t at, uint64_t size)
{
    MappingObject *self = (MappingObject *)mapping_type->tp_alloc(mapping_type, 0);
    if (!self) return NULL;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    self->skip = (size_t)(at % page);
    self->length = self->skip + (size_t)size;
    /* Private: a later fork's child must not see what is written here, nor write to it. */
    void *base = mmap(NULL, self->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t)(at - self->skip));
    if (base == MAP_FAILED) {
        int err = errno;
        Py_DECREF(self);
        return tc_raise(err, "mmap");
    }
    self->base = base;
    return (PyObject *)self;
}

static void mapping_dealloc(MappingObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->base) munmap(self->base, self->length);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Each view holds a reference: the last one that goes unmaps. */
static int mapping_getbuffer(MappingObject *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->base + self->skip, (Py_ssize_t)(self->length - self->skip),
                             0, flags);
}

static PyType_Slot mapping_slots[] = {
    {Py_tp_dealloc, mapping_dealloc},
    {Py_bf_getbuffer, mapping_getbuffer},
    {Py_tp_doc, "A piece of a file, mapped privately: memory for objects that a task has left."},
    {0, NULL},
};
static PyType_Spec mapping_spec = {"taskclone._core.Mapping", sizeof(MappingObject), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, mapping_slots};

int tc_mapping_ready(PyObject *module)
{
    mapping_type = (PyTypeObject *)PyType_FromSpec(&mapping_spec);
    return mapping_type ? PyModule_AddType(module, mapping_type) : -1;
}
