/* One look at a task that shall end: stop it, see in which system call or at which address it is, and kill it only if
 * it can hold no lock of the interpreter or of malloc there; else let it go on.
 *
 * Without the interpreter lock from the stop to the end of the look: the stopped task may hold it. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "interp.h"
#include "sys.h"

/* Blocking calls in which a body waits for the world. An allow-list: a task that is stopped on its way *out* of mmap,
 * munmap, brk or madvise shows that number, and may be inside malloc with the arena locked. */
static int may_kill_in(long nr)
{
    /* clang-format off */
    switch (nr) {
    case SYS_read: case SYS_pread64: case SYS_readv: case SYS_preadv:
    case SYS_recvfrom: case SYS_recvmsg: case SYS_recvmmsg: case SYS_accept: case SYS_accept4: case SYS_connect:
    case SYS_ppoll: case SYS_pselect6: case SYS_epoll_pwait: case SYS_epoll_pwait2:
#ifdef SYS_poll
    case SYS_poll: case SYS_select: case SYS_epoll_wait: case SYS_pause:
#endif
    case SYS_nanosleep: case SYS_clock_nanosleep: case SYS_wait4: case SYS_waitid:
    case SYS_rt_sigtimedwait: case SYS_rt_sigsuspend:
        return 1;
    }
    /* clang-format on */
    return 0;
}

/* What /proc/PID/syscall says of a stopped task: nr -1 is "in user mode", -2 "cannot be told". */
struct place {
    long nr;
    unsigned long first, pc;
};

static void read_place(pid_t pid, struct place *place)
{
    char path[40], text[256];
    *place = (struct place){.nr = -2};
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return;
    text[n] = 0;
    unsigned long sp, rest;
    if (sscanf(text, "-1 %lx %lx", &sp, &place->pc) == 2)
        place->nr = -1;
    else if (sscanf(text, "%ld %lx %lx %lx %lx %lx %lx %lx %lx", &place->nr, &place->first, &rest, &rest, &rest, &rest,
                    &rest, &sp, &place->pc) != 9)
        place->nr = -2;
}

/* The letter of /proc/PID/stat, or 0: gone. */
static char state_of(pid_t pid)
{
    char path[40], text[128];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] ? name_end[2] : 0;
}

/* Waits until it is stopped. 0: it ended instead; -EBUSY: it does not stop (uninterruptible: in a vfork of its own). */
static int await_stop(pid_t pid)
{
    struct timespec pause = {0, 20000};
    for (int i = 0; i < 2500; i++) {
        struct tc_status status = {0};
        int err = tc_waitid(P_PID, pid, WSTOPPED | WEXITED | WNOWAIT | WNOHANG | __WALL, &status);
        if (err == -ECHILD) {
            /* Gone; or we are a task ourselves, and it is the creator's child. */
            char state = state_of(pid);
            if (state == 'T' || state == 't') return 1;
            if (!state || state == 'Z' || state == 'X') return 0;
        }
        if ((status.source && status.code != CLD_STOPPED && status.code != CLD_TRAPPED)) return 0;
        if (status.source) return 1;
        i < 50 ? TC_SYS(SYS_sched_yield) : TC_SYS(SYS_nanosleep, &pause, 0);
    }
    return -EBUSY;
}

static _Atomic uint32_t stop_lock; /* one victim at a time */
void tc_looks_after_fork(void) { atomic_store(&stop_lock, 0); }

enum verdict { GONE, KILLED, GO_ON, AT_FUTEX, AT_WRITE, IN_LOCK, UNSTOPPED };
static const char *const verdicts[] = {"gone", "killed", "go_on", "futex", "write", "lock", "unstopped"};

/* At a futex for so long that it is to be killed there. */
static enum verdict judge_parked(uintptr_t futex, uintptr_t low, uintptr_t high)
{
    uintptr_t address = tc_parked_for(futex);
    if (!address || (address >= low && address < high)) return IN_LOCK;
    return tc_unpark(futex) ? KILLED : GO_ON;
}

static enum verdict judge(const struct tc_task *task, const struct place *at, uintptr_t futex, int write_fd, int user)
{
    static uintptr_t low, high;
    if (!high && tc_runtime_range(&low, &high) < 0) low = 0, high = UINTPTR_MAX; /* unknown: never at a futex */
    if (at->nr == -2) return GO_ON;
    if (at->nr == -1) return user && !tc_in_libc(at->pc, 1) ? KILLED : GO_ON;
    if (may_kill_in(at->nr)) return KILLED;
    /* A stop turns every timed wait into restart_syscall, whose number says nothing; the argument registers stay. */
    if (at->nr == SYS_futex || at->nr == SYS_restart_syscall) {
        if ((at->first >= low && at->first < high) || tc_own_futex(at->first)) return IN_LOCK;
        if (!futex || at->first != futex) return AT_FUTEX;
        const struct tc_host *host = task->host;
        int on_stack = futex > (uintptr_t)host->stack + 64 && futex < (uintptr_t)host->top;
        return on_stack ? judge_parked(futex, low, high) : KILLED;
    }
    if (at->nr == SYS_write || at->nr == SYS_writev)
        return write_fd >= 0 && (int)at->first == write_fd ? KILLED : AT_WRITE;
    return GO_ON;
}

static enum verdict look(struct tc_task *task, uintptr_t futex, int write_fd, int user, struct place *place)
{
    pid_t pid = task->pid;
    *place = (struct place){.nr = -2};
    tc_spin_lock(&stop_lock);
    enum verdict verdict = GONE;
    long err = tc_task_signal(task, SIGSTOP);
    if (err && err != -ESRCH) verdict = UNSTOPPED; /* no descriptor to be had, say, in a task */
    if (!err) {
        int stopped = await_stop(pid);
        verdict = stopped < 0 ? UNSTOPPED : GONE;
        if (stopped > 0) {
            read_place(pid, place);
            verdict = judge(task, place, futex, write_fd, user);
        }
        if (verdict == KILLED) {
            atomic_store(&task->known_place, 1);
            atomic_store(&task->killed, 1);
        }
        /* It must not stay stopped: what stops it may want a descriptor, and get one in a moment. */
        while ((err = tc_task_signal(task, verdict == KILLED ? SIGKILL : SIGCONT)) && err != -ESRCH)
            TC_SYS(SYS_sched_yield);
    }
    tc_spin_unlock(&stop_lock);
    if (verdict == KILLED && place->nr == SYS_futex) {
        /* A wake that was meant for the dead must reach another waiter; a spare one is harmless. */
        struct tc_status status = {0};
        while (tc_waitid(P_PID, pid, WEXITED | WNOWAIT | __WALL, &status) == -EINTR) {
        }
        TC_SYS(SYS_futex, place->first, FUTEX_WAKE, INT32_MAX);
        TC_SYS(SYS_futex, place->first, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX);
    }
    return verdict;
}

PyObject *tc_look(struct tc_task *task, uintptr_t futex, int write_fd, int user)
{
    struct place place;
    enum verdict verdict;
    Py_BEGIN_ALLOW_THREADS;
    verdict = look(task, futex, write_fd, user, &place);
    Py_END_ALLOW_THREADS;
    return Py_BuildValue("(slkk)", verdicts[verdict], place.nr, place.first, place.pc);
}
