#include "copies.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "error.h"
#include "fallback.h"
#include "forkhooks.h"
#include "interp.h"
#include "shared.h"
#include "sys.h"

static const struct timespec look = {0, 100000000}; /* now and then: the other side may have died */

/* ---- in the copy ------------------------------------------------------------------------------------------------ */

/* Before anything of the caller's runs: a status that is taken before the creator has a pidfd is lost to it, and where
 * it cannot have one nothing must have run. */
static void await_creator(struct tc_handshake *start, const struct tc_spec *spec)
{
    const int enough = 100; /* looks, where the creator is in an outer PID namespace: whether it lives cannot be seen */
    for (int looks = 0; !atomic_load(&start->creator_ready) && !tc_creator_gone(spec); looks++) {
        if (looks == enough && spec->creator_pidfd < 0 && !getppid()) break;
        tc_futex_wait(&start->creator_ready, 0, &look);
    }
}

/* The steps of a setup, and what of it is Python's: os.environ, and signal's own table of handlers. 0 or -errno. */
static int set_up(const struct tc_copy *copy)
{
    int err = tc_run_steps(copy->spec, tc_copied_steps);
    if (!err && copy->prepare != Py_None && !PyObject_CallNoArgs(copy->prepare)) {
        err = PyErr_ExceptionMatches(PyExc_MemoryError) ? -ENOMEM : -EINVAL;
        PyErr_Print(); /* the record has room for a number only */
        tc_report_failure(&copy->start->report, TC_STEP_ENVIRONMENT, -err);
    }
    return err;
}

static void begin(struct tc_copy *copy)
{
    struct tc_spec *spec = copy->spec;
    struct tc_handshake *start = copy->start;
    uint64_t mask = spec->sigmask;
    if (copy->form != TC_BARE) await_creator(start, spec);
    spec->sigmask |= copy->held;
    int failed = spec->awaited ? set_up(copy) : 0;
    if (spec->close_fds) tc_closed_generation = tc_generation;
    if (!failed && copy->handle) copy->handle(copy);
    if (copy->held) TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    if (spec->awaited) {
        atomic_store(&start->set_up, 1);
        tc_futex_wake(&start->set_up);
    }
    if (failed) _exit(255); /* the record says which step */
    if (spec->creator_pidfd >= 0 && !(spec->flags & CLONE_FILES) && !spec->close_fds) close(spec->creator_pidfd);
}

/* ---- in the creator --------------------------------------------------------------------------------------------- */

static void reap(pid_t pid)
{
    struct tc_status gone = {0};
    while (tc_waitid(P_PID, pid, WEXITED | __WALL, &gone) == -EINTR) {
    }
}

/* Whether a child of ours is there no more, or is a zombie. */
static int has_ended(pid_t pid)
{
    struct tc_status ended = {0};
    return tc_waitid(P_PID, pid, WEXITED | WNOHANG | WNOWAIT | __WALL, &ended) == -ECHILD || ended.source;
}

/* Where there can be no pidfd it could not be waited for safely, and its body does not run. */
static void let_go(struct tc_copy *copy, pid_t pid)
{
    int pidfd = (int)TC_SYS(SYS_pidfd_open, pid, 0);
    copy->pid = pid;
    copy->pidfd = pidfd < 0 ? -1 : pidfd;
    copy->by_pid = tc_pidfd_filtered(pidfd);
    /* ESRCH: reaped by somebody else already (SIGCHLD ignored, a foreign wait in a handler). */
    if (pidfd < 0 && pidfd != -ESRCH && !copy->by_pid) {
        tc_report_failure(&copy->start->report, TC_STEP_PIDFD, -pidfd);
        kill(pid, SIGKILL); /* our unreaped child, which waits for us */
        return;
    }
    atomic_store(&copy->start->creator_ready, 1);
    tc_futex_wake(&copy->start->creator_ready);
}

/* The copy itself: it may be the creator's sibling, which is no child to wait for. */
static int copy_has_ended(const struct tc_copy *copy)
{
    if (copy->form != TC_BARE || !(copy->spec->flags & CLONE_PARENT)) return has_ended(copy->pid);
    struct pollfd ended = {copy->pidfd, POLLIN, 0};
    struct timespec now = {0, 0};
    return TC_SYS(SYS_ppoll, &ended, 1, &now, 0, 0) != 0;
}

