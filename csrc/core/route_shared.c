/* Starting a task that shares memory: hosted (a parked host clones and waits) and in place (the caller clones onto a
 * parked host's TLS and sleeps in the kernel until the task ends). */
#include "shared.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "fallback.h"
#include "interp.h"
#include "spec.h"
#include "sys.h"

/* ---- the child ------------------------------------------------------------------------------------------------------
 */

static void child_main(void *argument)
{
    struct tc_task *task = argument;
    tc_current = &task->signals;
    if (tc_run_steps(&task->spec, tc_shared_steps)) {
        atomic_store(&task->clean, 1); /* nothing of Python was touched */
        tc_current = NULL;
        tc_exit_task(127);
    }
    if (!task->in_place && task->spec.emulated & CLONE_PARENT_SETTID)
        while (!atomic_load(&task->pid)) TC_SYS(SYS_sched_yield); /* written when clone(2) is back */
    /* In place nobody else can say it: the caller sleeps. Who ends the task waits for it. */
    if (task->spec.awaited || task->in_place) tc_task_publish(task, TC_STARTED);
    PyGILState_STATE lock = PyGILState_Ensure(); /* a fresh thread state, bound to the host's TLS */
    tc_lend_chunk(PyThreadState_Get());
    tc_run_body(task);
    tc_take_chunk(PyThreadState_Get());
    PyGILState_Release(lock); /* clears and deletes it */
    /* A handler from here on would run on TLS that may already be another task's. */
    tc_block_signals(NULL);
    tc_current = NULL;
    int code = task->exit_code;
    atomic_store(&task->clean, 1);
    if (task->lent) tc_task_finish(task);
    /* After DONE the creator may let go of the record, but the host's reference holds it. In place the caller's wake
     * from the clone says it all. */
    if (!task->in_place) tc_task_publish(task, TC_DONE);
    /* The host shall wake after all: it has bells to ring. */
    if (task->lent && atomic_load(&task->bells)) TC_SYS(SYS_set_tid_address, &task->host->word);
    tc_exit_task(code);
}

/* ---- the starts ------------------------------------------------------------------------------------------------- */

/* 0 or -errno: no descriptor left. */
static int lend(struct tc_host *host, struct tc_task *task, struct clone_args *args)
{
    struct tc_spec *spec = &task->spec;
    task->host = host;
    task->dumpable = tc_dumpable();
    spec->rseq = host->rseq;
    spec->rseq_size = host->rseq_size;
    spec->altstack = host->altstack;
    spec->altstack_size = host->altstack_size;
    spec->parent_death = SIGKILL;
    spec->creator = (pid_t)TC_SYS(SYS_getpid);
    spec->creator_pidfd = -1;
    if (spec->flags & CLONE_NEWPID)
        spec->creator_pidfd = tc_not_a_stream((int)TC_SYS(SYS_pidfd_open, spec->creator, 0));
    /* A pidfd from birth is the only sure name of a task that others may reap, and keeps its status. Where nobody but
     * us does, a pidfd, made and closed some 4 us, is made when somebody asks. */
    if (tc_others_reap(task)) spec->flags |= CLONE_PIDFD;
    tc_clone_args(spec, args, (int *)&task->pidfd, (pid_t *)&task->pid);
    if (spec->flags & CLONE_SETTLS) args->tls = (uint64_t)(uintptr_t)host->tls;
    args->child_tid = (uint64_t)(uintptr_t)&spec->child_tid; /* for who names CHILD_SETTID or CHILD_CLEARTID */
    args->stack = (uint64_t)(uintptr_t)host->stack;
    args->stack_size = (uint64_t)(host->top - host->stack);
    return spec->flags & CLONE_NEWPID && spec->creator_pidfd < 0 ? spec->creator_pidfd : 0;
}

static void close_creator_pidfd(struct tc_task *task)
{
    if (task->spec.creator_pidfd >= 0) TC_SYS(SYS_close, task->spec.creator_pidfd);
}

static void refuse(struct tc_task *task, enum tc_step step, long err)
{
    tc_report_failure(&task->report, step, (int)-err);
    /* The kernel may have written a number before it failed, and taken the descriptor back: it is somebody else's. */
    atomic_store(&task->pidfd, -1);
    atomic_store(&task->alive, 0);
    atomic_store(&task->clean, 1);
}

/* The init of a PID namespace ends by having SIGCHLD ignored (zap_pid_ns_processes() of the kernel), in a table of
 * handlers that may be the creator's, too: then every status of its children would be lost. */
