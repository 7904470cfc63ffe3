/* Bells: descriptors that become readable when the outcome of a task is there, for event loops.
 *
 * Each await has a bell of its own, since a loop watches a descriptor for one of its awaits only. Those of a task that
 * shares memory or is a thread hang on its record, and are rung by whoever says ENDED; where the outcome comes long
 * before the end, by the host at the end of the body. Never by a task that shares memory: it may have another file
 * table by then, and may be killed at any instruction, with the list's lock held. */
#include "bell.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "sys.h"

typedef struct {
    PyObject_HEAD
    struct tc_bell bell;
    struct tc_task *task; /* in whose list it is, or NULL */
    uint64_t file_table;  /* in which the descriptor is */
    unsigned generation;
} BellObject;

static PyTypeObject *bell_type;

static void put_up(BellObject *self, struct tc_task *task)
{
    atomic_fetch_add(&task->references, 1);
    self->task = task;
    tc_spin_lock(&task->bells_lock);
    self->bell.next = atomic_load(&task->bells);
    if (self->bell.next) self->bell.next->previous = &self->bell;
    atomic_store(&task->bells, &self->bell);
    tc_spin_unlock(&task->bells_lock);
}

static void take_down(BellObject *self)
{
    struct tc_task *task = self->task;
    if (!task) return;
    self->task = NULL;
    if (self->generation == tc_generation) { /* else a thread of the parent may have held the lock at the fork */
        tc_spin_lock(&task->bells_lock);
        if (self->bell.next) self->bell.next->previous = self->bell.previous;
        if (self->bell.previous)
            self->bell.previous->next = self->bell.next;
        else
            atomic_store(&task->bells, self->bell.next);
        tc_spin_unlock(&task->bells_lock);
    }
    tc_task_release(task);
}

static BellObject *new_bell(int fd)
{
    BellObject *self = PyObject_New(BellObject, bell_type);
    if (!self) {
        close(fd);
        return NULL;
    }
    self->bell = (struct tc_bell){.fd = fd};
    self->task = NULL;
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
    int fd = (int)TC_SYS(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return tc_raise(-fd, "eventfd2");
    BellObject *self = new_bell(fd);
    if (!self) return NULL;
    put_up(self, task);
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
    if (self->bell.fd >= 0) return PyLong_FromLong(self->bell.fd);
    return PyErr_Format(PyExc_ValueError, "the bell is closed");
}

static PyObject *bell_close(BellObject *self, PyObject *unused)
{
    (void)unused;
    take_down(self); /* before the close: nobody shall ring what may be another file's number by then */
    /* The collector may come here in a task or thread in whose file table it is another file. */
    if (self->bell.fd >= 0 && self->file_table == tc_file_table() && tc_may_close(self->generation))
        close(self->bell.fd);
    self->bell.fd = -1;
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