static void before_fork(void)
{
    tc_keep_hosts = 1;
    PyOS_BeforeFork();
    tc_keep_hosts = 0;
}

/* No exception yet: 1 in the copy, 0 in the creator; a failure stands in the record, and `pid` is what to reap. */
static int by_fork(struct tc_copy *copy)
{
    before_fork();
    int err = tc_leave_out(copy->left_out);
    pid_t pid = err ? -1 : fork();
    if (pid == 0) {
        PyOS_AfterFork_Child();
        return 1;
    }
    if (err)
        tc_report_failure(&copy->start->report, TC_STEP_LEAVE_OUT, -err);
    else if (pid < 0)
        tc_report_failure(&copy->start->report, TC_STEP_FORK, errno);
    else
        let_go(copy, pid);
    tc_put_back(copy->left_out);
    PyOS_AfterFork_Parent();
    copy->flags = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID; /* what glibc's fork passes, besides SIGCHLD */
    return 0;
}

/* 0; -1 with an exception of a signal handler's: the middle may never come through the hooks that others have set for
 * forks. */
static int await_relay(struct tc_copy *copy, pid_t middle)
{
    struct tc_handshake *start = copy->start;
    int ended = 0, interrupted = 0;
    /* Once it has ended the word has its last value. */
    while (!atomic_load(&start->relayed) && !ended && !interrupted) {
        Py_BEGIN_ALLOW_THREADS;
        tc_futex_wait(&start->relayed, 0, &look);
        ended = !atomic_load(&start->relayed) && has_ended(middle);
        Py_END_ALLOW_THREADS;
        interrupted = PyErr_CheckSignals() < 0;
    }
    Py_BEGIN_ALLOW_THREADS;
    if (interrupted && !has_ended(middle)) kill(middle, SIGKILL); /* our unreaped child */
    if (interrupted) reap(middle);                                /* and the word has its last value */
    pid_t pid = (pid_t)atomic_load(&start->relayed);
    if (pid > 0 && interrupted)
        kill(pid, SIGKILL), reap(pid); /* it waits for us, and nobody else knows it */
    else if (pid > 0)
        let_go(copy, pid);
    else if (!pid)
        tc_report_failure(&start->report, TC_STEP_RELAY, ECHILD);
    if (!interrupted) reap(middle); /* with VFORK it sleeps in the kernel until the new task is done with its memory */
    Py_END_ALLOW_THREADS;
    return interrupted ? -1 : 0;
}

/* After unshare or setns the task in the middle would be in another PID namespace, perhaps as its init, with which all
 * further children of the creator would die. (Without /proc the middle finds out for itself.) */
static int children_go_elsewhere(void)
{
    char own[64], theirs[64];
    ssize_t n = readlink("/proc/thread-self/ns/pid", own, sizeof own);
    if (n < 0) return 0;
    /* One that has no init yet has no name either. */
    return readlink("/proc/thread-self/ns/pid_for_children", theirs, sizeof theirs) != n ||
           memcmp(own, theirs, (size_t)n) != 0;
}

static int by_relay(struct tc_copy *copy)
{
    if (children_go_elsewhere()) return tc_report_failure(&copy->start->report, TC_STEP_RELAY, ESRCH), 0;
    copy->start->flags = copy->start->emulated = 0;
    before_fork();
    int err = tc_leave_out(copy->left_out);
    pid_t middle = err ? -1 : fork();
    if (middle == 0) {
        TC_SYS(SYS_rt_sigprocmask, SIG_BLOCK, &copy->held, 0, sizeof copy->held);
        tc_relay(copy->spec, copy->start);
        PyOS_AfterFork_Child();
        return 1;
    }
    if (err)
        tc_report_failure(&copy->start->report, TC_STEP_LEAVE_OUT, -err);
    else if (middle < 0)
        tc_report_failure(&copy->start->report, TC_STEP_FORK, errno);
    tc_put_back(copy->left_out);
    PyOS_AfterFork_Parent();
    copy->flags = copy->spec->flags | CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
    if (middle < 0) return 0;
    if (await_relay(copy, middle) < 0) return -1;
    if (copy->start->flags) copy->flags = copy->start->flags;
    copy->replaced |= copy->start->emulated;
    return 0;
}

