/* The only C that runs in a child before its body, with rawfork.c.
 *
 * Contract: the child may run on the thread-local storage of a suspended thread, in memory that it shares with its
 * creator, with every signal blocked. So: raw system calls only, no errno, no malloc, no stdio, nothing of Python.
 * `nm -u` of this file's object is held against a list of allowed names by a test.
 * Each step returns 0 or -errno and reads nothing but the spec.
 */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/rseq.h>

#include "idmap.h"
#include "sys.h"

__thread struct tc_signals *tc_current;

static int set_action(int sig, void (*handler)(int, siginfo_t *, void *), unsigned long flags, struct tc_sigaction *old)
{
    struct tc_sigaction action = {handler, flags | TC_SA_RESTORER, tc_sigreturn, 0};
    return (int)TC_SYS(SYS_rt_sigaction, sig, &action, old, sizeof action.mask);
}

_Noreturn void tc_exit_task(int code)
{
    /* `exit`, not exit_group: other threads of this task may hold the interpreter lock, or wait for it. */
    for (;;) TC_SYS(SYS_exit, code);
}

void tc_block_signals(uint64_t *old)
{
    uint64_t all = ~0ull & ~(1ull << (33 - 1));
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &all, old, sizeof all);
}

/* ---- signals that would end the task ---------------------------------------------------------------------------- */

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGFPE,  SIGILL,  SIGABRT,
                                    SIGTRAP, SIGSYS, SIGQUIT, SIGXCPU, SIGXFSZ};

/* Each thread of a process is a folder in its task folder, and each folder a link to that. 0 where it is not to be
 * seen: no /proc, or one of another PID namespace. */
static uint32_t count_threads(void)
{
    struct statx found;
    long err = TC_SYS(SYS_statx, AT_FDCWD, (uintptr_t)"/proc/self/task", 0, STATX_NLINK, (uintptr_t)&found);
    return err || found.stx_nlink < 2 ? 0 : found.stx_nlink - 2;
}

/* Writes the true signal to shared memory, then dies by one that never dumps core: before Linux 5.16 a signal that
 * dumps ends every process that shares the memory, and later it would dump the creator's whole heap. */
static void on_fatal(int sig, siginfo_t *info, void *context)
{
    if (sig == SIGQUIT && info->si_code == SI_KERNEL) return; /* the terminal talks to the creator */
    struct tc_signals *signals = tc_current;
    if (signals) {
        uint32_t threads = count_threads();
        signals->report->threads = threads ? threads - 1 : 0;
        tc_report_crash(signals->report, sig, info->si_code, (uint64_t)(uintptr_t)info->si_addr,
                        tc_context_pc(context));
    }
    long self = TC_SYS(SYS_getpid);
    TC_SYS(SYS_kill, self, SIGKILL);
    /* Init of a pid namespace is deaf to its own SIGKILL. */
    for (;;) TC_SYS(SYS_exit_group, 128 + sig);
}

int tc_step_altstack(const struct tc_spec *spec)
{
    /* A child with CLONE_VM and without VFORK starts with none. */
    stack_t stack = {.ss_sp = spec->altstack, .ss_size = spec->altstack_size};
    return (int)TC_SYS(SYS_sigaltstack, &stack, 0);
}

int tc_step_fatal_handlers(const struct tc_spec *spec)
{
    if (spec->kernel_core || (spec->flags & CLONE_SIGHAND)) return 0;
    for (unsigned i = 0; i < sizeof fatal_signals / sizeof *fatal_signals; i++) {
        int err = set_action(fatal_signals[i], on_fatal, SA_SIGINFO | SA_ONSTACK, NULL);
        if (err) return err;
    }
    return 0;
}

/* ---- the other signals ------------------------------------------------------------------------------------------ */

static void on_nothing(int sig, siginfo_t *info, void *context) { (void)sig, (void)info, (void)context; }

static void on_end_request(int sig, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    struct tc_signals *signals = tc_current;
    if (!signals) return; /* a thread that a C library started */
    atomic_store(&signals->end_requested, (uint32_t)sig);
    atomic_fetch_add(signals->end_bell, 1);
    tc_futex_wake(signals->end_bell);
}

/* CLONE_CLEAR_SIGHAND, or the step in its place, has reset what the creator handles; what it ignores stays ignored. */
static int unless_ignored(int sig, void (*handler)(int, siginfo_t *, void *), unsigned long flags)
{
    struct tc_sigaction old;
    int err = set_action(sig, handler, flags, &old);
    if (!err && old.handler == (void (*)(int, siginfo_t *, void *))SIG_IGN) err = set_action(sig, old.handler, 0, NULL);
    return err;
}

static const int polite[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM};
/* Not SIG_IGN for these two: a program started in the task would inherit that. */
static const int terminal[] = {SIGINT, SIGTSTP};

static void reset(const int *signals, unsigned count)
{
    struct tc_sigaction now;
    for (unsigned i = 0; i < count; i++) {
        if (TC_SYS(SYS_rt_sigaction, signals[i], 0, &now, sizeof now.mask)) continue;
        if (now.handler == on_fatal || now.handler == on_end_request || now.handler == on_nothing)
            set_action(signals[i], (void (*)(int, siginfo_t *, void *))SIG_DFL, 0, NULL);
    }
}

