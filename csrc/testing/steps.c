/* steps STEP [ARGUMENT...]: one step of core/child.h, without Python, to be looked at from outside.
 *
 * Prints lines of "key value" to what was standard output; "error N" is what the step returned. tests/core reads them.
 * Each step runs in this process, or, where it ends it, in a child.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "steps.h"
#include "sys.h"

FILE *out;
struct tc_report *report;
struct tc_signals *signals;
_Atomic uint32_t *bell;

struct tc_spec blank(void)
{
    return (struct tc_spec){.report = report, .parent_death = SIGKILL, .creator_pidfd = -1, .streams = {-1, -1, -1}};
}

void say(const char *key, long value) { fprintf(out, "%s %ld\n", key, value); }

void say_status(void)
{
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        for (const char **name = (const char *[]){"Name:", "SigBlk:", "SigIgn:", "SigCgt:", NULL}; *name; name++)
            if (!strncmp(line, *name, strlen(*name)))
                fprintf(out, "%.*s %s", (int)strlen(*name) - 1, *name, line + strlen(*name) + 1);
    if (status) fclose(status);
}

void say_report(void)
{
    int error;
    enum tc_step step = tc_report_failed(report, &error);
    fprintf(out, "step %s\n", tc_step_name(step));
    say("step_error", error);
    say("crashed", report->crashed);
    say("signal", report->signal);
    say("code", report->code);
    fprintf(out, "address %#lx\npc %#lx\n", (unsigned long)report->address, (unsigned long)report->pc);
}

void say_end(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) err(1, "waitpid");
    say("exited", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    say("killed", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
}

/* ---- programs --------------------------------------------------------------------------------------------------- */

static void step_chdir(char **argv)
{
    struct tc_spec spec = blank();
    char here[4096];
    spec.cwd = argv[0];
    say("error", tc_step_chdir(&spec));
    fprintf(out, "cwd %s\n", getcwd(here, sizeof here) ? here : "?");
}

static long inode(int fd)
{
    struct stat file;
    return fstat(fd, &file) ? 0 : (long)file.st_ino;
}

/* streams IN OUT ERR: which file each of 0, 1, 2 was and is, and its close-on-exec flag. */
static void step_streams(char **argv)
{
    struct tc_spec spec = blank();
    for (int i = 0; i < 3; i++) {
        spec.streams[i] = atoi(argv[i]);
        if (spec.streams[i] >= 0) fcntl(spec.streams[i], F_SETFD, FD_CLOEXEC);
        fprintf(out, "before%d %ld\n", i, inode(i));
    }
    say("error", tc_step_streams(&spec));
    for (int i = 0; i < 3; i++) fprintf(out, "fd%d %ld\ncloexec%d %d\n", i, inode(i), i, fcntl(i, F_GETFD));
}

/* close_fds [KEPT]: which of 0 to 9 and 300 are open afterwards, in a child; all of them were. */
static void step_close_fds(char **argv)
{
    static const int opened[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 300};
    struct tc_spec spec = blank();
    spec.close_fds = argv[0] != NULL;
    spec.kept_fd = argv[0] ? atoi(argv[0]) : 0;
    for (unsigned i = 3; i < sizeof opened / sizeof *opened; i++) dup2(0, opened[i]);
    pid_t child = fork();
    if (!child) {
        report->code = tc_step_close_fds(&spec);
        for (unsigned i = 0; i < sizeof opened / sizeof *opened; i++)
            if (fcntl(opened[i], F_GETFD) >= 0) report->address |= 1u << i;
        _exit(0);
    }
    say_end(child);
    say("error", report->code);
    for (unsigned i = 0; i < sizeof opened / sizeof *opened; i++)
        fprintf(out, "open%d %d\n", opened[i], (int)(report->address >> i & 1));
}

static void step_exec(char **argv)
{
    struct tc_spec spec = blank();
    char *arguments[] = {"the-name", "argument", NULL}, *environment[] = {"ONLY=this", NULL};
    spec.paths = (const char *const *)argv;
    spec.argv = arguments;
    spec.envp = environment;
    fflush(out);
    say("error", tc_step_exec(&spec));
}

/* The list for a program with a directory that is not there: the record names the step. */
static void run_steps(char **argv)
{
    struct tc_spec spec = blank();
    const char *const no_paths[] = {NULL};
    spec.cwd = argv[0];
    spec.creator = getppid();
    spec.paths = no_paths;
    say("error", tc_run_steps(&spec, tc_program_steps));
    say_report();
}

/* ---- a task of its own ----------------------------------------------------------------------------------------------
 */

static void step_name(char **argv)
{
    struct tc_spec spec = blank();
    spec.name = argv[0];
    say("error", tc_step_name_task(&spec));
    say_status();
}