/* With CLONE_VFORK the creator sleeps in here, and has the interpreter lock: the copy goes on as its holder. */
static long clone_bare(struct tc_copy *copy)
{
    pid_t *libc_tid = tc_libc_tid();
    if (!libc_tid) return tc_report_failure(&copy->start->report, TC_STEP_LIBC_TID, ENOSYS), -1;
    int err = tc_leave_out(copy->left_out);
    if (err) return tc_report_failure(&copy->start->report, TC_STEP_LEAVE_OUT, -err), -1;
    struct clone_args args = {
        .flags = copy->spec->flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&copy->pidfd,
        .parent_tid = (uint64_t)(uintptr_t)&copy->pid, /* for those who ask for CLONE_PARENT_SETTID */
        .exit_signal = copy->spec->exit_signal,
    };
    long pid = tc_raw_fork(copy->spec, &args, libc_tid);
    if (pid == 0) return 0;
    tc_put_back(copy->left_out);
    copy->flags = copy->spec->by_clone ? copy->spec->flags : args.flags;
    copy->replaced = copy->spec->emulated;
    if (pid < 0) {
        tc_report_failure(&copy->start->report, tc_start_step(copy->spec), (int)-pid);
        copy->pidfd = -1;
    } else
        copy->pid = (pid_t)pid;
    return pid;
}

/* In the copy that no fork has made. */
static void after_bare(struct tc_copy *copy, PyObject *gc, uint64_t mask)
{
    if (gc) tc_leave_garbage(gc);
    tc_in_copy();
    tc_borrowed_files = (copy->spec->flags & CLONE_FILES) != 0;
    mask |= copy->held;
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    /* With descriptors that are the creator's too: what others do after a fork, they do in the belief that the numbers
     * are their own (matplotlib drops its font files, asyncio its event loop). */
    if (copy->hooked && tc_borrowed_files)
        tc_after_fork_keeping();
    else if (copy->hooked)
        PyOS_AfterFork_Child();
    else
        Py_XDECREF(tc_children_forget(NULL, NULL));
}

/* -1 with an exception where other threads are in the way, or a handler of Python's has raised one. */
static int by_bare(struct tc_copy *copy)
{
    uint64_t mask;
    PyObject *gc = copy->spec->flags & CLONE_FILES ? PyImport_ImportModule("gc") : NULL;
    if (!gc && PyErr_Occurred()) return -1;
    /* A thread that waits for the interpreter lock has asked the holder to hand it over: in the copy, which would wait
     * for its taking it, it is not. The interpreter's own steps make the lock anew. */
    copy->hooked = copy->careful || tc_python_threads();
    if (copy->hooked)
        before_fork();
    else if (PyErr_CheckSignals() < 0) {
        Py_XDECREF(gc);
        return -1;
    }
    /* What comes from here on is for one of the two. What has come before: AfterFork forgets it in the copy, and where
     * that is not called the handlers run now. */
    tc_block_signals(&mask);
    int others = copy->careful ? tc_other_threads(copy->harmless) : 0;
    int failed = others || (!copy->hooked && PyErr_CheckSignals() < 0);
    long pid = failed ? -1 : clone_bare(copy);
    if (pid == 0) {
        after_bare(copy, gc, mask);
        return 1; /* with a reference to gc, which this process keeps anyway */
    }
    Py_XDECREF(gc);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    if (copy->hooked) PyOS_AfterFork_Parent();
    if (others)
        tc_raise_named("UnsupportedOperation",
                       "%s beside the caller: they are not in a bare copy, but what they have locked is locked in it "
                       "for ever, and only libc's fork, which cannot share what these flags share, would see to that. "
                       "Start the task before the threads, leave out FILES, FS, SYSVSEM and IO, or say bare=True if "
                       "its body takes no lock and calls no library",
                       others > 0 ? "this process has other threads" : "this process may have other threads");
    return failed ? -1 : 0;
}

/* Until the copy has taken its steps, or has died on the way. 0; -1 with an exception of a signal handler's: the copy
 * may never come through the hooks that others have set for forks. */
static int await_steps(const struct tc_copy *copy)
{
    int ended = 0;
    while (!atomic_load(&copy->start->set_up) && !ended) {
        Py_BEGIN_ALLOW_THREADS;
        tc_futex_wait(&copy->start->set_up, 0, &look);
        ended = copy_has_ended(copy);
        Py_END_ALLOW_THREADS;
        if (PyErr_CheckSignals() < 0) return -1;
    }
    return 0;
}

