/* Bells: descriptors that become readable when the outcome of a task is there, for event loops.
 *
 * Each await has a bell of its own, since a loop watches a descriptor for one of its awaits only. Those of a task that
 * shares memory or is a thread hang on its record, and are rung by whoever says ENDED; where the outcome comes long
 * before the end, by the host at the end of the body. Never by a task that shares memory: it may have another file
 * table by then. But one may await a sibling, and be killed at any instruction: so there is no lock, and the hooks that
 * bells hang on are the record's and go with that. */
#include "bell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "sys.h"

typedef struct {
    PyObject_HEAD
    int fd;
    struct tc_task *task; /* on whose record it hangs, or NULL */
    struct tc_hook *hook;
    uint64_t file_table; /* in which the descriptor is */
    unsigned generation;
} BellObject;

static PyTypeObject *bell_type;

/* 0 or -1: no memory. */
static int put_up(BellObject *self, struct tc_task *task)
{
    struct tc_hook *hook = atomic_load(&task->bells);
    for (int none = -1; hook && !atomic_compare_exchange_strong(&hook->fd, &none, self->fd); none = -1)
        hook = hook->next;
    if (!hook) {
        if (!(hook = malloc(sizeof *hook))) return PyErr_NoMemory(), -1;
        atomic_store(&hook->fd, self->fd);
        hook->next = atomic_load(&task->bells);
        while (!atomic_compare_exchange_weak(&task->bells, &hook->next, hook)) {
        }
    }
    atomic_fetch_add(&task->references, 1);
    self->task = task;
    self->hook = hook;
    return 0;
}

/* False: somebody may ring it yet. */
static int take_down(BellObject *self)
{
    struct tc_task *task = self->task;
    int quiet = 1;
    if (!task) return quiet;
    self->task = NULL;
    if (self->generation == tc_generation) {
        atomic_store(&self->hook->fd, -1);
        /* Whoever has read the number writes to it in a moment; or never, being a task that was killed there. */
        static const struct timespec pause = {0, 1000000};
        for (int i = 0; !(quiet = !atomic_load(&task->ringing)) && i < 100; i++)
            i < 50 ? TC_SYS(SYS_sched_yield) : TC_SYS(SYS_nanosleep, &pause, 0);
    }
    tc_task_release(task);
    return quiet;
}

static BellObject *new_bell(int fd)
{
    BellObject *self = PyObject_New(BellObject, bell_type);
    if (!self) {
        close(fd);
        return NULL;
    }
    self->fd = fd;
    self->task = NULL;
    self->hook = NULL;
    self->file_table = tc_file_table();
    self->generation = tc_generation;
    return self;
}

static PyObject *refuse(void)
{
    return tc_raise_named("UnsupportedOperation",
                          "a task or thread with a file table of its own cannot await the tasks of its creator: their "
                          "descriptors are in the creator's table");
}

PyObject *tc_bell_for_task(struct tc_task *task)
{
    if (tc_file_table()) return refuse();
    int fd = tc_not_a_stream((int)TC_SYS(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (fd < 0) return tc_raise(-fd, "eventfd2");
    BellObject *self = new_bell(fd);
    if (!self) return NULL;
    if (put_up(self, task) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    /* Whoever publishes an outcome looks for bells afterwards: one of us two sees the other. */
    if (atomic_load(&task->state) >= TC_DONE) tc_ring(fd);
    return (PyObject *)self;
}

PyObject *tc_bell_for_pidfd(int pidfd)
{
    if (tc_private_files) return refuse(); /* the pidfd is in the process's table */
    int fd = fcntl(pidfd, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? tc_raise(errno, "fcntl") : (PyObject *)new_bell(fd);
}

/* ---- the object ------------------------------------------------------------------------------------------------- */

static PyObject *bell_fileno(BellObject *self, PyObject *unused)
{
    (void)unused;
    if (self->fd >= 0) return PyLong_FromLong(self->fd);
    return PyErr_Format(PyExc_ValueError, "the bell is closed");
}

static PyObject *bell_close(BellObject *self, PyObject *unused)
{
    (void)unused;
    int quiet = take_down(self); /* nobody shall ring what may be another file's number: rather is one lost */
    /* The collector may come here in a task or thread in whose file table it is another file. */
    if (quiet && self->fd >= 0 && self->file_table == tc_file_table() && tc_may_close(self->generation))
        close(self->fd);
    self->fd = -1;
    Py_RETURN_NONE;
}

static void bell_dealloc(BellObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(bell_close(self, NULL));
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef bell_methods[] = {
    {"fileno", (PyCFunction)bell_fileno, METH_NOARGS, "readable once the outcome is there"},
    {"close", (PyCFunction)bell_close, METH_NOARGS, "take it down"},
    {0},
};
static PyType_Slot bell_slots[] = {
    {Py_tp_dealloc, bell_dealloc},
    {Py_tp_methods, bell_methods},
    {Py_tp_doc, "A descriptor that tells an event loop of a task's outcome."},
    {0, NULL},
};
static PyType_Spec bell_spec = {"taskclone._core.Bell", sizeof(BellObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, bell_slots};

int tc_bell_ready(PyObject *module)
{
    bell_type = (PyTypeObject *)PyType_FromSpec(&bell_spec);
    return bell_type ? PyModule_AddType(module, bell_type) : -1;
}
