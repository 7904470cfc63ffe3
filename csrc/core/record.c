/* The record of a task: who may see it, what is told of it, who lets go of it last; and its descriptor. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "sys.h"

static _Atomic uint32_t list_lock;
static struct tc_task *living;
static struct tc_task *_Atomic graveyard; /* pushed one by one, taken as a whole: that needs no lock */

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9 */
#endif

struct tc_task *tc_task_new(PyObject *fn, PyObject *args, PyObject *kwargs, PyObject *cancel)
{
    PyObject *context = PyContext_CopyCurrent();
    struct tc_task *task = context ? calloc(1, sizeof *task) : NULL;
    if (!task) {
        if (context) PyErr_NoMemory();
        Py_XDECREF(context);
        return NULL;
    }
    static uint64_t serial; /* guarded by the interpreter lock */
    task->serial = ++serial;
    task->generation = tc_generation;
    task->pidfd = -1;
    task->spec.report = &task->report;
    task->fn = Py_NewRef(fn);
    task->args = Py_NewRef(args);
    task->kwargs = kwargs == Py_None ? NULL : Py_NewRef(kwargs);
    task->cancel = Py_NewRef(cancel);
    task->context = context;
    return task;
}

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

struct tc_task **tc_task_all(void)
{
    size_t room = 16;
    for (;;) {
        struct tc_task **all = calloc(room + 1, sizeof *all); /* not under the lock, which a task may wait for */
        if (!all) return NULL;
        size_t n = 0;
        tc_spin_lock(&list_lock);
        for (struct tc_task *task = living; task; task = task->next, n++)
            if (n < room) all[n] = task;
        if (n <= room) {
            for (size_t i = 0; i < n; i++) atomic_fetch_add(&all[i]->references, 1);
            tc_spin_unlock(&list_lock);
            return all;
        }
        tc_spin_unlock(&list_lock);
        free(all);
        room = 2 * n;
    }
}