/* 0, or -1 with an exception; then nothing is left of it. */
static int finish(struct tc_copy *copy)
{
    int err;
    enum tc_step step = tc_report_failed(&copy->start->report, &err);
    int interrupted = !step && copy->spec->awaited && await_steps(copy) < 0;
    if (interrupted && copy->pidfd >= 0)
        TC_SYS(SYS_pidfd_send_signal, copy->pidfd, SIGKILL, 0, 0);
    else if (interrupted && copy->pid && !has_ended(copy->pid))
        kill(copy->pid, SIGKILL); /* our unreaped child */
    if (!step && !interrupted) step = tc_report_failed(&copy->start->report, &err);
    if (!step && !interrupted) return 0;
    if (copy->pid) reap(copy->pid);
    if (copy->pidfd >= 0) close(copy->pidfd);
    return interrupted ? -1 : (tc_raise_step(step, err), -1);
}

int tc_copy(struct tc_copy *copy)
{
    static int (*const forms[])(struct tc_copy *) = {by_fork, by_relay, by_bare};
    struct tc_spec *spec = copy->spec;
    copy->pid = 0;
    copy->pidfd = -1;
    copy->by_pid = 0;
    copy->replaced = spec->emulated;
    spec->creator = getpid();
    spec->creator_pidfd = -1;
    if (spec->flags & (CLONE_NEWPID | CLONE_PARENT)) {
        /* There getppid() is 0, or another's. */
        spec->creator_pidfd = tc_not_a_stream((int)TC_SYS(SYS_pidfd_open, spec->creator, 0));
        if (spec->creator_pidfd < 0) return tc_raise_step(TC_STEP_PIDFD, -spec->creator_pidfd), -1;
    }
    int made = forms[copy->form](copy);
    if (made == 1) {
        begin(copy);
        return 1;
    }
    if (!made) made = finish(copy);
    if (spec->creator_pidfd >= 0) close(spec->creator_pidfd);
    return made;
}

void tc_copy_started(const struct tc_copy *copy, struct tc_child *child)
{
    if (copy->form == TC_BARE) {
        child->exit_signal = (int)copy->spec->exit_signal;
        child->sibling = (copy->spec->flags & CLONE_PARENT) != 0;
    }
    child->by_pid = (char)copy->by_pid;
    child->replaced = copy->replaced;
    tc_child_started(child, copy->pid, copy->pidfd, copy->flags);
}

int tc_copy_from(PyObject *how, struct tc_copy *copy)
{
    struct tc_spec *spec = copy->spec;
    int form = TC_FORK;
    if (how != Py_None) {
        unsigned long long flags, exit_signal;
        if (!PyTuple_Check(how)) return PyErr_BadArgument(), -1;
        if (!PyArg_ParseTuple(how, "iKKp:how", &form, &flags, &exit_signal, &copy->careful)) return -1;
        if (form < TC_FORK || form > TC_BARE) return PyErr_BadArgument(), -1;
        spec->flags = flags;
        spec->exit_signal = exit_signal;
    }
    copy->form = (enum tc_form)form;
    /* Handlers are perhaps reset by a step. */
    if (copy->prepare != Py_None || spec->flags & CLONE_CLEAR_SIGHAND) spec->awaited = 1;
    /* The list sets a mask in any case: where a plan has none it is the caller's. */
    if ((spec->awaited || form != TC_FORK) && !spec->own_sigmask)
        TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, 0, &spec->sigmask, sizeof spec->sigmask);
    if (form == TC_FORK) copy->held = 0;
    if (form == TC_BARE && tc_current_task())
        return tc_raise_named("UnsupportedOperation",
                              "a task that shares memory cannot make a bare copy: it runs on the thread-local storage "
                              "of another thread, and its creator's threads may hold locks. Leave out FILES, FS, "
                              "SYSVSEM, IO and bare"),
               -1;
    if (atomic_load(&tc_counters.malloc_deaths))
        return tc_raise_named(
                   "UnsupportedOperation",
                   "a task that shared memory died inside malloc and keeps an arena of it locked: fork() takes "
                   "the locks of all arenas and would hang. Restart this process; programs can still be started"),
               -1;
    if ((form != TC_BARE || copy->careful || tc_python_threads()) && tc_sub_interpreters())
        return tc_raise_named(
                   "UnsupportedOperation",
                   "a sub-interpreter is alive: Python's own steps after a fork hang or crash the child then "
                   "(os.fork does, too); end it first, or use flags=SHARED, flags=THREAD or a program"),
               -1;
    return 0;
}
