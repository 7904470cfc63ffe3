#include "copied.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "mapping.h"
#include "shared.h"
#include "sys.h"

enum { PAGE = 4096 };
enum { INLINE = PAGE - sizeof(struct page) };

PyTypeObject *tc_copied_type;
PyObject *tc_nothing;

/* In a copy of the creator, which has not inherited it: see tc_copied_keep(). */
static int page_lost(const struct copied *self)
{
    return self->page && self->child.owner && self->page_generation != tc_generation;
}

static void close_record(struct copied *self)
{
    if (self->page && !page_lost(self)) munmap(self->page, PAGE);
    self->page = NULL;
    if (self->fd >= 0 && tc_child_may_close(&self->child)) tc_child_close_fd(&self->child, self->fd);
    self->fd = -1;
}

/* All that can be made before the fork is: what is written to while the child lives has to be copied first. */
struct copied *tc_copied_new(PyTypeObject *type, int daemon)
{
    struct copied *self = (struct copied *)tc_child_new(type, daemon);
    if (!self) return NULL;
    const char *call = "memfd_create";
    void *page = MAP_FAILED;
    self->fd = tc_not_a_stream((int)TC_SYS(SYS_memfd_create, "taskclone", MFD_CLOEXEC));
    if (self->fd < 0)
        errno = -self->fd;
    else if ((call = "ftruncate", ftruncate(self->fd, PAGE) == 0))
        call = "mmap", page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
    if (page != MAP_FAILED) {
        self->page = page;
        self->page_generation = tc_generation;
        return self;
    }
    tc_raise(errno, call);
    Py_DECREF(self);
    return NULL;
}

/* The tasks that are started while this one lives need not inherit its page: n of them would have n * n mappings. */
void tc_copied_keep(struct copied *self) { madvise(self->page, PAGE, MADV_DONTFORK); }

static void copied_dealloc(PyObject *self)
{
    close_record((struct copied *)self);
    tc_child_dealloc(self);
}

static int record_open(struct copied *self)
{
    if (page_lost(self) && self->child.generation >= tc_closed_generation) {
        void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
        if (page == MAP_FAILED) return tc_raise(errno, "mmap"), 0;
        self->page = page;
        self->page_generation = tc_generation;
    }
    if (self->page && !page_lost(self)) return 1;
    PyErr_SetString(PyExc_ValueError, "the record is closed");
    return 0;
}

/* ---- in the task: write() as often as it takes, then finish() --------------------------------------------------- */

static PyObject *raise_no_room(int err, uint64_t at)
{
    const char *cure = err == EFBIG    ? "see RLIMIT_FSIZE"
                       : err == ENOSPC ? "see vm.overcommit_memory"
                       : err == ENOMEM ? "see memory.max of the control group"
                                       : "it goes through a memfd";
    return tc_raise_named("OutcomeError",
                          "no room for the outcome: writing it to memory failed after %llu bytes: %s; %s",
                          (unsigned long long)at, strerror(err), cure);
}

/* Writes at a place in the memfd; what falls into its first page by memory. In pieces: a signal may ask for the end. */
static int put(struct copied *self, uint64_t at, const char *data, uint64_t size)
{
    enum { PIECE = 64 << 20 };
    if (at < PAGE) {
        uint64_t here = size < PAGE - at ? size : PAGE - at;
        memcpy((char *)self->page + at, data, here);
        at += here, data += here, size -= here;
    }
    while (size) {
        ssize_t n;
        Py_BEGIN_ALLOW_THREADS;
        n = pwrite(self->fd, data, size < PIECE ? size : PIECE, (off_t)at);
        Py_END_ALLOW_THREADS;
        if (n < 0 && errno != EINTR) return raise_no_room(errno, at), -1;
        if (n > 0) at += (uint64_t)n, data += n, size -= (uint64_t)n;
        if (PyErr_CheckSignals() < 0) return -1;
    }
    return 0;
}

static uint64_t aligned(uint64_t at, uint64_t to) { return (at + to - 1) / to * to; }
static uint64_t table_at(const struct page *page) { return aligned(sizeof *page + page->size, sizeof(uint64_t)); }

/* reset(): forgets what was written. */
static PyObject *copied_reset(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (!record_open(self)) return NULL;
    if (self->page->size && ftruncate(self->fd, PAGE)) return tc_raise(errno, "ftruncate");
    self->page->size = 0;
    Py_RETURN_NONE;
}

