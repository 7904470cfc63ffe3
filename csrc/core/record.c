/* The record of a task: who may see it, what is told of it, who lets go of it last; and its descriptor. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "sys.h"

static _Atomic uint32_t list_lock, grave_lock;
static struct tc_task *living, *graveyard;
__thread char tc_private_files;

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
                                &task->exception, &task->stack, &task->cancel, &task->entry};
        for (unsigned i = 0; i < sizeof objects / sizeof *objects; i++) Py_CLEAR(*objects[i]);
        tc_task_close(task);
        free(task);
    }
}

void tc_tasks_after_fork(void)
{
    /* The tasks are the parent's. Their handles here keep the records; see handle.c. */
    living = graveyard = NULL;
    tc_settle_after_fork();
    atomic_store(&list_lock, 0);
    atomic_store(&grave_lock, 0);
    tc_handles_after_fork();
}

/* ---- descriptor, signals, zombie --------------------------------------------------------------------------------- */

int tc_own_files(void)
{
    /* In a task with a file table of its own, the creator's descriptor numbers mean something else. */
    if (tc_private_files) return 0;
    struct tc_task *here = tc_current_task();
    return !here || (here->spec.flags & CLONE_FILES);
}

void tc_task_reap(struct tc_task *task, int pidfd)
{
    struct tc_status unused = {0};
    if (task->spec.exit_signal && pidfd >= 0) tc_waitid(P_PIDFD, pidfd, WEXITED | WNOHANG | __WALL, &unused);
}

void tc_task_close(struct tc_task *task)
{
    int pidfd = atomic_exchange(&task->pidfd, -1);
    if (pidfd < 0) return;
    tc_task_reap(task, pidfd);
    TC_SYS(SYS_close, pidfd);
}

/* A pidfd that is surely the task's, or -errno: ESRCH when it has been reaped. */
int tc_open_pidfd(struct tc_task *task)
{
    int pidfd = (int)TC_SYS(SYS_pidfd_open, task->pid, task->thread ? PIDFD_THREAD : 0);
    /* The flag stands for two system calls of the host at most: then the task has ended, or it runs on. */
    while (atomic_load(&task->reaping) && atomic_load(&task->state) < TC_ENDED) TC_SYS(SYS_sched_yield);
    if (pidfd < 0 || !atomic_load(&task->reaping)) return pidfd;
    TC_SYS(SYS_close, pidfd); /* the number may be another process's by now */
    return -ESRCH;
}

long tc_task_signal(struct tc_task *task, int sig)
{
    int kept = tc_own_files() ? atomic_load(&task->pidfd) : -1, pidfd = kept >= 0 ? kept : tc_open_pidfd(task);
    if (pidfd == -EINVAL && task->thread) {
        long group = TC_SYS(SYS_getpid);
        return TC_SYS(SYS_tgkill, group, task->pid, sig);
    }
    if (pidfd < 0) return pidfd;
    long err = TC_SYS(SYS_pidfd_send_signal, pidfd, sig, 0, 0);
    if (kept < 0) TC_SYS(SYS_close, pidfd);
    return err;
}
