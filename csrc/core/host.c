/* Hosts: threads that lend their thread-local storage to tasks. */
#include "shared.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/rseq.h>
#include <unistd.h>

#include "arenas.h"
#include "error.h"
#include "sys.h"
#include "watchdog.h"

enum { GUARD = 64 << 10, MAX_IDLE = 8 };
static const struct timespec idle_limit = {1, 0};

static _Atomic uint32_t pool_lock;
static struct tc_host *pool;

/* Never freed: whoever settles a task looks at the word of a host that may have been given to another meanwhile. */
static struct tc_host *spares;

static void spare(struct tc_host *host)
{
    tc_spin_lock(&pool_lock);
    host->next = spares;
    spares = host;
    tc_spin_unlock(&pool_lock);
}

static struct tc_host *host_struct(void)
{
    tc_spin_lock(&pool_lock);
    struct tc_host *host = spares;
    if (host) spares = host->next;
    tc_spin_unlock(&pool_lock);
    if (!host) return calloc(1, sizeof *host);
    atomic_store(&host->ready, 0);
    return host;
}

/* ---- the host's own thread -------------------------------------------------------------------------------------- */

static int pool_put(struct tc_host *host)
{
    tc_spin_lock(&pool_lock);
    int room = host->pooled && tc_counters.idle < MAX_IDLE;
    if (room) {
        atomic_store(&host->word, TC_PARKED);
        host->next = pool;
        pool = host;
        tc_counters.idle++;
    }
    tc_spin_unlock(&pool_lock);
    return room;
}

/* False when somebody has just taken it. */
static int pool_remove(struct tc_host *host)
{
    tc_spin_lock(&pool_lock);
    struct tc_host **at = &pool;
    while (*at && *at != host) at = &(*at)->next;
    int found = *at != NULL;
    if (found) {
        *at = host->next;
        tc_counters.idle--;
    }
    tc_spin_unlock(&pool_lock);
    return found;
}

static __attribute__((noinline)) void host_loop(struct tc_host *host)
{
    char *here = __builtin_frame_address(0);
    host->probe_top = (char *)(((uintptr_t)here - TC_RESERVE / 2) & ~63ul);
    host->top = (char *)(((uintptr_t)here - TC_RESERVE) & ~63ul);
    /* Down to about the guard: the kernel uses the sum of stack and size only. */
    host->stack = here - host->stack_size + GUARD;
    atomic_store(&host->ready, 1);
    tc_futex_wake(&host->ready);
    for (;;) {
        uint32_t word = atomic_load(&host->word);
        struct tc_task *task = NULL; /* not looked at before it is ours: whoever takes the host sets it */
        switch (word) {
        case TC_PARKED:
            if (tc_futex_wait(&host->word, word, &idle_limit) == -ETIMEDOUT && pool_remove(host)) return;
            continue;
        case TC_BUSY: /* taken, or a task in place runs on our TLS */
            /* A clean task in place parks us without a wake: so look now and then, or we would never be idle. */
            tc_futex_wait(&host->word, word, &idle_limit);
            continue;
        case TC_LENT:
            if (tc_futex_wait(&host->word, word, &idle_limit) != -ETIMEDOUT) continue;
            /* fall through */
        case TC_SETTLE: /* its body may have ended, and nobody have taken its zombie */
            if (!atomic_compare_exchange_strong(&host->word, &word, TC_BUSY)) continue;
            task = host->task;
            if (atomic_load(&task->alive) && atomic_load(&task->state) < TC_DONE) {
                word = TC_BUSY; /* or GONE by now */
                atomic_compare_exchange_strong(&host->word, &word, TC_LENT);
                continue;
            }
            tc_take_status(task);
            break;
        case TC_GONE: /* a lent task died, called execve, or failed in a step */
            atomic_store(&host->word, TC_BUSY);
            task = host->task;
            if (!atomic_load(&task->clean)) tc_recover(host, task);
            tc_take_status(task);
            break;
        case TC_QUIT:
            return;
        case TC_GO:
            atomic_store(&host->word, TC_BUSY);
            task = host->task;
            tc_run_hosted(host, task);
            break;
        case TC_RECOVER:
            atomic_store(&host->word, TC_BUSY);
            task = host->task;
            tc_recover(host, task);
            break;
        }
        int poisoned = !atomic_load(&task->clean);
        if (poisoned) atomic_fetch_add(&tc_counters.retired, 1), atomic_fetch_sub(&tc_counters.hosts, 1);
        /* Parked first and told afterwards, so that the next start finds it. From here on no libc, no TLS: a start in
         * place may run a task on it at once. */
        int parked = !poisoned && pool_put(host);
        if (word != TC_RECOVER)
            tc_task_publish(task, TC_ENDED);
        else
            atomic_store(&host->ready, 2), tc_futex_wake(&host->ready); /* the caller in place goes on */
        /* One that was killed before it came to the list of the finished will never be taken from there. */
        if (task->lent && !atomic_load(&task->finished)) tc_task_release(task);
        if (poisoned) tc_watchdog(host, task);
        tc_task_release(task);
        /* A host whose task died is never used again: the dead's locks know its ident. A raw exit keeps its stack
         * (waiters may be linked there) and its malloc arena from being handed to another thread. */
        if (poisoned) tc_exit_task(0);
        if (!parked) return;
    }
}

void *tc_give_up_rseq(uint32_t *size)
{
    if (!__rseq_size) return NULL;
    void *area = (char *)tc_thread_pointer() + __rseq_offset;
    /* The size must be the one that libc registered: 32 up to glibc 2.39, then what the kernel asks for. */
    unsigned long asked = (getauxval(27 /* AT_RSEQ_FEATURE_SIZE */) + 31) & ~31ul;
    const uint32_t sizes[] = {32, (uint32_t)asked};
    for (int i = 0; i < 2; i++)
        if (sizes[i] && TC_SYS(SYS_rseq, area, sizes[i], 1 /* UNREGISTER */, RSEQ_SIG) == 0) {
            *size = sizes[i];
            return area;
        }
    return NULL; /* tasks on this host run without, as libc does on old kernels */
}

