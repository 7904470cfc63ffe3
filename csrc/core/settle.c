/* The end of a task that has ended: its zombie, its status, its host.
 *
 * A hosted task is waited for by its host. A lent one is not: its host sleeps, and the zombie of a task whose body has
 * ended is taken by the next start, by whoever waits for the status, or by the host after a second. */
#include "shared.h"

#include <errno.h>
#include <sys/wait.h>

#include "sys.h"

static const int look = WEXITED | WNOWAIT | __WALL, reap = WEXITED | WNOHANG | __WALL;

/* Without waiting; true when the zombie was there. Nobody but us reaps a task without an exit signal. */
static int reap_now(struct tc_task *task)
{
    tc_keep_dumpable(task);
    tc_task_reaping(task);
    int err = tc_waitid(P_PID, task->pid, reap, &task->status);
    if (err) tc_status_of_reaped(task->pidfd, &task->status);
    if (!task->status.source) atomic_store(&task->reaping, 0);
    return task->status.source != TC_STATUS_NONE;
}

/* With an exit signal only a look: os.wait() shall find it. With AUTOREAP the kernel reaps, and wakes who looks. */
void tc_take_status(struct tc_task *task)
{
    int reaps = !tc_others_reap(task), err;
    /* What follows takes long where threads of a C library live on. */
    if (atomic_load(&task->state) >= TC_DONE) tc_ring_bells(task);
    if (reaps && reap_now(task)) return;
    /* Not a zombie yet: a moment after its mm_release, or for long, where threads of a C library live on. */
    do err = tc_waitid(P_PID, task->pid, look, &task->status);
    while (err == -EINTR);
    if (err)
        tc_status_of_reaped(task->pidfd, &task->status);
    else if (reaps) {
        task->status.source = TC_STATUS_NONE;
        reap_now(task);
    }
}

/* ---- lent tasks ------------------------------------------------------------------------------------------------- */

static _Atomic(struct tc_task *) finished; /* pushed by tasks, which may be killed at any instruction: no lock */

void tc_settle_after_fork(void) { atomic_store(&finished, NULL); }

static void push(struct tc_task *task)
{
    task->done_next = atomic_load(&finished);
    while (!atomic_compare_exchange_weak(&finished, &task->done_next, task)) {
    }
}

void tc_task_finish(struct tc_task *task)
{
    /* From here on the kernel clears another word than the host's. */
    TC_SYS(SYS_set_tid_address, &task->alive);
    atomic_store(&task->finished, 1);
    push(task);
}

int tc_settle(struct tc_task *task)
{
    if (atomic_load(&task->state) == TC_ENDED) return 1;
    if (atomic_load(&task->alive) || tc_current_task()) return 0; /* in a task: it is no child of ours */
    if (tc_private_files && atomic_load(&task->bells)) return 0;  /* not for us to ring: the host will */
    /* Hosts are never freed, so this is a host, perhaps another task's by now. */
    struct tc_host *host = task->host;
    uint32_t word = TC_LENT;
    if (!atomic_compare_exchange_strong(&host->word, &word, TC_BUSY)) return 0; /* somebody settles it */
    if (host->task != task || !reap_now(task)) {
        word = TC_BUSY; /* or GONE, should it be another's, who has just died: then the host was woken for that */
        atomic_compare_exchange_strong(&host->word, &word, TC_LENT);
        return 0;
    }
    tc_host_give_back(host);
    tc_task_publish(task, TC_ENDED);
    tc_task_release(task);
    return 1;
}

void tc_settle_finished(void)
{
    if (!atomic_load(&finished) || tc_current_task()) return;
    struct tc_task *task = atomic_exchange(&finished, NULL);
    for (struct tc_task *next; task; task = next) {
        next = task->done_next;
        if (tc_settle(task))
            tc_task_release(task); /* the list's reference */
        else
            push(task);
    }
}

long tc_watch(struct tc_task *task, const struct timespec *timeout)
{
    atomic_fetch_add(&task->watchers, 1);
    long err = atomic_load(&task->state) < TC_ENDED ? tc_futex_wait(&task->alive, 1, timeout) : 0;
    atomic_fetch_sub(&task->watchers, 1);
    return err;
}

void tc_settle_soon(struct tc_task *task)
{
    const struct timespec moment = {0, 1000000};
    for (int i = 0; i < 20 && !tc_current_task(); i++) {
        if (tc_settle(task)) return;
        if (atomic_load(&task->alive))
            tc_watch(task, &moment);
        else
            TC_SYS(SYS_sched_yield);
    }
    /* Threads of a C library live on, or we are a task: the host waits for the end, and we for its word. */
    uint32_t word = TC_LENT;
    if (atomic_compare_exchange_strong(&task->host->word, &word, TC_SETTLE)) tc_futex_wake(&task->host->word);
}
