/* Starting a task that shares memory: hosted (a parked host clones and waits) and in place (the caller clones onto a
 * parked host's TLS and sleeps in the kernel until the task ends). */
#include "shared.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "interp.h"
#include "spec.h"
#include "sys.h"

static _Atomic uint32_t list_lock, grave_lock;
static struct tc_task *living, *graveyard;

/* ---- the record's life ---------------------------------------------------------------------------------------------
 */

void tc_task_list(struct tc_task *task)
{
    tc_spin_lock(&list_lock);
    task->next = living;
    if (living) living->previous = task;
    living = task;
    tc_spin_unlock(&list_lock);
}

void tc_task_unlist(struct tc_task *task)
{
    tc_spin_lock(&list_lock);
    if (task->next) task->next->previous = task->previous;
    if (task->previous)
        task->previous->next = task->next;
    else if (living == task)
        living = task->next;
    task->next = task->previous = NULL;
    tc_spin_unlock(&list_lock);
}

struct tc_task *tc_task_after(struct tc_task *task)
{
    tc_spin_lock(&list_lock);
    /* One that has been unlisted meanwhile leads nowhere: its followers are missed, they end by themselves. */
    struct tc_task *next = task ? task->next : living;
    if (next) atomic_fetch_add(&next->references, 1);
    tc_spin_unlock(&list_lock);
    if (task) tc_task_release(task);
    return next;
}

struct tc_task *tc_task_first_end_request(void)
{
    tc_spin_lock(&list_lock);
    struct tc_task *task = living;
    while (task && !atomic_load(&task->signals.end_requested)) task = task->next;
    if (task) atomic_fetch_add(&task->references, 1);
    tc_spin_unlock(&list_lock);
    return task;
}

void tc_task_publish(struct tc_task *task, uint32_t state)
{
    if (state == TC_ENDED) tc_task_unlist(task);
    uint32_t now = atomic_load(&task->state);
    while (now < state && !atomic_compare_exchange_strong(&task->state, &now, state)) {
    }
    /* Nobody is woken who waits for more: on one CPU each wake may cost the task its turn. */
    for (uint32_t want = TC_STARTED; want <= state; want++)
        if (atomic_load(&task->waiters[want])) {
            tc_futex_wake(&task->state);
            break;
        }
    if (state == TC_ENDED && atomic_load(&task->orphan)) tc_task_close(task);
}

long tc_task_wait(struct tc_task *task, uint32_t seen, uint32_t want, const struct timespec *timeout)
{
    atomic_fetch_add(&task->waiters[want], 1);
    long err = tc_futex_wait(&task->state, seen, timeout); /* the value that was tested: no wake is lost */
    atomic_fetch_sub(&task->waiters[want], 1);
    return err;
}

void tc_task_release(struct tc_task *task)
{
    if (atomic_fetch_sub(&task->references, 1) != 1) return;
    /* Not free(): the caller may be a host, whose TLS a task may have by now. */
    tc_spin_lock(&grave_lock);
    task->grave = graveyard;
    graveyard = task;
    tc_spin_unlock(&grave_lock);
}

void tc_bury_dead(void)
{
    if (!graveyard || tc_current_task()) return;
    tc_spin_lock(&grave_lock);
    struct tc_task *task = graveyard;
    graveyard = NULL;
    tc_spin_unlock(&grave_lock);
    for (struct tc_task *next; task; task = next) {
        next = task->grave;
        tc_post_mortem(task);
        PyObject **objects[] = {&task->fn,        &task->args,  &task->kwargs, &task->context, &task->value,
                                &task->exception, &task->stack, &task->cancel, &task->setup};
        for (unsigned i = 0; i < sizeof objects / sizeof *objects; i++) Py_CLEAR(*objects[i]);
        tc_task_close(task);
        free(task);
    }
}

void tc_tasks_after_fork(void)
{
    /* The tasks are the parent's. Their handles here keep the records; see handle.c. */
    living = graveyard = NULL;
    atomic_store(&list_lock, 0);
    atomic_store(&grave_lock, 0);
    tc_handles_after_fork();
}

/* ---- the child ------------------------------------------------------------------------------------------------------
 */

