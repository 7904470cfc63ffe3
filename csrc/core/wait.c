#include "wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <structmember.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "sys.h"

/* ---- status ----------------------------------------------------------------------------------------------------- */

int tc_waitid(int idtype, int id, int options, struct tc_status *status)
{
    siginfo_t info;
    info.si_pid = 0; /* stays 0 with WNOHANG and nothing to tell */
    long err = TC_SYS(SYS_waitid, idtype, id, &info, options, &status->usage);
    if (err) return (int)err;
    if (info.si_pid) {
        status->code = info.si_code;
        status->value = info.si_status;
        status->source = TC_STATUS_WAIT;
    }
    return 0;
}

/* First published form of struct pidfd_info (linux/pidfd.h): later ones are longer, and no field of theirs is read. */
struct tc_pidfd_info {
    uint64_t mask, cgroupid;
    uint32_t ids[11];
    int32_t exit_code;
};
#define TC_PIDFD_GET_INFO _IOWR(0xFF, 11, struct tc_pidfd_info)
#define TC_PIDFD_INFO_EXIT 8ull

void tc_status_of_reaped(int pidfd, struct tc_status *status)
{
    struct tc_pidfd_info info = {.mask = TC_PIDFD_INFO_EXIT};
    status->source = TC_STATUS_LOST;
    /* Absent: ENOTTY before 6.13, EINVAL on some. */
    if (pidfd < 0 || TC_SYS(SYS_ioctl, pidfd, TC_PIDFD_GET_INFO, &info) < 0 || !(info.mask & TC_PIDFD_INFO_EXIT))
        return;
    int wait_status = info.exit_code;
    status->source = TC_STATUS_PIDFD;
    status->code = WIFEXITED(wait_status) ? CLD_EXITED : WCOREDUMP(wait_status) ? CLD_DUMPED : CLD_KILLED;
    status->value = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status);
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

PyObject *tc_status_tuple(const struct tc_status *s)
{
    if (s->source == TC_STATUS_NONE) Py_RETURN_NONE;
    const struct rusage *u = &s->usage;
    PyObject *usage = s->source != TC_STATUS_WAIT
                          ? Py_NewRef(Py_None)
                          : Py_BuildValue("(ddllllllllllllll)", seconds_of(u->ru_utime), seconds_of(u->ru_stime),
                                          u->ru_maxrss, u->ru_ixrss, u->ru_idrss, u->ru_isrss, u->ru_minflt,
                                          u->ru_majflt, u->ru_nswap, u->ru_inblock, u->ru_oublock, u->ru_msgsnd,
                                          u->ru_msgrcv, u->ru_nsignals, u->ru_nvcsw, u->ru_nivcsw);
    return usage ? Py_BuildValue("(iiiN)", (int)s->source, s->code, s->value, usage) : NULL;
}

/* ---- deadlines -------------------------------------------------------------------------------------------------- */

int tc_deadline_from(PyObject *seconds, struct tc_deadline *deadline)
{
    deadline->forever = seconds == Py_None;
    if (deadline->forever) return 0;
    double value = PyFloat_AsDouble(seconds);
    if (value == -1 && PyErr_Occurred()) return -1;
    if (!(value >= 0)) {
        PyErr_Format(PyExc_ValueError, "timeout must be None or at least 0 seconds, not %R", seconds);
        return -1;
    }
    if (value > 1e9) { /* 30 years: for ever, and no overflow below */
        deadline->forever = 1;
        return 0;
    }
    clock_gettime(CLOCK_MONOTONIC, &deadline->end);
    deadline->end.tv_sec += (time_t)value;
    deadline->end.tv_nsec += (long)((value - (double)(time_t)value) * 1e9);
    if (deadline->end.tv_nsec >= 1000000000) deadline->end.tv_sec++, deadline->end.tv_nsec -= 1000000000;
    return 0;
}

const struct timespec *tc_deadline_left(const struct tc_deadline *deadline, struct timespec *left)
{
    if (deadline->forever) return NULL;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    left->tv_sec = deadline->end.tv_sec - now.tv_sec;
    left->tv_nsec = deadline->end.tv_nsec - now.tv_nsec;
    if (left->tv_nsec < 0) left->tv_sec--, left->tv_nsec += 1000000000;
    if (left->tv_sec < 0) left->tv_sec = left->tv_nsec = 0;
    return left;
}

/* ---- Child: a child process of the caller that nobody else waits for -------------------------------------------- */

typedef struct {
    PyObject_HEAD
    int pid, pidfd;
    pid_t owner; /* whose child it is */
    struct tc_status status;
} ChildObject;