/* write(data): appends to the payload, as a file would. */
static PyObject *copied_write(struct copied *self, PyObject *data)
{
    Py_buffer view;
    if (!record_open(self) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    struct page *page = self->page;
    int failed = put(self, sizeof *page + page->size, view.buf, (uint64_t)view.len);
    if (!failed) page->size += (uint64_t)view.len;
    PyBuffer_Release(&view);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* finish(kind, code, buffers): complete before `done` is set. */
static PyObject *copied_finish(struct copied *self, PyObject *args)
{
    int kind, code;
    PyObject *buffers;
    if (!PyArg_ParseTuple(args, "iiO!:finish", &kind, &code, &PyList_Type, &buffers) || !record_open(self)) return NULL;
    struct page *page = self->page;
    uint64_t count = (uint64_t)PyList_GET_SIZE(buffers), entry = table_at(page), unit = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t at = entry + count * sizeof(uint64_t);
    for (uint64_t i = 0; i < count; i++, entry += sizeof(uint64_t)) {
        Py_buffer view;
        if (PyObject_GetBuffer(PyList_GET_ITEM(buffers, (Py_ssize_t)i), &view, PyBUF_SIMPLE) < 0) return NULL;
        uint64_t size = (uint64_t)view.len;
        at = aligned(at, unit);
        int failed = put(self, entry, (const char *)&size, sizeof size) < 0 || put(self, at, view.buf, size) < 0;
        PyBuffer_Release(&view);
        if (failed) return NULL;
        at += size;
    }
    page->kind = kind;
    page->code = code;
    page->buffers = count;
    atomic_store(&page->done, 1);
    Py_RETURN_NONE;
}

/* ---- in the creator --------------------------------------------------------------------------------------------- */

static int fetch(int fd, uint64_t at, void *data, size_t size)
{
    ssize_t n;
    while ((n = pread(fd, data, size, (off_t)at)) < 0 && errno == EINTR) {
    }
    return n == (ssize_t)size ? 0 : -(n < 0 ? errno : EIO);
}

/* left() -> None, or (kind, code); None again when it has been taken */
static PyObject *copied_left(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (!self->page) Py_RETURN_NONE;
    if (!record_open(self)) return NULL;
    if (!atomic_load(&self->page->done)) Py_RETURN_NONE;
    return Py_BuildValue("(ii)", self->page->kind, self->page->code);
}

/* The large buffers, each as a mapping of its own: it goes when the object that was made from it goes. */
static PyObject *map_buffers(struct copied *self, uint64_t end)
{
    struct page *page = self->page;
    uint64_t entry = table_at(page), unit = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t at = entry + page->buffers * sizeof(uint64_t);
    PyObject *list = PyList_New(0);
    for (uint64_t i = 0; list && i < page->buffers; i++, entry += sizeof(uint64_t)) {
        uint64_t size = 0;
        int err = fetch(self->fd, entry, &size, sizeof size);
        at = aligned(at, unit);
        if (!err && (at > end || size > end - at)) err = -EIO;
        PyObject *one = err ? tc_raise(-err, "reading the record") : tc_mapping_new(self->fd, at, size);
        if (!one || PyList_Append(list, one) < 0) Py_CLEAR(list);
        Py_XDECREF(one);
        at += size;
    }
    return list;
}

/* load() -> (payload, buffers), once something is left. A payload that does not fit into the page is mapped, too. */
static PyObject *copied_load(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (!record_open(self)) return NULL;
    struct page *page = self->page;
    struct stat file;
    if (fstat(self->fd, &file)) return tc_raise(errno, "fstat");
    uint64_t end = (uint64_t)file.st_size; /* beyond it a mapping is SIGBUS */
    if (page->size > INLINE && (page->size > end || sizeof *page + page->size > end))
        return tc_raise(EIO, "reading the record");
    PyObject *buffers = map_buffers(self, end);
    if (!buffers) return NULL;
    PyObject *payload = page->size <= INLINE ? PyBytes_FromStringAndSize(page->payload, (Py_ssize_t)page->size)
                                             : tc_mapping_new(self->fd, sizeof *page, page->size);
    if (!payload) {
        Py_DECREF(buffers);
        return NULL;
    }
    return Py_BuildValue("(NN)", payload, buffers);
}

/* close(): everything that was left has been taken. */
static PyObject *copied_close(struct copied *self, PyObject *unused)
{
    (void)unused;
    /* Large buffers that live on keep the whole file alive; of it they need no payload. */
    if (self->page && self->page->buffers && self->page->size > INLINE &&
        fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, (off_t)(self->page->size - INLINE)))
        return tc_raise(errno, "fallocate");
    close_record(self);
    Py_RETURN_NONE;
}

/* plain() -> (kind, None), or None where there is something to unpack. */
static PyObject *copied_plain(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (self->page && !page_lost(self) && atomic_load(&self->page->done) && self->page->kind == TC_KIND_NONE)
        return Py_NewRef(tc_nothing);
    Py_RETURN_NONE;
}

/* check(): in the creator; raises StartError when a step of the child's setup failed. */
static PyObject *copied_check(struct copied *self, PyObject *unused)
{
    (void)unused;
    if (!record_open(self)) return NULL;
    int err;
    enum tc_step step = tc_report_failed(&self->page->start.report, &err);
    if (step) return tc_raise_step(step, err);
    Py_RETURN_NONE;
}

static PyObject *copied_abandon(struct copied *self, PyObject *unused)
{
    PyObject *done = tc_child_abandon(&self->child, unused);
    /* A task that shares our descriptors would write its outcome into whatever had the number by then. */
    int writes = self->child.flags & CLONE_FILES && self->child.list;
    if (!writes) close_record(self);
    return done;
}

static PyMethodDef copied_methods[] = {
    {"reset", (PyCFunction)copied_reset, METH_NOARGS, "forget what was written"},
    {"write", (PyCFunction)copied_write, METH_O, "append to the payload"},
    {"finish", (PyCFunction)copied_finish, METH_VARARGS, "finish(kind, code, large buffers): the outcome is there"},
    {"left", (PyCFunction)copied_left, METH_NOARGS, "None or (kind, code)"},
    {"load", (PyCFunction)copied_load, METH_NOARGS, "load() -> (payload, [Mapping])"},
    {"close", (PyCFunction)copied_close, METH_NOARGS, "the outcome was taken: close the memory that it came in"},
    {"plain", (PyCFunction)copied_plain, METH_NOARGS, "(kind, None) or None, once done"},
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
    return tc_copied_type ? PyModule_AddType(module, tc_copied_type) : -1;
}
