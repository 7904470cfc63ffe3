/* Copied memory: libc's fork between the interpreter's own steps, and a body that leaves its outcome in a page. */
#include "route_copied.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "copied.h"
#include "error.h"
#include "interp.h"
#include "shared.h"
#include "spec.h"
#include "sys.h"

static const uint64_t SIGTERM_BIT = 1ull << (SIGTERM - 1);

static struct hooks {
    PyObject *signal, *arguments; /* signal(*arguments): SIGTERM rises as an exception in a task */
    PyObject *finish;             /* finish(self, value, exception): leaves any other outcome; does not return */
} hooks;

/* copied_hooks(signal, arguments, finish, nothing) */
PyObject *tc_copied_hooks(PyObject *module, PyObject *args)
{
    (void)module;
    struct hooks now;
    PyObject *nothing;
    if (!PyArg_ParseTuple(args, "OO!OO:copied_hooks", &now.signal, &PyTuple_Type, &now.arguments, &now.finish,
                          &nothing))
        return NULL;
    Py_INCREF(now.signal), Py_INCREF(now.arguments), Py_INCREF(now.finish);
    hooks = now;
    tc_nothing = Py_NewRef(nothing);
    Py_RETURN_NONE;
}

/* ---- in the task ------------------------------------------------------------------------------------------------ */

