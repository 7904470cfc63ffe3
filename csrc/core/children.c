/* The Python object for an ordinary child of this process, and the list of those that were not seen to end. */
#include "children.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <structmember.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bell.h"
#include "descriptor.h"
#include "error.h"
#include "shared.h"
#include "sys.h"

PyTypeObject *tc_child_type;

/* ---- those that run: each is held by a reference, so that a forgotten one is reaped too ---------------------------
 */

/* Those that somebody waits for perhaps, and those that nobody holds any more. */
static struct list {
    struct tc_child *first;
    int count;
    int starts; /* since it was last looked through */
} running, forgotten;
static int autokills; /* whether there has been a task that ends with its pidfd */

/* Ours, of which the child of a fork has a copy. One that is not started yet is this very child. */
int tc_child_is_copy(const struct tc_child *self) { return self->owner && self->generation != tc_generation; }

void tc_child_close_fd(const struct tc_child *self, int fd)
{
    tc_close_in(self->file_table, self->owner ? self->generation : tc_generation, fd);
}

static void link_child(struct tc_child *self, struct list *list)
{
    self->list = list;
    self->previous = NULL;
    self->next = list->first;
    if (list->first) list->first->previous = self;
    list->first = self;
    list->count++;
}

static void unlink_child(struct tc_child *self)
{
    struct list *list = self->list;
    if (!list) return;
    self->list = NULL;
    if (!tc_child_is_copy(self)) { /* else the list is another process's */
        list->count--;
        if (self->next) self->next->previous = self->previous;
        if (self->previous)
            self->previous->next = self->next;
        else
            list->first = self->next;
    }
    self->next = self->previous = NULL;
    Py_DECREF(self); /* not the last one: whoever got here has its own */
}

/* children_running() -> list */
PyObject *tc_children_running(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *list = PyList_New(0);
    struct list *both[] = {&running, &forgotten};
    for (int i = 0; i < 2; i++)
        for (struct tc_child *child = both[i]->first; list && child; child = child->next)
            if (PyList_Append(list, (PyObject *)child) < 0) Py_CLEAR(list);
    return list;
}

/* In the child of a fork: they are the parent's. Those that somebody holds are not touched, which would copy the pages
 * that they lie in; they are let go of when their holder abandons them. But a descriptor whose last close is its task's
 * end must be the parent's alone. */
PyObject *tc_children_forget(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct tc_child *child = autokills ? running.first : NULL;
    for (; child; child = child->next)
        if (child->flags & CLONE_PIDFD_AUTOKILL) tc_child_close(child);
    child = forgotten.first;
    running = forgotten = (struct list){0};
    for (struct tc_child *next; child; child = next) {
        next = child->next;
        Py_INCREF(child);
        unlink_child(child);
        Py_DECREF(child);
    }
    Py_RETURN_NONE;
}

/* ---- reaping ---------------------------------------------------------------------------------------------------- */

static int wait_for(const struct tc_child *self, int options, struct tc_status *status)
{
    if (self->by_pid) return tc_waitid(P_PID, self->pid, options | __WALL, status);
    return tc_waitid(P_PIDFD, self->pidfd, options | __WALL, status);
}

/* Takes the status if it is to be had now. With the interpreter lock held from the call to the store, two waiting
 * threads cannot both miss it. */
static int reap(struct tc_child *self)
{
    if (!self->status.source) {
        int err = self->sibling ? 0 : wait_for(self, WEXITED | WNOHANG, &self->status);
        if (self->sibling)
            tc_status_of_sibling(self->pid, self->pidfd, &self->status);
        else if (err == -ECHILD)
            tc_status_of_reaped(self->pidfd, &self->status);
    }
    if (!self->status.source) return 0;
    unlink_child(self);
    return 1;
}

/* One that ends with its pidfd is let go of: it leaves nothing to reap. */
static void forget(struct tc_child *self)
{
    Py_INCREF(self);
    unlink_child(self); /* gives up the list's reference */
    if (self->flags & CLONE_PIDFD_AUTOKILL) {
        tc_child_close(self);
        self->status.source = TC_STATUS_LOST;
        Py_DECREF(self);
    } else
        link_child(self, &forgotten);
}

/* At each start while a list is short, at every n-th while there are 8 n in it. */
static int is_due(struct list *list)
{
    if (++list->starts < list->count / 8) return 0;
    list->starts = 0;
    return 1;
}

/* So that forgotten tasks leave no zombies for long; those among them whose holder is gone and could not say so, since
 * a signal handler's exception ended its start or its __del__. The list is walked by its own links: what unlinks a
 * child runs no Python code while somebody else still holds it, and one that nobody holds has nothing to run. */
static void sweep(void)
{
    if (is_due(&running))
        for (struct tc_child *child = running.first, *next; child; child = next) {
            next = child->next;
            if (Py_REFCNT(child) == 1) forget(child);
        }
    if (!is_due(&forgotten)) return;
    for (struct tc_child *child = forgotten.first, *next; child; child = next) {
        next = child->next;
        Py_INCREF(child);
        reap(child);
        Py_DECREF(child);
    }
}