static int exit_code_of(PyObject *exception)
{
    if (PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) return 128 + SIGINT;
    if (!PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)) return 1;
    PyObject *code = PyObject_GetAttrString(exception, "code");
    int value = 1; /* as the interpreter: anything but None and a number is a message */
    if (code == Py_None)
        value = 0;
    else if (code && PyLong_Check(code))
        value = (int)(PyLong_AsUnsignedLongMask(code) & 0xff);
    Py_XDECREF(code);
    PyErr_Clear();
    return value;
}

/* threading.current_thread() in a body makes an entry that on 3.11 and 3.12 outlives it: the next task on this host,
 * whose ident is the same, would find it. */
static void forget_dummy_thread(unsigned long ident)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *threading = modules ? PyDict_GetItemString(modules, "threading") : NULL; /* borrowed */
    PyObject *active = threading ? PyObject_GetAttrString(threading, "_active") : NULL;
    PyObject *key = active ? PyLong_FromUnsignedLong(ident) : NULL;
    if (key && PyDict_CheckExact(active) && PyDict_Contains(active, key) == 1) PyDict_DelItem(active, key);
    Py_XDECREF(key);
    Py_XDECREF(active);
    PyErr_Clear();
}

static void run_body(struct tc_task *task)
{
    task->ident = PyThread_get_thread_ident();
    task->ts = PyThreadState_Get();
    if (task->cancelled)
        PyErr_SetNone(task->cancel);
    else if (PyContext_Enter(task->context) == 0) {
        task->value = PyObject_Call(task->fn, task->args, task->kwargs);
        if (!task->value) task->exception = tc_take_exception();
        PyContext_Exit(task->context);
    }
    if (PyErr_Occurred()) task->exception = tc_take_exception();
    if (task->exception) task->exit_code = exit_code_of(task->exception);
    /* An end that was asked for too late would rise in a destructor below. */
    if (task->interrupted) PyThreadState_SetAsyncExc(task->ident, NULL);
    task->ts = NULL; /* with the lock held: no end is asked of this state from here on */
    forget_dummy_thread(task->ident);
    Py_CLEAR(task->fn);
    Py_CLEAR(task->args);
    Py_CLEAR(task->kwargs);
    Py_CLEAR(task->context);
    if (!task->handles) { /* nobody can ask any more */
        Py_CLEAR(task->value);
        Py_CLEAR(task->exception);
    }
}

static void child_main(void *argument)
{
    struct tc_task *task = argument;
    tc_current = &task->signals;
    if (tc_run_steps(&task->spec, tc_shared_steps)) {
        atomic_store(&task->clean, 1); /* nothing of Python was touched */
        tc_current = NULL;
        tc_exit_task(127);
    }
    if (task->spec.awaited) tc_task_publish(task, TC_STARTED);
    PyGILState_STATE lock = PyGILState_Ensure(); /* a fresh thread state, bound to the host's TLS */
    tc_lend_chunk(PyThreadState_Get());
    run_body(task);
    tc_take_chunk(PyThreadState_Get());
    PyGILState_Release(lock); /* clears and deletes it */
    /* A handler from here on would run on TLS that may already be another task's. */
    tc_block_signals(NULL);
    tc_current = NULL;
    int code = task->exit_code;
    if (task->in_place)
        atomic_store(&task->clean, 1); /* the caller's wake from the clone says the rest */
    else {
        /* The order matters: after DONE the creator may let go of the record, but the host's reference holds it. */
        atomic_store(&task->clean, 1);
        tc_task_publish(task, TC_DONE);
    }
    tc_exit_task(code);
}

/* ---- the starts ------------------------------------------------------------------------------------------------- */