static int flush_stream(const char *name, PyObject *flush, PyObject *closed)
{
    PyObject *stream = PySys_GetObject(name); /* borrowed; None where there is none */
    if (!stream || stream == Py_None) return 0;
    Py_INCREF(stream);
    PyObject *done = PyObject_CallMethodNoArgs(stream, flush);
    if (!done && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyObject *error = tc_take_exception(), *is_closed = PyObject_GetAttr(stream, closed);
        if (is_closed == Py_True)
            done = Py_NewRef(Py_None);
        else if (is_closed)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_XDECREF(is_closed);
        Py_DECREF(error);
    }
    Py_DECREF(stream);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* sys.stdout and sys.stderr, unless they are closed. */
PyObject *tc_flush_streams(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    static PyObject *flush, *closed;
    if (!flush) flush = PyUnicode_InternFromString("flush");
    if (!closed) closed = PyUnicode_InternFromString("closed");
    if (!flush || !closed || flush_stream("stdout", flush, closed) < 0 || flush_stream("stderr", flush, closed) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* In the task, before its body: a status that is taken before the creator has a pidfd is lost to it, and where it
 * cannot have one the body must not have run. A look every 100 ms: the creator may have died. */
static void await_creator(struct page *page, pid_t creator)
{
    struct timespec look = {0, 100000000};
    while (!atomic_load(&page->creator_ready) && getppid() == creator) tc_futex_wait(&page->creator_ready, 0, &look);
}

/* The steps of a setup, and what of it is Python's: os.environ, and signal's own table of handlers. 0 or -errno. */
static int set_up(struct page *page, const struct tc_spec *spec, PyObject *prepare)
{
    int err = tc_run_steps(spec, tc_copied_steps);
    if (!err && prepare != Py_None && !PyObject_CallNoArgs(prepare)) {
        err = PyErr_ExceptionMatches(PyExc_MemoryError) ? -ENOMEM : -EINVAL;
        PyErr_Print(); /* the record has room for a number only */
        tc_report_failure(&page->report, TC_STEP_ENVIRONMENT, -err);
    }
    atomic_store(&page->set_up, 1);
    tc_futex_wake(&page->set_up);
    return err;
}

/* From the fork to the end. In C for the body that returns None: a copied task pays for each page that it writes to,
 * reference counts are writes, and Python functions are spread over many pages. */
static _Noreturn void run_copied(struct copied *self, const struct tc_spec *spec, PyObject *prepare, PyObject *fn,
                                 PyObject *args, PyObject *kwargs)
{
    int failed = spec->awaited ? set_up(self->page, spec, prepare) : 0;
    await_creator(self->page, spec->creator);
    if (failed) _exit(255); /* the record says which step */
    int own_sigterm = ((spec->ignored | spec->defaulted) & SIGTERM_BIT) != 0;
    PyObject *set = own_sigterm ? Py_NewRef(Py_None) : PyObject_Call(hooks.signal, hooks.arguments, NULL);
    PyObject *value = set ? PyObject_Call(fn, args, kwargs) : NULL;
    if (value == Py_None && tc_flush_streams(NULL, NULL)) {
        self->page->kind = TC_KIND_NONE;
        atomic_store(&self->page->done, 1);
        _exit(0);
    }
    PyObject *error = PyErr_Occurred() ? tc_take_exception() : Py_NewRef(Py_None);
    PyObject *never =
        PyObject_CallFunctionObjArgs(hooks.finish, self, value && error == Py_None ? value : Py_None, error, NULL);
    if (!never) PyErr_Print();
    _exit(255);
}

/* ---- in the creator --------------------------------------------------------------------------------------------- */

/* Until the task has taken its steps, or has died on the way. */
static void await_steps(struct page *page, pid_t pid)
{
    struct timespec look = {0, 100000000};
    while (!atomic_load(&page->set_up)) {
        struct tc_status ended = {0};
        tc_futex_wait(&page->set_up, 0, &look);
        if (tc_waitid(P_PID, pid, WEXITED | WNOHANG | WNOWAIT | __WALL, &ended) == -ECHILD || ended.source) return;
    }
}

static void reap(pid_t pid)
{
    struct tc_status gone = {0};
    while (tc_waitid(P_PID, pid, WEXITED | __WALL, &gone) == -EINTR) {
    }
}

/* 0, or -1 with an exception: there is no task. */
static int fork_into(struct copied *self, const struct tc_spec *spec, PyObject *prepare, PyObject *fn, PyObject *args,
                     PyObject *kwargs)
{
    tc_keep_hosts = 1;
    PyOS_BeforeFork();
    tc_keep_hosts = 0;
    pid_t pid = fork();
    if (pid == 0) {
        PyOS_AfterFork_Child();
        run_copied(self, spec, prepare, fn, args, kwargs);
    }
    int err = errno;
    int pidfd = pid < 0 ? -1 : (int)TC_SYS(SYS_pidfd_open, pid, 0);
    self->child.by_pid = (char)tc_pidfd_filtered(pidfd);
    if (pid > 0 && (pidfd >= 0 || pidfd == -ESRCH || self->child.by_pid)) {
        atomic_store(&self->page->creator_ready, 1);
        tc_futex_wake(&self->page->creator_ready);
    }
    PyOS_AfterFork_Parent();
    if (pid < 0) return tc_raise_step(TC_STEP_FORK, err), -1;
    /* ESRCH: reaped by somebody else already (SIGCHLD ignored, a foreign wait in a handler). */
    if (pidfd < 0 && pidfd != -ESRCH && !self->child.by_pid) {
        /* No descriptor left, say: a task without one could not be waited for safely. It is our unreaped child. */
        kill(pid, SIGKILL);
        reap(pid);
        return tc_raise_step(TC_STEP_PIDFD, -pidfd), -1;
    }
    if (spec->awaited) {
        Py_BEGIN_ALLOW_THREADS;
        await_steps(self->page, pid);
        Py_END_ALLOW_THREADS;
        enum tc_step step = tc_report_failed(&self->page->report, &err);
        if (step) {
            reap(pid);
            if (pidfd >= 0) close(pidfd);
            return tc_raise_step(step, err), -1;
        }
    }
    tc_copied_keep(self);
    /* What glibc's fork passes to clone, besides SIGCHLD. */
    tc_child_started(&self->child, pid, pidfd < 0 ? -1 : pidfd, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID);
    return 0;
}

PyObject *tc_copied_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *type, *fn, *fn_args, *kwargs, *setup = Py_None, *prepare = Py_None;
    struct tc_spec spec = {.creator = getpid(), .creator_pidfd = -1};
    int daemon;
    if (!PyArg_ParseTuple(args, "O!O&pOO!O|OO:copied_start", &PyType_Type, &type, tc_bytes_or_none, &spec.name, &daemon,
                          &fn, &PyTuple_Type, &fn_args, &kwargs, &setup, &prepare) ||
        tc_setup_from(setup, &spec) < 0)
        return NULL;
    if (spec.name) spec.awaited = 1;
    /* The list sets a mask in any case: here it is the one that the task has. */
    if (spec.awaited && !spec.own_sigmask)
        TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, 0, &spec.sigmask, sizeof spec.sigmask);
    if (!PyType_IsSubtype((PyTypeObject *)type, tc_copied_type) || !hooks.finish)
        return PyErr_Format(PyExc_TypeError, "copied_start() needs a Copied and its hooks");
    if (atomic_load(&tc_counters.malloc_deaths))
        return tc_raise_named(
            "UnsupportedOperation",
            "a task that shared memory died inside malloc and keeps an arena of it locked: fork() takes "
            "the locks of all arenas and would hang. Restart this process; programs can still be started");
    if (tc_sub_interpreters())
        return tc_raise_named(
            "UnsupportedOperation",
            "a sub-interpreter is alive: Python's own steps after a fork hang or crash the child then "
            "(os.fork does, too); end it first, or use flags=SHARED, flags=THREAD or a program");
    if (!tc_flush_streams(NULL, NULL) || PySys_Audit("os.fork", NULL) < 0) return NULL;
    struct copied *self = tc_copied_new((PyTypeObject *)type, daemon);
    if (self) {
        spec.report = &self->page->report;
        spec.kept_fd = self->fd;
    }
    if (self && fork_into(self, &spec, prepare, fn, fn_args, kwargs == Py_None ? NULL : kwargs) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}