void tc_child_set(PyObject *object, pid_t pid, int pidfd)
{
    ChildObject *self = (ChildObject *)object;
    self->pid = pid;
    self->pidfd = pidfd;
    self->owner = getpid();
    if (pidfd < 0) self->status.source = TC_STATUS_LOST; /* gone before the creator could open a pidfd */
}

static PyObject *child_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int pid = 0, pidfd = -1;
    static char *names[] = {"pid", "pidfd", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|ii:Child", names, &pid, &pidfd)) return NULL;
    ChildObject *self = (ChildObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->pidfd = -1;
    if (pid) tc_child_set((PyObject *)self, pid, pidfd);
    return (PyObject *)self;
}

/* Takes the status if it is to be had now. With the interpreter lock held from the call to the store, two waiting
 * threads cannot both miss it. */
static int child_reap(ChildObject *self)
{
    if (self->status.source) return 1;
    int err = tc_waitid(P_PIDFD, self->pidfd, WEXITED | WNOHANG | __WALL, &self->status);
    if (err == -ECHILD) tc_status_of_reaped(self->pidfd, &self->status);
    return self->status.source != TC_STATUS_NONE;
}

static PyObject *child_wait(ChildObject *self, PyObject *timeout)
{
    struct tc_deadline deadline;
    if (tc_deadline_from(timeout, &deadline) < 0) return NULL;
    if (self->status.source) Py_RETURN_TRUE;
    if (getpid() != self->owner)
        return PyErr_Format(PyExc_ChildProcessError, "task %d is a child of process %d, not of this one", self->pid,
                            (int)self->owner);
    for (;;) {
        if (child_reap(self)) Py_RETURN_TRUE;
        struct tc_status looked = {0};
        struct timespec left;
        const struct timespec *limit = tc_deadline_left(&deadline, &left);
        if (limit && !left.tv_sec && !left.tv_nsec) Py_RETURN_FALSE;
        long err;
        Py_BEGIN_ALLOW_THREADS;
        if (limit) {
            struct pollfd p = {self->pidfd, POLLIN, 0};
            err = TC_SYS(SYS_ppoll, &p, 1, &left, 0, 0);
        } else
            err = tc_waitid(P_PIDFD, self->pidfd, WEXITED | WNOWAIT | __WALL, &looked);
        Py_END_ALLOW_THREADS;
        if (err == -EINTR && PyErr_CheckSignals() < 0) return NULL;
        if (err < 0 && err != -EINTR && err != -ECHILD) return tc_raise((int)-err, limit ? "ppoll" : "waitid");
    }
}

static PyObject *child_status(ChildObject *self, PyObject *unused)
{
    (void)unused;
    return tc_status_tuple(&self->status);
}

static PyObject *child_send_signal(ChildObject *self, PyObject *number)
{
    long sig = PyLong_AsLong(number);
    if (sig == -1 && PyErr_Occurred()) return NULL;
    long err = self->pidfd < 0 ? -ESRCH : TC_SYS(SYS_pidfd_send_signal, self->pidfd, sig, 0, 0);
    if (err < 0) return tc_raise((int)-err, "pidfd_send_signal");
    Py_RETURN_NONE;
}

static PyObject *child_close(ChildObject *self, PyObject *unused)
{
    (void)unused;
    if (self->pidfd >= 0) close(self->pidfd);
    self->pidfd = -1;
    Py_RETURN_NONE;
}

static void child_dealloc(ChildObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->pidfd >= 0) close(self->pidfd);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef child_methods[] = {
    {"wait", (PyCFunction)child_wait, METH_O,
     "wait(timeout): True once it has ended and is reaped; False after timeout s"},
    {"status", (PyCFunction)child_status, METH_NOARGS, "None, or (source, si_code, si_status, rusage)"},
    {"send_signal", (PyCFunction)child_send_signal, METH_O, "send a signal through the pidfd"},
    {"close", (PyCFunction)child_close, METH_NOARGS, "close the pidfd"},
    {0},
};
static PyMemberDef child_members[] = {
    {"pid", T_INT, offsetof(ChildObject, pid), READONLY, "process id"},
    {"owner", T_INT, offsetof(ChildObject, owner), READONLY, "process whose child it is"},
    {"pidfd", T_INT, offsetof(ChildObject, pidfd), READONLY, "pidfd, or -1"},
    {0},
};
static PyType_Slot child_slots[] = {
    {Py_tp_new, child_new},
    {Py_tp_dealloc, child_dealloc},
    {Py_tp_methods, child_methods},
    {Py_tp_members, child_members},
    {Py_tp_doc, "A child process of the caller."},
    {0, NULL},
};
PyType_Spec tc_child_spec = {"taskclone._core.Child", sizeof(ChildObject), 0, Py_TPFLAGS_DEFAULT, child_slots};