/* 0 or -errno: no descriptor left. */
static int lend(struct tc_host *host, struct tc_task *task, struct clone_args *args)
{
    struct tc_spec *spec = &task->spec;
    task->host = host;
    spec->rseq = host->rseq;
    spec->rseq_size = host->rseq_size;
    spec->altstack = host->altstack;
    spec->altstack_size = host->altstack_size;
    spec->parent_death = SIGKILL;
    spec->creator = (pid_t)TC_SYS(SYS_getpid);
    spec->creator_pidfd = -1;
    if (spec->flags & CLONE_NEWPID) spec->creator_pidfd = (int)TC_SYS(SYS_pidfd_open, spec->creator, 0);
    /* With an exit signal anybody may reap, and a pidfd from birth is the only sure name. Without, nobody but us does,
     * and a pidfd, made and closed some 4 us, is made when somebody asks. */
    if (spec->exit_signal) spec->flags |= CLONE_PIDFD;
    tc_clone_args(spec, args, (int *)&task->pidfd, &task->pid);
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

/* The status, once the task has ended. With an exit signal only a look: os.wait() shall find it. */
static void take_status(struct tc_task *task)
{
    const int look = WEXITED | WNOWAIT | __WALL, reap = WEXITED | WNOHANG | __WALL;
    int reaps = !task->spec.exit_signal, err = 0;
    atomic_store(&task->reaping, reaps);
    if (reaps) err = tc_waitid(P_PID, task->pid, reap, &task->status);
    if (!err && !task->status.source) {
        /* Not a zombie yet: a moment after its mm_release, or for long, where threads of a C library live on. */
        atomic_store(&task->reaping, 0);
        do err = tc_waitid(P_PID, task->pid, look, &task->status);
        while (err == -EINTR);
        atomic_store(&task->reaping, reaps);
        if (!err && reaps) err = tc_waitid(P_PID, task->pid, reap, &task->status);
    }
    if (err) tc_status_of_reaped(task->pidfd, &task->status);
}

/* On the host. */
void tc_run_hosted(struct tc_host *host, struct tc_task *task)
{
    struct clone_args args;
    int err = lend(host, task, &args);
    args.flags |= CLONE_CHILD_CLEARTID;
    args.child_tid = (uint64_t)(uintptr_t)&task->alive;
    atomic_store(&task->alive, 1);
    long tid = err ? err : tc_clone3(&args, sizeof args, child_main, task);
    if (tid < 0)
        refuse(task, err ? TC_STEP_PIDFD : TC_STEP_CLONE3, tid);
    else {
        /* With CLONE_NEWPID the kernel writes the id of the creator's namespace, as it returns it. */
        if (!task->spec.awaited) tc_task_publish(task, TC_STARTED); /* else by the task, after its steps */
        /* Cleared when the kernel has run mm_release() for the task: it ended, or it called execve. Then the dead state
         * may hold the interpreter lock for as long as the program runs, so recover before waiting for the end. */
        while (atomic_load(&task->alive)) tc_futex_wait(&task->alive, 1, NULL);
        if (!atomic_load(&task->clean)) tc_recover(host, task);
        take_status(task);
    }
    close_creator_pidfd(task);
}

/* On the calling thread, without the interpreter lock. The task is never the main thread by ident, so no Python signal
 * handler runs in it; a death inside libc costs the host, not the caller. */
static void run_in_place(struct tc_host *host, struct tc_task *task)
{
    struct clone_args args;
    uint64_t mask;
    tc_block_signals(&mask);
    int err = lend(host, task, &args);
    args.flags |= CLONE_VFORK | CLONE_SETTLS;
    args.tls = (uint64_t)(uintptr_t)host->tls;
    long tid = err ? err : tc_clone3(&args, sizeof args, child_main, task);
    /* We are back when the kernel has run mm_release() for the task: it ended, or it called execve. */
    if (tid < 0) refuse(task, err ? TC_STEP_PIDFD : TC_STEP_CLONE3, tid);
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
    if (tid > 0) take_status(task);
    close_creator_pidfd(task);
    tc_task_publish(task, TC_ENDED);
}

/* With the interpreter lock. 0, or -errno: no host could be had. */
int tc_task_start(struct tc_task *task, size_t stack_size)
{
    struct tc_host *host;
    tc_bury_dead();
    int err = tc_host_take(stack_size, &host);
    if (err) return err;
    if (!task->spec.own_sigmask)
        TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, 0, &task->spec.sigmask, sizeof task->spec.sigmask);
    tc_task_list(task);
    host->task = task;
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
