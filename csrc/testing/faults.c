/* faults LIST: makes each system call that the steps of a list make fail in turn, and prints what the record says.
 *
 * A child takes the steps under a seccomp filter that reports every system call to this process (seccomp_unotify(2)),
 * which lets all of them pass but the n-th. One line a fault: number of the call, the step that made it, the step and
 * errno in the record. Nothing here knows which calls a step makes. Before them a line "step NAME" for each row.
 */
#include <err.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "idmap.h"
#include "sys.h"

enum { INJECTED = ENOTRECOVERABLE, MOST_STEPS = 32 };

static struct together {
    struct tc_report report;
    _Atomic int listener; /* the child's number of it, or minus an errno */
    _Atomic int armed;    /* its system calls are those of the steps */
    _Atomic int row;      /* the one that runs */
} *together;              /* in memory that both see */

static const struct tc_step_row *real;

/* Stands in each row of the list that is run, for the row's own function. */
static int run_row(const struct tc_spec *spec) { return real[atomic_fetch_add(&together->row, 1) + 1].run(spec); }

/* ---- the child -------------------------------------------------------------------------------------------------- */

static int report_every_call(void)
{
    struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)};
    struct sock_fprog program = {.len = 1, .filter = all};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -errno;
    return (int)TC_SYS(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* A spec in which every step has something to do. */
static struct tc_spec whole(const char *list)
{
    static char stack[64 << 10];
    static const char *const paths[] = {"/no/such/program", "/no/such/either", NULL};
    static char *arguments[] = {"x", NULL};
    static struct tc_mailbox written = {.answer = 1}; /* the creator was quick */
    static char uid_map[32], gid_map[32];
    char *area = (char *)tc_thread_pointer() + __rseq_offset;
    struct tc_spec spec = {
        .emulated = CLONE_CLEAR_SIGHAND,
        .sigmask = 1 << (SIGUSR2 - 1),
        .name = "faults",
        .report = &together->report,
        .parent_death = SIGKILL,
        .creator = getppid(),
        .creator_pidfd = -1,
        .own_sigmask = 1,
        .close_fds = 1,
        .kept_fd = 5,
        .ignored = 1 << (SIGUSR1 - 1),
        .defaulted = 1 << (SIGWINCH - 1),
        .cwd = "/",
        .no_new_privs = 1,
        .mailbox = &written,
        .streams = {1, 2, 0},
        .altstack = stack,
        .altstack_size = sizeof stack,
        .argv = arguments,
        .envp = arguments,
        .paths = paths,
    };
    /* glibc's own registration is given up first, as a host does. */
    if (!TC_SYS(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG)) spec.rseq = area, spec.rseq_size = 32;
    if (strstr(list, "_pidfd")) spec.creator_pidfd = (int)TC_SYS(SYS_pidfd_open, getppid(), 0);
    spec.uid_map_size = (size_t)snprintf(uid_map, sizeof uid_map, "0 %d 1", (int)geteuid());
    spec.gid_map_size = (size_t)snprintf(gid_map, sizeof gid_map, "0 %d 1", (int)getegid());
    if (!unshare(CLONE_NEWUSER)) spec.uid_map = uid_map, spec.gid_map = gid_map;
    /* What the creator ignores is put back, by one more call each. */
    static const int may_be_ignored[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGINT, SIGTSTP};
    for (unsigned i = 0; i < sizeof may_be_ignored / sizeof *may_be_ignored; i++) signal(may_be_ignored[i], SIG_IGN);
    return spec;
}

static _Noreturn void child(const char *list)
{
    static struct tc_step_row rows[MOST_STEPS];
    struct tc_spec spec = whole(list);
    unsigned i = 0;
    for (; real[i].run; i++) rows[i] = (struct tc_step_row){real[i].step, run_row};
    rows[i] = real[i];
    atomic_store(&together->listener, report_every_call());
    atomic_store(&together->armed, 1); /* plain memory: each system call is reported from here on */
    tc_run_steps(&spec, rows);
    atomic_store(&together->armed, 0);
    _exit(0);
}

/* ---- the supervisor --------------------------------------------------------------------------------------------- */

/* Lets every call of the child pass but the n-th of its steps. Returns the row that made it, or -1: there is none. */
static int supervise(int listener, int n)
{
    int calls = 0, row = -1;
    struct pollfd ready = {listener, POLLIN, 0};
    for (;;) {
        struct seccomp_notif call = {0};
        if (poll(&ready, 1, -1) < 0 && errno != EINTR) err(1, "poll");
        if (ready.revents & POLLHUP) return row; /* it has ended */
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call)) {
            if (errno == ENOENT || errno == EINTR) continue;
            err(1, "SECCOMP_IOCTL_NOTIF_RECV");
        }
        struct seccomp_notif_resp answer = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        if (atomic_load(&together->armed) && calls++ == n) {
            answer.flags = 0;
            answer.error = -INJECTED;
            row = atomic_load(&together->row);
        }
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) && errno != ENOENT) err(1, "SECCOMP_IOCTL_NOTIF_SEND");
    }
}

/* 1, or 0: the steps make no n-th call. */
static int fault(const char *list, int n)
{
    memset(together, 0, sizeof *together);
    atomic_store(&together->row, -1);
    pid_t pid = fork();
    if (!pid) child(list);
    int theirs;
    while (!(theirs = atomic_load(&together->listener)))
        if (waitpid(pid, NULL, WNOHANG)) errx(1, "the child ended before its steps");
    if (theirs < 0) errno = -theirs, err(1, "seccomp");
    int pidfd = (int)TC_SYS(SYS_pidfd_open, pid, 0), listener = (int)TC_SYS(SYS_pidfd_getfd, pidfd, theirs, 0);
    if (listener < 0) errno = -listener, err(1, "pidfd_getfd");
    int row = supervise(listener, n), error;
    close(listener);
    close(pidfd);
    waitpid(pid, NULL, 0);
    enum tc_step step = tc_report_failed(&together->report, &error);
    if (row >= 0) printf("%d %s %s %d\n", n, tc_step_name(real[row].step), tc_step_name(step), error);
    return row >= 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        const struct tc_step_row *rows;
    } lists[] = {{"copied", tc_copied_steps}, {"shared", tc_shared_steps}, {"program", tc_program_steps}};
    for (unsigned i = 0; argc == 2 && i < sizeof lists / sizeof *lists; i++)
        if (!strncmp(argv[1], lists[i].name, strlen(lists[i].name))) real = lists[i].rows;
    setvbuf(stdout, NULL, _IOLBF, 0); /* no line is a child's to write too: the thread sanitizer's _exit() does */
    if (!real) errx(2, "usage: faults copied|shared|program[_pidfd]");
    together = mmap(NULL, sizeof *together, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (together == MAP_FAILED) err(1, "mmap");
    for (const struct tc_step_row *row = real; row->run; row++) printf("step %s\n", tc_step_name(row->step));
    for (int n = 0; fault(argv[1], n); n++) {
    }
    return fflush(stdout) ? 1 : 0;
}