void tc_child_started(struct tc_child *self, pid_t pid, int pidfd, uint64_t flags)
{
    self->pid = pid;
    self->pidfd = pidfd;
    self->owner = getpid();
    self->generation = tc_generation;
    self->flags = flags;
    if (pidfd < 0 && !self->by_pid)
        self->status.source = TC_STATUS_LOST; /* gone before the creator could open a pidfd */
    if (flags & CLONE_PIDFD_AUTOKILL) autokills = 1;
    /* A task's own child, which the creator, whose memory this is, cannot wait for. */
    if (tc_current_task()) return;
    link_child((struct tc_child *)Py_NewRef(self), &running);
    sweep();
}

static int is_ours(struct tc_child *self)
{
    if (getpid() == self->owner && self->generation == tc_generation) return 1;
    PyErr_Format(PyExc_ChildProcessError, "task %d is a child of process %d, not of this one", (int)self->pid,
                 (int)self->owner);
    return 0;
}

/* 1 ended and reaped, 0 timeout, -1 exception */
static int wait_until(struct tc_child *self, struct tc_deadline *deadline)
{
    if (self->status.source) return reap(self);
    if (!is_ours(self)) return -1;
    /* Some event loops make descriptors that they watch so (libuv), and then waitid() does not wait: pidfd_open(2). */
    int nonblocking = 0;
    struct timespec pause = {0, 200000}; /* without a pidfd there is nothing to sleep on with a limit but the clock */
    for (;;) {
        if (reap(self)) return 1;
        struct tc_status looked = {0};
        struct timespec left;
        const struct timespec *limit = tc_deadline_left(deadline, &left);
        if (limit && !left.tv_sec && !left.tv_nsec) return 0;
        long err;
        Py_BEGIN_ALLOW_THREADS;
        if (limit && self->by_pid) {
            if (!limit->tv_sec && limit->tv_nsec < pause.tv_nsec) pause = *limit;
            err = TC_SYS(SYS_nanosleep, &pause, 0);
            if (pause.tv_nsec < 10000000) pause.tv_nsec *= 2;
        } else if (limit || nonblocking || self->sibling) {
            struct pollfd p = {self->pidfd, POLLIN, 0};
            err = TC_SYS(SYS_ppoll, &p, 1, limit, 0, 0);
        } else
            err = wait_for(self, WEXITED | WNOWAIT, &looked);
        Py_END_ALLOW_THREADS;
        if (err == -EINTR && PyErr_CheckSignals() < 0) return -1;
        nonblocking |= err == -EAGAIN;
        if (err < 0 && err != -EINTR && err != -ECHILD && err != -EAGAIN) {
            tc_raise((int)-err, limit || nonblocking || self->sibling ? "ppoll" : "waitid");
            return -1;
        }
    }
}

/* ---- the object ------------------------------------------------------------------------------------------------- */

static PyObject *child_wait(struct tc_child *self, PyObject *timeout)
{
    struct tc_deadline deadline;
    if (tc_deadline_from(timeout, &deadline) < 0) return NULL;
    int ended = wait_until(self, &deadline);
    return ended < 0 ? NULL : PyBool_FromLong(ended);
}

static PyObject *child_done(struct tc_child *self, PyObject *unused)
{
    (void)unused;
    struct tc_deadline now = {0};
    int ended = wait_until(self, &now);
    return ended < 0 ? NULL : PyBool_FromLong(ended);
}

static PyObject *child_raw_status(struct tc_child *self, PyObject *unused)
{
    (void)unused;
    return tc_status_tuple(&self->status);
}

/* With the interpreter lock, so that none of us reaps it meanwhile. What others have reaped is no child any more. */
static long signal_by_pid(const struct tc_child *self, int sig)
{
    struct tc_status looked = {0};
    int err = self->status.source ? -ECHILD : wait_for(self, WEXITED | WNOHANG | WNOWAIT, &looked);
    return err ? (err == -ECHILD ? -ESRCH : err) : TC_SYS(SYS_kill, self->pid, sig);
}

static PyObject *child_send_signal(struct tc_child *self, PyObject *number)
{
    long sig = PyLong_AsLong(number);
    if (sig == -1 && PyErr_Occurred()) return NULL;
    long err = self->by_pid      ? signal_by_pid(self, (int)sig)
               : self->pidfd < 0 ? -ESRCH
                                 : TC_SYS(SYS_pidfd_send_signal, self->pidfd, sig, 0, 0);
    if (err < 0) return tc_raise((int)-err, "pidfd_send_signal");
    Py_RETURN_NONE;
}