static int loses_sigchld(const struct tc_task *task)
{
    return (task->spec.flags & CLONE_SIGHAND) && (task->spec.flags & CLONE_NEWPID);
}
static void get_sigchld(struct tc_sigaction *action)
{
    TC_SYS(SYS_rt_sigaction, SIGCHLD, 0, action, sizeof action->mask);
}
static void put_sigchld_back(const struct tc_sigaction *before)
{
    struct tc_sigaction now = *before;
    get_sigchld(&now);
    if (now.handler != before->handler && now.handler == (void (*)(int, siginfo_t *, void *))SIG_IGN)
        TC_SYS(SYS_rt_sigaction, SIGCHLD, before, 0, sizeof before->mask);
}

/* On the host. */
void tc_run_hosted(struct tc_host *host, struct tc_task *task)
{
    struct clone_args args;
    struct tc_sigaction sigchld = {0};
    if (loses_sigchld(task)) get_sigchld(&sigchld); /* no other start pays for it */
    int err = lend(host, task, &args);
    args.flags |= CLONE_CHILD_CLEARTID;
    args.child_tid = (uint64_t)(uintptr_t)&task->alive;
    atomic_store(&task->alive, 1);
    long tid = err ? err : tc_start(&task->spec, &args, child_main, task);
    if (tid < 0)
        refuse(task, err ? TC_STEP_PIDFD : tc_start_step(&task->spec), tid);
    else {
        /* With CLONE_NEWPID the kernel writes the id of the creator's namespace, as it returns it. */
        if (!task->spec.awaited) tc_task_publish(task, TC_STARTED); /* else by the task, after its steps */
        /* Cleared when the kernel has run mm_release() for the task: it ended, or it called execve. Then the dead state
         * may hold the interpreter lock for as long as the program runs, so recover before waiting for the end. */
        /* 1, or the task's id, if CHILD_SETTID is in the set. */
        for (uint32_t word; (word = atomic_load(&task->alive));) tc_futex_wait(&task->alive, word, NULL);
        if (!atomic_load(&task->clean)) tc_recover(host, task);
        tc_take_status(task);
        if (loses_sigchld(task)) put_sigchld_back(&sigchld);
    }
    close_creator_pidfd(task);
}

/* On the calling thread, without the interpreter lock. The task is never the main thread by ident, so no Python signal
 * handler runs in it; a death inside libc costs the host, not the caller. */
static void run_in_place(struct tc_host *host, struct tc_task *task)
{
    struct clone_args args;
    uint64_t mask;
    struct tc_sigaction sigchld = {0};
    if (loses_sigchld(task)) get_sigchld(&sigchld); /* no other start pays for it */
    tc_block_signals(&mask);
    int err = lend(host, task, &args);
    args.flags |= CLONE_VFORK | CLONE_SETTLS;
    args.tls = (uint64_t)(uintptr_t)host->tls;
    long tid = err ? err : tc_start(&task->spec, &args, child_main, task);
    /* We are back when the kernel has run mm_release() for the task: it ended, or it called execve. */
    if (tid < 0) refuse(task, err ? TC_STEP_PIDFD : tc_start_step(&task->spec), tid);
    int clean = (int)atomic_load(&task->clean);
    if (clean)
        tc_host_give_back(host);
    else {
        /* Before the reaping: a program that the body exec'd may run for hours while the dead state has the lock. */
        atomic_fetch_add(&task->references, 1); /* the host's */
        tc_host_wake(host, TC_RECOVER);
        while (atomic_load(&host->ready) != 2) tc_futex_wait(&host->ready, 1, NULL);
    }
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    if (tid > 0) tc_take_status(task);
    if (tid > 0 && loses_sigchld(task)) put_sigchld_back(&sigchld);
    close_creator_pidfd(task);
    tc_task_publish(task, TC_ENDED);
}

/* The calling thread clones, onto the TLS of a host that sleeps on until the task is gone: no switch to the host and
 * back, and the task inherits from its caller. Only from the main thread, since PR_SET_PDEATHSIG is about the thread
 * that clones. With the interpreter lock, which a clone without VFORK does not keep for long. */
static void run_lent(struct tc_host *host, struct tc_task *task)
{
    struct clone_args args;
    uint64_t mask;
    atomic_fetch_add(&task->references, 2); /* the host's, and that of the list of the finished */
    atomic_store(&task->alive, 1);
    lend(host, task, &args);
    args.flags |= CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    args.tls = (uint64_t)(uintptr_t)host->tls;
    args.child_tid = (uint64_t)(uintptr_t)&host->word;
    atomic_store(&host->word, TC_LENT);
    tc_block_signals(&mask);
    if (!task->spec.own_sigmask) task->spec.sigmask = mask;
    long tid = tc_start(&task->spec, &args, child_main, task);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    if (tid > 0) {
        if (!task->spec.awaited) tc_task_publish(task, TC_STARTED); /* else by the task, after its steps */
        return;
    }
    refuse(task, tc_start_step(&task->spec), tid);
    tc_host_give_back(host);
    tc_task_publish(task, TC_ENDED);
    tc_task_release(task);
    tc_task_release(task);
}