void tc_reset_handlers(void)
{
    reset(fatal_signals, sizeof fatal_signals / sizeof *fatal_signals);
    reset(polite, sizeof polite / sizeof *polite);
    reset(terminal, sizeof terminal / sizeof *terminal);
}

int tc_step_handlers(const struct tc_spec *spec)
{
    static const int background[] = {SIGTTIN, SIGTTOU};
    if (spec->flags & CLONE_SIGHAND) return 0; /* they are the creator's own */
    int err = 0;
    for (unsigned i = 0; !err && i < sizeof polite / sizeof *polite; i++)
        err = unless_ignored(polite[i], on_end_request, SA_SIGINFO | SA_ONSTACK | SA_RESTART);
    for (unsigned i = 0; !err && i < sizeof terminal / sizeof *terminal; i++)
        err = unless_ignored(terminal[i], on_nothing, SA_SIGINFO | SA_ONSTACK | SA_RESTART);
    for (unsigned i = 0; !err && i < sizeof background / sizeof *background; i++)
        err = set_action(background[i], (void (*)(int, siginfo_t *, void *))SIG_IGN, 0, NULL);
    return err;
}

int tc_step_default_signals(const struct tc_spec *spec)
{
    (void)spec;
    /* The interpreter ignores these two, and execve keeps what is ignored. */
    int err = set_action(SIGPIPE, (void (*)(int, siginfo_t *, void *))SIG_DFL, 0, NULL);
    return err ? err : set_action(SIGXFSZ, (void (*)(int, siginfo_t *, void *))SIG_DFL, 0, NULL);
}

int tc_step_clear_handlers(const struct tc_spec *spec)
{
    int err = 0;
    if (!(spec->emulated & CLONE_CLEAR_SIGHAND)) return 0;
    for (int sig = 1; !err && sig <= 64; sig++) {
        struct tc_sigaction now;
        err = (int)TC_SYS(SYS_rt_sigaction, sig, 0, &now, sizeof now.mask);
        if (!err && now.handler != (void (*)(int, siginfo_t *, void *))SIG_IGN &&
            now.handler != (void (*)(int, siginfo_t *, void *))SIG_DFL)
            err = set_action(sig, (void (*)(int, siginfo_t *, void *))SIG_DFL, 0, NULL);
    }
    return err;
}

int tc_step_signals(const struct tc_spec *spec)
{
    /* Python's own numbers are not needed: the handler is one of two constants. */
    int err = 0;
    for (int sig = 1; !err && sig <= 64; sig++) {
        uint64_t bit = 1ull << (sig - 1);
        if ((spec->ignored | spec->defaulted) & bit)
            err =
                set_action(sig, (void (*)(int, siginfo_t *, void *))(spec->ignored & bit ? SIG_IGN : SIG_DFL), 0, NULL);
    }
    return err;
}

int tc_step_sigmask(const struct tc_spec *spec)
{
    return (int)TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &spec->sigmask, 0, sizeof spec->sigmask);
}

/* ---- what makes the child a task of its own --------------------------------------------------------------------- */

int tc_step_rseq(const struct tc_spec *spec)
{
    /* The host has given its registration up for good, so that its task may have the area. */
    if (!spec->rseq) return 0;
    return (int)TC_SYS(SYS_rseq, spec->rseq, spec->rseq_size, 0, RSEQ_SIG);
}

int tc_creator_gone(const struct tc_spec *spec)
{
    if (spec->creator_pidfd < 0) {
        long parent = TC_SYS(SYS_getppid); /* 0: it is in an outer PID namespace, be it dead or alive */
        return parent && parent != spec->creator;
    }
    struct pollfd creator = {spec->creator_pidfd, POLLIN, 0};
    struct timespec now = {0, 0};
    return (int)TC_SYS(SYS_ppoll, &creator, 1, &now, 0, 0);
}

int tc_step_no_new_privs(const struct tc_spec *spec)
{
    return spec->no_new_privs ? (int)TC_SYS(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) : 0;
}

int tc_step_parent_death(const struct tc_spec *spec)
{
    if (!spec->parent_death) return 0;
    int err = (int)TC_SYS(SYS_prctl, PR_SET_PDEATHSIG, spec->parent_death);
    if (err) return err;
    /* The creator may have ended before the line above; then no signal comes. */
    int gone = tc_creator_gone(spec);
    return gone > 0 ? -ESRCH : gone;
}

int tc_step_name_task(const struct tc_spec *spec)
{
    return spec->name ? (int)TC_SYS(SYS_prctl, PR_SET_NAME, spec->name) : 0;
}

/* ---- its directory and descriptors ------------------------------------------------------------------------------ */

int tc_step_chdir(const struct tc_spec *spec) { return spec->cwd ? (int)TC_SYS(SYS_chdir, spec->cwd) : 0; }