void tc_task_all_done(struct tc_task **all)
{
    for (struct tc_task **at = all; at && *at; at++) tc_task_release(*at);
    free(all);
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

int tc_task_any(int (*test)(pid_t pid), const struct tc_task *but)
{
    int found = 0;
    tc_spin_lock(&list_lock);
    for (struct tc_task *task = living; task && !found; task = task->next)
        found = task != but && !task->thread && atomic_load(&task->pid) && test(atomic_load(&task->pid));
    tc_spin_unlock(&list_lock);
    return found;
}

void tc_ring(int eventfd)
{
    uint64_t one = 1;
    if (eventfd >= 0) TC_SYS(SYS_write, eventfd, &one, sizeof one);
}

void tc_ring_bells(struct tc_task *task)
{
    /* A thread with files of its own would ring others. It says ENDED of itself, which nobody awaits by a bell; and see
     * tc_settle(). */
    if (!atomic_load(&task->bells) || tc_private_files) return;
    atomic_fetch_add(&task->ringing, 1);
    for (struct tc_hook *hook = atomic_load(&task->bells); hook; hook = hook->next) tc_ring(atomic_load(&hook->fd));
    atomic_fetch_sub(&task->ringing, 1);
}

/* The kernel wakes one of those that watch, and none when the task died: then the word that it clears is the host's. */
static void tell_watchers(struct tc_task *task)
{
    if (!task->lent) return;
    atomic_store(&task->alive, 0);
    if (atomic_load(&task->watchers)) tc_futex_wake(&task->alive);
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
    if (state == TC_ENDED) {
        tell_watchers(task);
        tc_ring_bells(task);
    }
    /* Where the descriptor is another table's, the burial closes it. */
    if (state == TC_ENDED && atomic_load(&task->orphan) && tc_own_files()) tc_task_close(task);
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
    task->grave = atomic_load(&graveyard);
    while (!atomic_compare_exchange_weak(&graveyard, &task->grave, task)) {
    }
}

void tc_bury_dead(void)
{
    if (!atomic_load(&graveyard) || tc_current_task() || tc_private_files) return;
    struct tc_task *task = atomic_exchange(&graveyard, NULL);
    for (struct tc_task *next; task; task = next) {
        next = task->grave;
        tc_post_mortem(task);
        PyObject **objects[] = {TC_OBJECTS(task), &task->cancel};
        for (unsigned i = 0; i < sizeof objects / sizeof *objects; i++) Py_CLEAR(*objects[i]);
        tc_task_close(task);
        for (struct tc_hook *hook = atomic_load(&task->bells), *after; hook; hook = after) {
            after = hook->next;
            free(hook);
        }
        free(task);
    }
}

void tc_tasks_after_fork(void)
{
    /* The tasks are the parent's. Their handles here keep the records, and know it by tc_generation. */
    living = NULL;
    atomic_store(&graveyard, NULL);
    atomic_store(&list_lock, 0);
}

/* ---- descriptor, signals, zombie --------------------------------------------------------------------------------- */

int tc_others_reap(const struct tc_task *task) { return task->spec.exit_signal || task->spec.flags & CLONE_AUTOREAP; }

void tc_task_reap(struct tc_task *task, int pidfd)
{
    struct tc_status unused = {0};
    if (task->spec.exit_signal && pidfd >= 0) tc_waitid(P_PIDFD, pidfd, WEXITED | WNOHANG | __WALL, &unused);
}

void tc_task_close(struct tc_task *task)
{
    int pidfd = atomic_exchange(&task->pidfd, -1);
    if (pidfd < 0 || !tc_may_close(task->generation)) return;
    tc_task_reap(task, pidfd);
    TC_SYS(SYS_close, pidfd);
}

/* Nobody reaps a held task, so its id is its own. False: it has been reaped. Not in a task: one that is killed here
 * would hold it for ever. Not where others may reap at any time: tc_others_reap(). */
static int hold(struct tc_task *task)
{
    for (;;) {
        atomic_fetch_add(&task->holds, 1);
        if (!atomic_load(&task->reaping)) return 1;
        atomic_fetch_sub(&task->holds, 1);
        if (atomic_load(&task->state) == TC_ENDED) return 0;
        TC_SYS(SYS_sched_yield); /* for two system calls of the host at most */
    }
}

static void let_go(struct tc_task *task) { atomic_fetch_sub(&task->holds, 1); }

void tc_task_reaping(struct tc_task *task)
{
    atomic_store(&task->reaping, 1);
    while (atomic_load(&task->holds)) TC_SYS(SYS_sched_yield);
}

int tc_open_pidfd(struct tc_task *task)
{
    int by_id = !tc_current_task();
    if (by_id && !hold(task)) return -ESRCH;
    int pidfd = (int)TC_SYS(SYS_pidfd_open, task->pid, task->thread ? PIDFD_THREAD : 0);
    if (by_id) let_go(task);
    if (pidfd < 0 || by_id || !atomic_load(&task->reaping)) return pidfd;
    TC_SYS(SYS_close, pidfd); /* the number may be another process's by now */
    return -ESRCH;
}

static long signal_by_id(struct tc_task *task, int sig)
{
    if (!hold(task)) return -ESRCH;
    long group = TC_SYS(SYS_getpid);
    long err = task->thread ? TC_SYS(SYS_tgkill, group, task->pid, sig) : TC_SYS(SYS_kill, task->pid, sig);
    let_go(task);
    return err;
}

long tc_task_signal(struct tc_task *task, int sig)
{
    int kept = tc_own_files() ? atomic_load(&task->pidfd) : -1;
    if (kept >= 0 && !atomic_load(&task->rings)) return TC_SYS(SYS_pidfd_send_signal, kept, sig, 0, 0);
    /* By id: an end must not want a descriptor, when there may be none left. */
    if (!tc_current_task() && !tc_others_reap(task)) return signal_by_id(task, sig);
    int pidfd = tc_open_pidfd(task);
    if (pidfd < 0) return pidfd;
    long err = TC_SYS(SYS_pidfd_send_signal, pidfd, sig, 0, 0);
    TC_SYS(SYS_close, pidfd);
    return err;
}