/* A new pid namespace wants a pidfd of the creator that somebody closes at the end: the host. And the kernel would
 * write the task's id into the word that the host of a lent one sleeps on. */
static int may_lend(const struct tc_task *task)
{
    return !task->in_place && !tc_others_reap(task) && !(task->spec.flags & (CLONE_NEWPID | CLONE_CHILD_SETTID)) &&
           !tc_current_task() && tc_on_main_thread();
}

/* With the interpreter lock. 0, or -errno: no host could be had. */
static int start(struct tc_task *task, size_t stack_size)
{
    struct tc_host *host;
    tc_settle_finished();
    tc_bury_dead();
    int err = tc_host_take(stack_size, &host);
    if (err) return err;
    tc_task_list(task);
    host->task = task;
    task->lent = may_lend(task);
    if (task->lent) {
        run_lent(host, task);
        return 0;
    }
    if (!task->spec.own_sigmask)
        TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, 0, &task->spec.sigmask, sizeof task->spec.sigmask);
    if (task->in_place) {
        Py_BEGIN_ALLOW_THREADS;
        run_in_place(host, task);
        Py_END_ALLOW_THREADS;
    } else {
        atomic_fetch_add(&task->references, 1); /* the host's */
        tc_host_wake(host, TC_GO);
    }
    return 0;
}

/* ---- the Python edge --------------------------------------------------------------------------------------------- */

static int may_start(void)
{
    if (!tc_main_interpreter())
        tc_raise_named("UnsupportedOperation", "tasks that share memory can be started by the main interpreter only");
    else if (tc_current_task() && !tc_own_files())
        tc_raise_named("UnsupportedOperation", "a task without CLONE_FILES cannot start tasks that share memory: their "
                                               "descriptors would be made in the creator's file table");
    else if (tc_private)
        tc_raise_named(
            "UnsupportedOperation",
            "this thread has files, a directory or namespaces of its own: a host that is made here would have "
            "them too, and lend them to other tasks. Start it from another thread");
    else if (atomic_load(&tc_counters.malloc_deaths) >= tc_malloc_limit())
        tc_raise_named("UnsupportedOperation",
                       "%d tasks died inside malloc, and each keeps an arena of it locked: no more tasks that share "
                       "memory are started, since they could hang. Restart this process",
                       (int)atomic_load(&tc_counters.malloc_deaths));
    else
        return tc_guard_threads();
    return -1;
}

PyObject *tc_shared_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *fn, *fn_args, *kwargs, *cancel, *setup = Py_None;
    unsigned long long flags;
    int exit_signal, kernel_core, daemon;
    Py_ssize_t stack_size;
    const char *name;
    if (!PyArg_ParseTuple(args, "OO!OKinO&pOp|O:shared_start", &fn, &PyTuple_Type, &fn_args, &kwargs, &flags,
                          &exit_signal, &stack_size, tc_bytes_or_none, &name, &kernel_core, &cancel, &daemon, &setup))
        return NULL;
    if (may_start() < 0) return NULL;
    struct tc_spec spec = {0};
    if (tc_setup_from(setup, &spec) < 0) return NULL;
    struct tc_task *task = tc_task_new(fn, fn_args, kwargs, cancel);
    if (!task) return NULL;
    spec.report = &task->report;
    task->spec = spec;
    task->setup = Py_NewRef(setup); /* the spec points into it */
    task->daemon = daemon;
    task->in_place = (flags & CLONE_VFORK) != 0;
    task->signals.report = &task->report;
    task->signals.end_bell = &tc_end_bell;
    task->spec.signals = &task->signals;
    task->spec.exit_signal = (uint64_t)exit_signal;
    task->spec.kernel_core = (unsigned)kernel_core;
    task->spec.flags = flags | (flags & CLONE_SIGHAND ? 0 : CLONE_CLEAR_SIGHAND);
    if (name) {
        strncpy(task->name, name, sizeof task->name - 1);
        task->spec.name = task->name;
    }
    if (flags & CLONE_IO && !task->in_place && !may_lend(task)) {
        tc_raise_named("UnsupportedOperation",
                       "the shared route carries IO where the caller itself clones: on the main thread and not in a "
                       "task, without an exit signal, NEWPID and CHILD_SETTID; else the I/O context would be the "
                       "host's. Add VFORK, or leave it out");
        atomic_store(&task->references, 1);
        tc_task_release(task);
        return NULL;
    }
    PyObject *handle = tc_handle_for(task);
    int err = handle ? start(task, (size_t)stack_size) : 0;
    if (handle && !err) return handle;
    /* Never listed, never seen by a host: the graveyard takes it with its references. */
    if (err) tc_raise_step(TC_STEP_HOST, -err);
    if (!handle)
        atomic_store(&task->references, 1), tc_task_release(task);
    else
        atomic_store(&task->state, TC_ENDED);
    Py_XDECREF(handle);
    return NULL;
}