/* glibc's own registration is given up first, as a host does. */
static void step_rseq(char **argv)
{
    (void)argv;
    struct tc_spec spec = blank();
    say("none", tc_step_rseq(&spec));
    char *area = (char *)tc_thread_pointer() + __rseq_offset;
    uint32_t size = 32;
    if (TC_SYS(SYS_rseq, area, size, 1, RSEQ_SIG)) {
        say("unavailable", 1);
        return;
    }
    spec.rseq = area;
    spec.rseq_size = size;
    say("error", tc_step_rseq(&spec));
    say("twice", tc_step_rseq(&spec));
}

/* A middle process starts the child and ends when the child has taken the step; the kernel then ends the child. */
static void step_parent_death(char **argv)
{
    (void)argv;
    int told[2], go[2], error;
    pid_t child = 0;
    if (pipe(told) || pipe(go) || prctl(PR_SET_CHILD_SUBREAPER, 1)) err(1, "parent_death");
    pid_t middle = fork();
    if (!middle) {
        pid_t creator = getpid();
        if (!fork()) {
            struct tc_spec spec = blank();
            spec.creator = creator;
            error = tc_step_parent_death(&spec);
            child = getpid();
            if (write(told[1], &error, sizeof error) < 0 || write(told[1], &child, sizeof child) < 0) _exit(1);
            for (;;) pause();
        }
        _exit(read(go[0], &error, 1) != 1);
    }
    if (read(told[0], &error, sizeof error) < 0 || read(told[0], &child, sizeof child) < 0) err(1, "read");
    say("error", error);
    if (write(go[1], "", 1) != 1) err(1, "write");
    waitpid(middle, NULL, 0);
    say_end(child);
}

static void step_parent_death_late(char **argv)
{
    (void)argv;
    pid_t child = fork();
    if (!child) {
        struct tc_spec spec = blank();
        spec.creator = getpid(); /* not the parent */
        spec.parent_death = 0;
        say("not_asked", tc_step_parent_death(&spec));
        spec.parent_death = SIGKILL;
        say("by_id", tc_step_parent_death(&spec));
        spec.creator_pidfd = (int)TC_SYS(SYS_pidfd_open, getppid(), 0);
        say("by_living_pidfd", tc_step_parent_death(&spec));
        pid_t dead = fork();
        if (!dead) _exit(0);
        spec.creator_pidfd = (int)TC_SYS(SYS_pidfd_open, dead, 0);
        waitpid(dead, NULL, 0);
        say("by_dead_pidfd", tc_step_parent_death(&spec));
        fflush(out);
        _exit(0);
    }
    say_end(child);
}

static void step_names(char **argv)
{
    (void)argv;
    for (int step = 0; step <= TC_STEP_COUNT; step++) fprintf(out, "%d %s\n", step, tc_step_name((enum tc_step)step));
}

/* A reader beside a writer: the record is whole or not there. */
static void report_atomic(char **argv)
{
    (void)argv;
    long torn = 0, seen = 0;
    pid_t writer = fork();
    if (!writer)
        for (int i = 1;; i = i % 100 + 1) tc_report_failure(report, (enum tc_step)i, i * 1000);
    while (seen < 1000000) {
        int error;
        enum tc_step step = tc_report_failed(report, &error);
        seen += step != TC_STEP_NONE;
        torn += error != (int)step * 1000;
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    say("torn", torn);
    say("seen", seen);
}

static const struct command commands[] = {
    {"chdir", step_chdir},
    {"streams", step_streams},
    {"close_fds", step_close_fds},
    {"exec", step_exec},
    {"run_steps", run_steps},
    {"name", step_name},
    {"rseq", step_rseq},
    {"parent_death", step_parent_death},
    {"parent_death_late", step_parent_death_late},
    {"step_names", step_names},
    {"report_atomic", report_atomic},
    {NULL, NULL},
};

static int run(const struct command *among, char **argv)
{
    for (const struct command *c = among; c->name; c++)
        if (!strcmp(c->name, argv[1])) {
            c->run(argv + 2);
            return 1;
        }
    return 0;
}

int main(int argc, char **argv)
{
    int fd = fcntl(1, F_DUPFD_CLOEXEC, 100);
    out = fd < 0 ? NULL : fdopen(fd, "w");
    report = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!out || report == MAP_FAILED) err(1, "steps");
    signals = (struct tc_signals *)(report + 1);
    bell = (_Atomic uint32_t *)(signals + 1);
    signals->report = report;
    signals->end_bell = bell;
    if (argc > 1 && (run(commands, argv) || run(signal_commands, argv))) return fflush(out) ? 1 : 0;
    errx(2, "usage: steps STEP [ARGUMENT...]");
}
