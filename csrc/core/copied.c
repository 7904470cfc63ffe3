#include "copied.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"

enum { PAGE = 4096 };
enum { INLINE = PAGE - sizeof(struct page) };

PyTypeObject *tc_copied_type;
PyObject *tc_nothing;

static void close_record(struct copied *self)
{
    if (self->page) munmap(self->page, PAGE);
    self->page = NULL;
    if (self->fd >= 0) close(self->fd);
    self->fd = -1;
}

/* All that can be made before the fork is: what is written to while the child lives has to be copied first. */
struct copied *tc_copied_new(PyTypeObject *type, int daemon)
{
    struct copied *self = (struct copied *)tc_child_new(type, daemon);
    if (!self) return NULL;
    const char *call = "memfd_create";
    void *page = MAP_FAILED;
    self->fd = memfd_create("taskclone", MFD_CLOEXEC);
    if (self->fd >= 0 && (call = "ftruncate", ftruncate(self->fd, PAGE) == 0))
        call = "mmap", page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
    if (page != MAP_FAILED) {
        self->page = page;
        return self;
    }
    tc_raise(errno, call);
    Py_DECREF(self);
    return NULL;
}

static void copied_dealloc(PyObject *self)
{
    close_record((struct copied *)self);
    tc_child_dealloc(self);
}

static int record_open(struct copied *self)
{
    if (self->page) return 1;
    PyErr_SetString(PyExc_ValueError, "the record is closed");
    return 0;
}

static int transfer(int fd, char *data, uint64_t size, int writing)
{
    for (uint64_t at = 0; at < size;) {
        ssize_t n = writing ? pwrite(fd, data + at, size - at, PAGE + (off_t)at)
                            : pread(fd, data + at, size - at, PAGE + (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -EIO;
        at += (uint64_t)n;
    }
    return 0;
}

/* store(kind, code, payload): in the task; complete before `done` is set. */
static PyObject *copied_store(struct copied *self, PyObject *args)
{
    int kind, code, err = 0;
    Py_buffer payload;
    if (!PyArg_ParseTuple(args, "iiy*:store", &kind, &code, &payload)) return NULL;
    if (!record_open(self)) {
        PyBuffer_Release(&payload);
        return NULL;
    }
    struct page *page = self->page;
    page->kind = kind;
    page->code = code;
    page->size = (uint64_t)payload.len;
    if (payload.len <= INLINE)
        memcpy(page->payload, payload.buf, (size_t)payload.len);
    else {
        Py_BEGIN_ALLOW_THREADS;
        err = transfer(self->fd, payload.buf, page->size, 1);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&payload);
    if (err) return tc_raise(-err, "pwrite of the outcome");
    atomic_store(&page->done, 1);
    Py_RETURN_NONE;
}

/* load() -> None, or (kind, code, payload): in the creator. */
static PyObject *copied_load(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (!record_open(self)) return NULL;
    struct page *page = self->page;
    if (!atomic_load(&page->done)) Py_RETURN_NONE;
    PyObject *payload = PyBytes_FromStringAndSize(page->size <= INLINE ? page->payload : NULL, (Py_ssize_t)page->size);
    if (!payload) return NULL;
    if (page->size > INLINE) {
        int err;
        Py_BEGIN_ALLOW_THREADS;
        err = transfer(self->fd, PyBytes_AS_STRING(payload), page->size, 0);
        Py_END_ALLOW_THREADS;
        if (err) {
            Py_DECREF(payload);
            return tc_raise(-err, "pread of the outcome");
        }
    }
    return Py_BuildValue("(iiN)", page->kind, page->code, payload);
}

/* outcome(): the shortest way for None; `unpack()`, in Python, for all else. */
static PyObject *copied_outcome(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (self->page && atomic_load(&self->page->done) && self->page->kind == TC_KIND_NONE) return Py_NewRef(tc_nothing);
    return PyObject_CallMethod((PyObject *)self, "unpack", NULL);
}

/* check(): in the creator; raises StartError when a step of the child's setup failed. */
static PyObject *copied_check(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (!record_open(self)) return NULL;
    int err;
    enum tc_step step = tc_report_failed(&self->page->report, &err);
    if (step) return tc_raise_step(step, err);
    Py_RETURN_NONE;
}

static PyObject *copied_abandon(struct copied *self, PyObject *unused)
{
    close_record(self);
    return tc_child_abandon(&self->child, unused);
}

static PyMethodDef copied_methods[] = {
    {"store", (PyCFunction)copied_store, METH_VARARGS, "store(kind, code, payload)"},
    {"load", (PyCFunction)copied_load, METH_NOARGS, "load() -> None or (kind, code, payload)"},
    {"outcome", (PyCFunction)copied_outcome, METH_NOARGS, "(kind, object), once done"},
    {"check", (PyCFunction)copied_check, METH_NOARGS, "raise StartError when the child's setup failed"},
    {"abandon", (PyCFunction)copied_abandon, METH_NOARGS, "nobody will ask for the outcome any more"},
    {0},
};
static PyType_Slot copied_slots[] = {
    {Py_tp_dealloc, copied_dealloc},
    {Py_tp_methods, copied_methods},
    {Py_tp_doc, "A copied task, and the memory that it leaves its outcome in."},
    {0, NULL},
};
static PyType_Spec copied_spec = {"taskclone._core.Copied", sizeof(struct copied), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                  copied_slots};

int tc_copied_ready(PyObject *module)
{
    PyObject *bases = PyTuple_Pack(1, tc_child_type);
    tc_copied_type = bases ? (PyTypeObject *)PyType_FromSpecWithBases(&copied_spec, bases) : NULL;
    Py_XDECREF(bases);
    return tc_copied_type ? PyModule_AddObjectRef(module, "Copied", (PyObject *)tc_copied_type) : -1;
}