static PyObject *child_fileno(struct tc_child *self, PyObject *unused)
{
    (void)unused;
    if (self->pidfd >= 0) return PyLong_FromLong(self->pidfd);
    if (self->by_pid)
        return tc_raise_named(
            "UnsupportedOperation",
            "task %d has no pidfd: pidfd_open is filtered here (a container's seccomp profile); wait() "
            "and result() go by its pid",
            (int)self->pid);
    return PyErr_Format(PyExc_ValueError,
                        "task %d has no pidfd: somebody else reaped it before one could be opened, or it is closed",
                        (int)self->pid);
}

/* bell(): a descriptor that is readable once it has ended. Not the pidfd: a loop may watch that for somebody else. */
static PyObject *child_bell(struct tc_child *self, PyObject *unused)
{
    if (!is_ours(self)) return NULL;
    return self->pidfd < 0 ? child_fileno(self, unused) : tc_bell_for_pidfd(self->pidfd);
}

int tc_child_may_close(const struct tc_child *self) { return !self->owner || tc_may_close(self->generation); }

void tc_child_close(struct tc_child *self)
{
    if (self->pidfd >= 0 && tc_child_may_close(self)) tc_child_close_fd(self, self->pidfd);
    self->pidfd = -1;
}

/* abandon(): nobody will ask any more. One that runs is kept until it is reaped, or ended: see forget(). */
PyObject *tc_child_abandon(struct tc_child *self, PyObject *unused)
{
    (void)unused;
    if (!self->owner || tc_current_task()) Py_RETURN_NONE; /* in a task: it is no child of ours */
    if (self->owner == getpid() && self->generation == tc_generation) {
        if (!reap(self) && self->list == &running) forget(self);
        Py_RETURN_NONE;
    }
    tc_child_close(self); /* our copy of the descriptor, in the child of a fork */
    unlink_child(self);
    Py_RETURN_NONE;
}

void tc_child_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    struct tc_child *self = (struct tc_child *)object;
    tc_child_close(self);
    Py_CLEAR(self->cached);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *tc_child_new(PyTypeObject *type, int daemon)
{
    if (tc_private_files)
        return tc_raise_named("UnsupportedOperation",
                              "this thread has a file table of its own, in which the descriptor of a child would be no "
                              "other thread's: start it from another thread");
    tc_close_left();
    struct tc_child *self = (struct tc_child *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->pidfd = -1;
    self->file_table = tc_file_table();
    self->daemon = (char)daemon;
    self->exit_signal = SIGCHLD;
    self->cached = Py_NewRef(Py_None);
    return (PyObject *)self;
}

static PyMethodDef child_methods[] = {
    {"wait", (PyCFunction)child_wait, METH_O,
     "wait(timeout): True once it has ended and is reaped; False after timeout s"},
    {"wait_done", (PyCFunction)child_wait, METH_O, "the same: the outcome is there at the end"},
    {"done", (PyCFunction)child_done, METH_NOARGS, "wait(0)"},
    {"raw_status", (PyCFunction)child_raw_status, METH_NOARGS, "None, or (source, si_code, si_status, rusage)"},
    {"send_signal", (PyCFunction)child_send_signal, METH_O, "send a signal through the pidfd"},
    {"fileno", (PyCFunction)child_fileno, METH_NOARGS, "the pidfd; ValueError when there is none"},
    {"bell", (PyCFunction)child_bell, METH_NOARGS, "a Bell: readable once it has ended"},
    {"abandon", (PyCFunction)tc_child_abandon, METH_NOARGS, "nobody will ask for the outcome any more"},
    {0},
};
static PyMemberDef child_members[] = {
    {"pid", T_INT, offsetof(struct tc_child, pid), READONLY, "process id"},
    {"tid", T_INT, offsetof(struct tc_child, pid), READONLY, "the same"},
    {"owner", T_INT, offsetof(struct tc_child, owner), READONLY, "process whose child it is"},
    {"flags", T_ULONGLONG, offsetof(struct tc_child, flags), READONLY, "flags that the kernel was given"},
    {"replaced", T_ULONGLONG, offsetof(struct tc_child, replaced), READONLY, "flags that were done another way"},
    {"exit_signal", T_INT, offsetof(struct tc_child, exit_signal), READONLY, "signal to the creator at its end, or 0"},
    {"daemon", T_BOOL, offsetof(struct tc_child, daemon), READONLY, "ended at the interpreter's exit"},
    {"cached", T_OBJECT, offsetof(struct tc_child, cached), 0, "the ExitStatus, or None"},
    {0},
};
static PyType_Slot child_slots[] = {
    {Py_tp_dealloc, tc_child_dealloc},
    {Py_tp_methods, child_methods},
    {Py_tp_members, child_members},
    {Py_tp_doc, "A child process of the caller."},
    {0, NULL},
};
static PyType_Spec child_spec = {"taskclone._core.Child", sizeof(struct tc_child), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                 child_slots};

int tc_children_ready(PyObject *module)
{
    tc_child_type = (PyTypeObject *)PyType_FromSpec(&child_spec);
    return tc_child_type ? PyModule_AddType(module, tc_child_type) : -1;
}