int tc_step_streams(const struct tc_spec *spec)
{
    int fds[3];
    /* First out of the way whatever lies in 0..2 but is wanted elsewhere: a later dup would overwrite it. */
    for (int i = 0; i < 3; i++) {
        fds[i] = spec->streams[i];
        if (fds[i] >= 0 && fds[i] < 3 && fds[i] != i) {
            long fd = TC_SYS(SYS_fcntl, fds[i], F_DUPFD_CLOEXEC, 3);
            if (fd < 0) return (int)fd;
            fds[i] = (int)fd;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (fds[i] < 0) continue;
        /* dup3 refuses equal numbers, and dup2 leaves close-on-exec set on them. */
        long err = fds[i] == i ? TC_SYS(SYS_fcntl, i, F_SETFD, 0) : TC_SYS(SYS_dup3, fds[i], i, 0);
        if (err < 0) return (int)err;
    }
    return 0;
}

int tc_step_close_fds(const struct tc_spec *spec)
{
    if (!spec->close_fds) return 0;
    unsigned first = 3, kept = spec->kept_fd < 3 ? 2 : (unsigned)spec->kept_fd;
    if (kept > first) {
        int err = (int)TC_SYS(SYS_close_range, first, kept - 1, 0);
        if (err) return err;
    }
    return (int)TC_SYS(SYS_close_range, kept + 1, ~0u, 0);
}

/* ---- programs --------------------------------------------------------------------------------------------------- */

int tc_step_exec(const struct tc_spec *spec)
{
    int err = -ENOENT;
    for (const char *const *path = spec->paths; *path; path++) {
        int now = (int)TC_SYS(SYS_execve, *path, spec->argv, spec->envp);
        /* As execvp(3): go on along PATH, and say EACCES rather than ENOENT when one candidate gave it. */
        if (now != -ENOENT && now != -ENOTDIR && now != -EACCES) return now;
        if (err != -EACCES) err = now;
    }
    return err;
}

/* ---- the lists --------------------------------------------------------------------------------------------------
 * Their order: what changes ids stands before PARENT_DEATH, which the kernel forgets at a change of credentials.
 * SIGMASK is last, so that no signal that was blocked for the start is handled half-way; exec keeps the mask.
 */

#define TC_ID_STEPS                                                                                                 \
    {TC_STEP_SETGROUPS, tc_step_setgroups}, {TC_STEP_UID_MAP, tc_step_uid_map}, {TC_STEP_GID_MAP, tc_step_gid_map}, \
        {TC_STEP_ID_MAPS, tc_step_id_maps},                                                                         \
    {                                                                                                               \
        TC_STEP_NO_NEW_PRIVS, tc_step_no_new_privs                                                                  \
    }

const struct tc_step_row tc_copied_steps[] = {
    {TC_STEP_CLEAR_HANDLERS, tc_step_clear_handlers},
    TC_ID_STEPS,
    {TC_STEP_PARENT_DEATH, tc_step_parent_death},
    {TC_STEP_NAME, tc_step_name_task},
    {TC_STEP_SIGNALS, tc_step_signals},
    {TC_STEP_CHDIR, tc_step_chdir},
    {TC_STEP_STREAMS, tc_step_streams},
    {TC_STEP_CLOSE_FDS, tc_step_close_fds},
    {TC_STEP_SIGMASK, tc_step_sigmask},
    {TC_STEP_NONE, NULL},
};

const struct tc_step_row tc_shared_steps[] = {
    {TC_STEP_CLEAR_HANDLERS, tc_step_clear_handlers},
    {TC_STEP_RSEQ, tc_step_rseq},
    TC_ID_STEPS,
    {TC_STEP_PARENT_DEATH, tc_step_parent_death},
    {TC_STEP_NAME, tc_step_name_task},
    {TC_STEP_ALTSTACK, tc_step_altstack},
    {TC_STEP_FATAL_HANDLERS, tc_step_fatal_handlers},
    {TC_STEP_HANDLERS, tc_step_handlers},
    {TC_STEP_SIGNALS, tc_step_signals},
    {TC_STEP_CHDIR, tc_step_chdir},
    {TC_STEP_STREAMS, tc_step_streams},
    {TC_STEP_SIGMASK, tc_step_sigmask},
    {TC_STEP_NONE, NULL},
};

const struct tc_step_row tc_program_steps[] = {
    {TC_STEP_CLEAR_HANDLERS, tc_step_clear_handlers},
    TC_ID_STEPS,
    {TC_STEP_PARENT_DEATH, tc_step_parent_death},
    {TC_STEP_DEFAULT_SIGNALS, tc_step_default_signals},
    {TC_STEP_SIGNALS, tc_step_signals},
    {TC_STEP_CHDIR, tc_step_chdir},
    {TC_STEP_STREAMS, tc_step_streams},
    {TC_STEP_CLOSE_FDS, tc_step_close_fds},
    {TC_STEP_SIGMASK, tc_step_sigmask},
    {TC_STEP_EXEC, tc_step_exec},
    {TC_STEP_NONE, NULL},
};

int tc_run_steps(const struct tc_spec *spec, const struct tc_step_row *rows)
{
    for (; rows->run; rows++) {
        int err = rows->run(spec);
        if (err) {
            tc_report_failure(spec->report, rows->step, -err);
            return err;
        }
    }
    return 0;
}
