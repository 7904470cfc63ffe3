/* Copied memory: libc's fork between the interpreter's own steps, and a record that both sides map. */
#include "route_copied.h"

#include <errno.h>
#include <signal.h>
#include <structmember.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "error.h"
#include "shared.h"
#include "spec.h"
#include "sys.h"
#include "wait.h"

enum { PAGE = 4096 };

/* The page that both map. A payload that does not fit follows it in the memfd. */
struct page {
    struct tc_report report;
    _Atomic uint32_t creator_ready; /* futex: the creator has its pidfd, the task may end */
    _Atomic uint32_t done;          /* kind, code and payload are there */
    int32_t kind, code;
    uint64_t size;
    char payload[];
};
enum { INLINE = PAGE - sizeof(struct page) };

typedef struct {
    PyObject_HEAD
    int fd;
    struct page *page;
    pid_t creator;
} RecordObject;

static PyObject *record_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) || kwargs) return PyErr_Format(PyExc_TypeError, "Record() takes no arguments");
    RecordObject *self = (RecordObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->creator = getpid();
    self->page = MAP_FAILED;
    const char *call = "memfd_create";
    self->fd = memfd_create("taskclone", MFD_CLOEXEC);
    if (self->fd >= 0 && (call = "ftruncate", ftruncate(self->fd, PAGE) == 0))
        call = "mmap", self->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
    if (self->page == MAP_FAILED) {
        tc_raise(errno, call);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *record_close(RecordObject *self, PyObject *unused)
{
    (void)unused;
    if (self->page != MAP_FAILED) munmap(self->page, PAGE);
    self->page = MAP_FAILED;
    if (self->fd >= 0) close(self->fd);
    self->fd = -1;
    Py_RETURN_NONE;
}

static void record_dealloc(RecordObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(record_close(self, NULL));
    type->tp_free(self);
    Py_DECREF(type);
}

static int record_open(RecordObject *self)
{
    if (self->page != MAP_FAILED) return 1;
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
static PyObject *record_store(RecordObject *self, PyObject *args)
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
static PyObject *record_load(RecordObject *self, PyObject *unused)
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

/* check(): in the creator; raises StartError when a step of the child's setup failed. */
static PyObject *record_check(RecordObject *self, PyObject *unused)
{
    (void)unused;
    if (!record_open(self)) return NULL;
    int err;
    enum tc_step step = tc_report_failed(&self->page->report, &err);
    if (step) return tc_raise_step(step, err);
    Py_RETURN_NONE;
}

/* In the task, before its body: a status that is taken before the creator has a pidfd is lost to it, and where it
 * cannot have one the body must not have run. A look every 100 ms: the creator may have died. */
static void await_creator(const RecordObject *self)
{
    struct timespec look = {0, 100000000};
    while (!atomic_load(&self->page->creator_ready) && getppid() == self->creator)
        tc_futex_wait(&self->page->creator_ready, 0, &look);
}

static PyMethodDef record_methods[] = {
    {"store", (PyCFunction)record_store, METH_VARARGS, "store(kind, code, payload)"},
    {"load", (PyCFunction)record_load, METH_NOARGS, "load() -> None or (kind, code, payload)"},
    {"check", (PyCFunction)record_check, METH_NOARGS, "raise StartError when the child's setup failed"},
    {"close", (PyCFunction)record_close, METH_NOARGS, "unmap and close"},
    {0},
};
static PyType_Slot record_slots[] = {
    {Py_tp_new, record_new},
    {Py_tp_dealloc, record_dealloc},
    {Py_tp_methods, record_methods},
    {Py_tp_doc, "Memory that a copied task leaves its outcome in."},
    {0, NULL},
};
PyType_Spec tc_record_spec = {"taskclone._core.Record", sizeof(RecordObject), 0, Py_TPFLAGS_DEFAULT, record_slots};

/* In C because a copied task pays for each page that it writes to, and reference counts are writes. */
PyObject *tc_flush_streams(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    static const char *const names[] = {"stdout", "stderr"};
    for (int i = 0; i < 2; i++) {
        PyObject *stream = PySys_GetObject(names[i]); /* borrowed; None where there is none */
        if (!stream || stream == Py_None) continue;
        Py_INCREF(stream);
        PyObject *closed = PyObject_GetAttrString(stream, "closed");
        int is_closed = closed ? PyObject_IsTrue(closed) : -1;
        PyObject *done = is_closed == 0 ? PyObject_CallMethod(stream, "flush", NULL) : NULL;
        Py_XDECREF(closed);
        Py_DECREF(stream);
        if (is_closed < 0 || (is_closed == 0 && !done)) return NULL;
        Py_XDECREF(done);
    }
    Py_RETURN_NONE;
}

PyObject *tc_copied_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *object, *child;
    const char *name;
    if (!PyArg_ParseTuple(args, "OOO&:copied_start", &object, &child, tc_bytes_or_none, &name)) return NULL;
    if (strcmp(Py_TYPE(object)->tp_name, tc_record_spec.name) || strcmp(Py_TYPE(child)->tp_name, tc_child_spec.name))
        return PyErr_Format(PyExc_TypeError, "copied_start() needs a Record and a Child");
    RecordObject *record = (RecordObject *)object;
    if (atomic_load(&tc_counters.malloc_deaths))
        return tc_raise_named(
            "UnsupportedOperation",
            "a task that shared memory died inside malloc and keeps an arena of it locked: fork() takes "
            "the locks of all arenas and would hang. Restart this process; programs can still be started");
    if (!record_open(record) || PySys_Audit("os.fork", NULL) < 0) return NULL;

    tc_keep_hosts = 1;
    PyOS_BeforeFork();
    tc_keep_hosts = 0;
    pid_t pid = fork();
    if (pid == 0) {
        PyOS_AfterFork_Child();
        struct tc_spec spec = {.name = name, .report = &record->page->report};
        static const struct tc_step_row steps[] = {{TC_STEP_NAME, tc_step_name_task}, {TC_STEP_NONE, NULL}};
        if (tc_run_steps(&spec, steps)) _exit(255); /* the record says which step */
        await_creator(record);
        Py_RETURN_FALSE;
    }
    int err = errno;
    int pidfd = pid < 0 ? -1 : (int)TC_SYS(SYS_pidfd_open, pid, 0);
    if (pid > 0 && (pidfd >= 0 || pidfd == -ESRCH)) {
        atomic_store(&record->page->creator_ready, 1);
        tc_futex_wake(&record->page->creator_ready);
    }
    PyOS_AfterFork_Parent();
    if (pid < 0) return tc_raise_step(TC_STEP_FORK, err);
    /* ESRCH: reaped by somebody else already (SIGCHLD ignored, a foreign wait in a handler). */
    if (pidfd < 0 && pidfd != -ESRCH) {
        /* No descriptor left, say: a task without one could not be waited for safely. It is our unreaped child. */
        struct tc_status gone = {0};
        kill(pid, SIGKILL);
        while (tc_waitid(P_PID, pid, WEXITED | __WALL, &gone) == -EINTR) {
        }
        return tc_raise_step(TC_STEP_PIDFD, -pidfd);
    }
    tc_child_set(child, pid, pidfd < 0 ? -1 : pidfd);
    Py_RETURN_TRUE;
}
