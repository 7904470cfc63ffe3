/* The tracer's process: how it is set up, and how it starts the program.
 *
 * A process, not a thread of the creator. ptrace and its waits belong to the thread that attached, so the loop needs
 * one of its own in any case; and in the creator each side would take what is the other's: its wait4(-1) the ends of
 * the creator's children, an os.wait() in any of the creator's threads our stops. On its own it can also be killed at
 * any time by anybody: the kernel then kills all that is traced (PTRACE_O_EXITKILL), so the creator bounds the time of
 * a trace from outside, and nothing outlives it, whatever state the loop is in.
 *
 * It was cloned out of a process with threads, so: system calls only, no malloc, no stdio, nothing of Python.
 */
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "loop.h"
#include "sys.h"

#define OPTIONS                                                                                                   \
    (PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | \
     PTRACE_O_TRACEEXEC)

volatile sig_atomic_t tp_end_asked;

/* The timer rings again and again: the first signal may come just before wait4, which would then sleep on. */
static void on_end_asked(int sig)
{
    (void)sig;
    static const struct itimerval soon = {{0, 10000}, {0, 10000}};
    if (!tp_end_asked) TC_SYS(SYS_setitimer, ITIMER_REAL, &soon, 0);
    tp_end_asked = 1;
}

int tp_pipe(int ends[2])
{
    int err = (int)TC_SYS(SYS_pipe2, ends, O_CLOEXEC);
    if (err) return err;
    for (int i = 0; i < 2; i++) ends[i] = tc_not_a_stream(ends[i]);
    if (ends[0] >= 0 && ends[1] >= 0) return 0;
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) TC_SYS(SYS_close, ends[i]);
    return ends[0] < 0 ? ends[0] : ends[1];
}

/* In the child that becomes the program: not before it is traced. */
static _Noreturn void become_program(struct tc_spec *spec, const int *gate)
{
    char go;
    close(gate[1]);
    if (TC_SYS(SYS_read, gate[0], &go, 1) == 1) tc_run_steps(spec, tc_program_steps);
    for (;;) TC_SYS(SYS_exit_group, 127);
}

/* Makes the program's process and attaches to it. The steps are named as the creator shows them. */
static void start_program(struct tp_tracer *t, struct tc_spec *spec)
{
    int gate[2], failed = tp_pipe(gate);
    if (failed) {
        tp_tell_failure(t, "pipe2", -failed);
        return;
    }
    spec->parent_death = SIGKILL; /* until it is traced; then EXITKILL sees to it, from a set-uid program too */
    spec->creator = getpid();
    spec->creator_pidfd = -1;
    long pid = TC_SYS(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (!pid) become_program(spec, gate);
    close(gate[0]);
    long err = pid < 0 ? pid : TC_SYS(SYS_ptrace, PTRACE_SEIZE, pid, 0, OPTIONS);
    if (err < 0) {
        tp_tell_failure(t, pid < 0 ? "fork" : "PTRACE_SEIZE", (int)-err);
        close(gate[1]); /* it ends */
        while (pid > 0 && TC_SYS(SYS_wait4, pid, 0, 0, 0) == -EINTR) {
        }
        return;
    }
    t->program = (pid_t)pid;
    struct tp_task *task = tp_put(&t->tasks, t->program, TP_LIVE);
    if (task) {
        task->born = 1;
        TC_SYS(SYS_write, gate[1], "", 1);
    } else
        tp_tell_failure(t, "mmap", ENOMEM);
    close(gate[1]); /* where nothing was written it ends */
}

/* The handlers; the signals stay blocked until the program is started, which must not run them. What the creator
 * ignores the program will ignore. */
static void set_up_signals(struct tc_spec *spec)
{
    static const int ours[] = {SIGCHLD, SIGTERM, SIGALRM}; /* where SIGCHLD is ignored there is nothing to wait for */
    for (unsigned i = 0; i < sizeof ours / sizeof *ours; i++) {
        struct sigaction action = {.sa_handler = ours[i] == SIGCHLD ? SIG_DFL : on_end_asked}, old;
        if (!sigaction(ours[i], &action, &old) && old.sa_handler == SIG_IGN) spec->ignored |= 1ull << (ours[i] - 1);
    }
}

static void unblock_signals(void)
{
    uint64_t all_but_two = ~(1ull << (SIGTERM - 1) | 1ull << (SIGALRM - 1));
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &all_but_two, 0, sizeof all_but_two);
}

/* The program's streams and the creator's other descriptors must not stay open for our sake. */
static void close_all_but(int fd)
{
    if (fd > 0) TC_SYS(SYS_close_range, 0, fd - 1, 0);
    TC_SYS(SYS_close_range, fd + 1, ~0u, 0);
}

_Noreturn void tp_trace(struct tc_spec *spec, pid_t creator, int fd)
{
    struct tp_tracer t = {.fd = fd};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != creator) TC_SYS(SYS_exit_group, 1);
    prctl(PR_SET_NAME, "taskclone-trace");
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans of the program are reaped here, not by a pid 1 that may never do it */
    set_up_signals(spec);
    t.report = mmap(NULL, sizeof *t.report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t.report == MAP_FAILED) {
        tp_tell_failure(&t, "mmap", errno);
    } else {
        spec->report = t.report;
        start_program(&t, spec);
        unblock_signals();
        close_all_but(fd);
        tp_loop(&t);
        while (TC_SYS(SYS_wait4, -1, 0, __WALL | WNOHANG, 0) > 0) {
        } /* orphans that were never traced */
    }
    for (;;) TC_SYS(SYS_exit_group, 0);
}