static void *host_main(void *argument)
{
    struct tc_host *host = argument;
    host->tid = (pid_t)TC_SYS(SYS_gettid);
    host->tls = tc_thread_pointer();
    host->altstack_size = (getauxval(AT_MINSIGSTKSZ) + (8 << 10) + 4095) & ~4095ul;
    /* Above the child's stack: an overflow there ends in the guard page, not in here. */
    host->altstack = __builtin_alloca(host->altstack_size);
    void *sample = malloc(2000); /* too large for the thread cache */
    host->arena = tc_arena_of(sample);
    free(sample);
    uint32_t size = 0;
    host->rseq = tc_give_up_rseq(&size);
    host->rseq_size = size;
    host_loop(host);
    atomic_fetch_sub(&tc_counters.hosts, 1);
    spare(host);
    return NULL;
}

/* What a body may use of the stack is what was asked for, or the default of threads (RLIMIT_STACK). */
size_t tc_stack_bytes(size_t asked)
{
    pthread_attr_t attributes;
    if (!asked && !pthread_getattr_default_np(&attributes)) {
        pthread_attr_getstacksize(&attributes, &asked);
        pthread_attr_destroy(&attributes);
    }
    return (asked + GUARD + TC_RESERVE + 4095) & ~4095ul;
}

/* Born with all signals blocked but 33: glibc's own mask would leave 32 open. */
int tc_thread_new(void *(*body)(void *), void *argument, size_t stack_size)
{
    pthread_attr_t attributes;
    int err = pthread_attr_init(&attributes);
    if (err) return -err;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setguardsize(&attributes, GUARD);
    err = pthread_attr_setstacksize(&attributes, stack_size);
    uint64_t old;
    tc_block_signals(&old);
    pthread_t thread;
    if (!err) err = pthread_create(&thread, &attributes, body, argument);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &old, 0, sizeof old);
    pthread_attr_destroy(&attributes);
    return -err;
}

int tc_host_new(size_t stack_size, struct tc_host **made)
{
    struct tc_host *host = host_struct();
    if (!host) return -ENOMEM;
    host->pooled = stack_size == 0;
    host->stack_size = tc_stack_bytes(stack_size);
    atomic_store(&host->word, TC_BUSY);
    int err = tc_thread_new(host_main, host, host->stack_size);
    if (err) {
        spare(host);
        return err;
    }
    atomic_fetch_add(&tc_counters.hosts, 1);
    while (!atomic_load(&host->ready)) tc_futex_wait(&host->ready, 0, NULL);
    *made = host;
    return 0;
}

void tc_host_wake(struct tc_host *host, uint32_t word)
{
    atomic_store(&host->word, word);
    tc_futex_wake(&host->word);
}

void tc_host_give_back(struct tc_host *host)
{
    if (!pool_put(host)) tc_host_wake(host, TC_QUIT);
}

/* ---- taking and ending ---------------------------------------------------------------------------------------------
 */

int tc_host_take(size_t stack_size, struct tc_host **host)
{
    int in_task = tc_current_task() != NULL;
    if (!in_task) {
        int err = tc_keeper_ensure();
        if (err) return err;
    }
    *host = NULL;
    if (!stack_size) {
        tc_spin_lock(&pool_lock);
        if ((*host = pool)) {
            pool = pool->next;
            tc_counters.idle--;
            atomic_store(&(*host)->word, TC_BUSY);
        }
        tc_spin_unlock(&pool_lock);
    }
    if (*host) return 0;
    return in_task ? tc_keeper_make_host(stack_size, host) : tc_host_new(stack_size, host);
}

/* Until the kernel has forgotten the thread: os.fork() counts the threads of the process in /proc. */
static void await_end(pid_t tid)
{
    struct timespec pause = {0, 50000};
    for (int i = 0; i < 40000 && TC_SYS(SYS_tgkill, getpid(), tid, 0) != -ESRCH; i++)
        i < 100 ? TC_SYS(SYS_sched_yield) : TC_SYS(SYS_nanosleep, &pause, 0);
}

PyObject *tc_hosts_end(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    /* They are the creator's; and a thread with something of its own could not make the keeper anew. */
    if (tc_keep_hosts || tc_current_task() || tc_private) Py_RETURN_NONE;
    tc_settle_finished();
    pid_t gone[MAX_IDLE + 2];
    int n = 0;
    tc_spin_lock(&pool_lock);
    struct tc_host *idle = pool;
    pool = NULL;
    tc_counters.idle = 0;
    tc_spin_unlock(&pool_lock);
    for (struct tc_host *host = idle, *next; host; host = next) {
        next = host->next;
        gone[n++] = host->tid;
        tc_host_wake(host, TC_QUIT);
    }
    pid_t keeper = tc_keeper_quit();
    if (keeper) gone[n++] = keeper;
    pid_t watchdog = tc_watchdog_quit();
    if (watchdog) gone[n++] = watchdog;
    Py_BEGIN_ALLOW_THREADS;
    for (int i = 0; i < n; i++) await_end(gone[i]);
    Py_END_ALLOW_THREADS;
    tc_keeper_gone();
    Py_RETURN_NONE;
}

void tc_hosts_after_fork(void)
{
    /* None of our threads is here; what they held is nobody's. */
    pool = spares = NULL;
    atomic_store(&pool_lock, 0);
    tc_counters.hosts = tc_counters.idle = 0;
}
