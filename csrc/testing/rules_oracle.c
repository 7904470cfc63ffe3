/* rules_oracle [ID]: asks the running kernel which sets of flags it takes; the tests hold taskclone.rules against it.
 *
 * With ID it first becomes that user and group for good; exit status 3: it cannot (the id is not mapped here).
 *
 * Standard input, one question a line:   CALL FLAGS EXIT_SIGNAL [SITUATION]
 *     CALL       clone, clone3 or unshare          FLAGS, EXIT_SIGNAL   numbers as strtoull reads them
 *     SITUATION  what holds when the call is made (the default is "plain"):
 *         thread          the caller's thread group has a second thread
 *         vm, sighand     another process shares the caller's memory (sighand: and its signal handlers)
 *         unshared-pid, unshared-time     the caller has unshared that namespace before
 *         init            the caller is pid 1 of a PID namespace
 *         no-stack, no-stack_size, no-pidfd     clone3 with the size of a stack but no stack, and so on
 * Standard output: for each question the errno, 0 when the kernel took it, -1 when the situation could not be had.
 *
 * Conventions. The group of CLONE_INTO_CGROUP is a descriptor that is not open, so EBADF says that no rule about flags
 * stood against it (the kernel looks at the group last). EAGAIN, ENOMEM and ENOSPC are asked again for a while.
 *
 * A process that gets anything done (a namespace, a sibling, a thread) puts no further question, so that nothing of it
 * is there for the next. A new task never returns from the system call into C: it exits in the assembly that
 * made it and touches no stack, so sharing memory with the caller is harmless. All are reaped: this program is the
 * subreaper of whatever loses its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

enum { UNANSWERED = -1, NOT_OPEN = 1 << 20, PATIENCE = 200, PAUSE_US = 10000 };

struct question {
    char call[16];
    unsigned long long flags;
    unsigned long long exit_signal;
    char situation[32];
};

static struct question *questions;
static size_t count;

/* Shared with the processes that ask. */
static struct run {
    volatile size_t asking;
    volatile int answers[];
} *run;

static void fail(const char *what, int status)
{
    fprintf(stderr, "rules_oracle: %s: %s\n", what, strerror(errno));
    exit(status);
}

/* clone3's argument as of Linux 5.7; own, so that old headers will do. */
struct args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* Where the kernel may write; the stack is only named, never used. */
static int pidfd, parent_tid, child_tid;
static char stack[4096] __attribute__((aligned(64)));

/* What the new task does in place of returning. */
#if defined(__x86_64__)
#define EXIT_AT_ONCE "xor %%edi, %%edi\n\tmov %[leave], %%eax\n\tsyscall\n\t"
#define PARK                                                                                \
    "2: xor %%edi, %%edi\n\txor %%esi, %%esi\n\txor %%edx, %%edx\n\txor %%r10d, %%r10d\n\t" \
    "mov %[sleep], %%eax\n\tsyscall\n\tjmp 2b\n\t"
#define RAW(body)                                                             \
    register long r10 __asm__("r10") = d;                                     \
    register long r8 __asm__("r8") = e;                                       \
    long result;                                                              \
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\t" body "1:"   \
                     : "=a"(result)                                           \
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10),         \
                       "r"(r8), [leave] "i"(SYS_exit), [sleep] "i"(SYS_ppoll) \
                     : "rcx", "r11", "memory");                               \
    return result
#elif defined(__aarch64__)
#define EXIT_AT_ONCE "mov x0, #0\n\tmov x8, %[leave]\n\tsvc #0\n\t"
#define PARK "2: mov x0, #0\n\tmov x1, #0\n\tmov x2, #0\n\tmov x3, #0\n\tmov x8, %[sleep]\n\tsvc #0\n\tb 2b\n\t"
#define RAW(body)                                                                                                 \
    register long x8 __asm__("x8") = number;                                                                      \
    register long x0 __asm__("x0") = a;                                                                           \
    register long x1 __asm__("x1") = b;                                                                           \
    register long x2 __asm__("x2") = c;                                                                           \
    register long x3 __asm__("x3") = d;                                                                           \
    register long x4 __asm__("x4") = e;                                                                           \
    __asm__ volatile("svc #0\n\tcbnz x0, 1f\n\t" body "1:"                                                        \
                     : "+r"(x0)                                                                                   \
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), [leave] "i"(SYS_exit), [sleep] "i"(SYS_ppoll) \
                     : "memory");                                                                                 \
    return x0
#else
#error "no raw clone for this machine yet"
#endif

static long start_and_exit(long number, long a, long b, long c, long d, long e) { RAW(EXIT_AT_ONCE); }

static long start_and_park(long number, long a, long b, long c, long d, long e) { RAW(PARK); }

static long ask_clone3(const struct question *q)
{
    struct args args = {
        .flags = q->flags,
        .exit_signal = q->exit_signal,
        .pidfd = (uintptr_t)&pidfd,
        .parent_tid = (uintptr_t)&parent_tid,
        .child_tid = (uintptr_t)&child_tid,
        .cgroup = NOT_OPEN,
    };
    if (!strcmp(q->situation, "no-stack")) args.stack_size = sizeof stack;
    if (!strcmp(q->situation, "no-stack_size")) args.stack = (uintptr_t)stack;
    if (!strcmp(q->situation, "no-pidfd")) args.pidfd = 0;
    return start_and_exit(SYS_clone3, (long)&args, sizeof args, 0, 0, 0);
}

static long ask_clone(const struct question *q)
{
    /* clone(2) writes the pidfd where parent_tid points. */
    long parent = strcmp(q->situation, "no-pidfd") ? (long)&parent_tid : 0;
    long flags = (long)(q->flags | q->exit_signal);
#if defined(__x86_64__)
    return start_and_exit(SYS_clone, flags, 0, parent, (long)&child_tid, 0);
#else
    return start_and_exit(SYS_clone, flags, 0, parent, 0, (long)&child_tid);
#endif
}

static long ask_unshare(const struct question *q) { return syscall(SYS_unshare, (unsigned long)q->flags) ? -errno : 0; }

static long ask(const struct question *q)
{
    if (!strcmp(q->call, "clone3")) return ask_clone3(q);
    return !strcmp(q->call, "clone") ? ask_clone(q) : ask_unshare(q);
}

/* An ordinary user makes namespaces only inside a user namespace of his own. */
static int unshare_somehow(int flag)
{
    return syscall(SYS_unshare, flag) && syscall(SYS_unshare, flag | CLONE_NEWUSER);
}

/* Returns 0 when the situation holds; a parked sharer's pid is left in *sharer. */
static int prepare(const struct question *q, pid_t *sharer)
{
    const char *situation = q->situation;
    long flags = 0;

    if (!strcmp(situation, "unshared-pid")) return unshare_somehow(CLONE_NEWPID);
    if (!strcmp(situation, "unshared-time")) return unshare_somehow(CLONE_NEWTIME);
    if (!strcmp(situation, "thread"))
        flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
    else if (!strcmp(situation, "vm"))
        flags = CLONE_VM;
    else if (!strcmp(situation, "sighand"))
        flags = CLONE_VM | CLONE_SIGHAND;
    if (!flags) return 0;
    long started = start_and_park(SYS_clone, flags, 0, 0, 0, 0);
    if (started > 0 && !(flags & CLONE_THREAD)) *sharer = (pid_t)started; /* a thread goes with its group */
    return started < 0;
}

static void reap_all(void) { while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR); }

/* Puts one question; the answer goes to shared memory before anything can end the process. */
static void put(const struct question *q, volatile int *answer)
{
    pid_t sharer = 0;

    if (!strcmp(q->situation, "init")) {
        if (unshare_somehow(CLONE_NEWPID)) return;
        pid_t init = fork();
        if (init) {
            waitpid(init, NULL, __WALL);
            return;
        }
    }
    if (prepare(q, &sharer)) return;
    long result = ask(q);
    *answer = result < 0 ? (int)-result : 0;
    if (sharer) kill(sharer, SIGKILL);
    if (result >= 0 || sharer) reap_all();
}

/* Namespaces go away slowly. */
static int is_shortage(int number) { return number == EAGAIN || number == ENOMEM || number == ENOSPC; }

/* A process that puts questions from the one at run->asking on. It goes on after a refusal in a plain situation, which
 * leaves the caller as it was; anything else is its last. */
static void put_from_there(void)
{
    uint64_t all = UINT64_MAX; /* exit signals; libc's own function would leave out 32 and 33 */

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all);
    for (;;) {
        const struct question *q = questions + run->asking;
        volatile int *answer = run->answers + run->asking;

        put(q, answer);
        if (*answer <= 0 || is_shortage(*answer) || strcmp(q->situation, "plain")) return;
        if (run->asking + 1 == count) return;
        run->asking++;
    }
}

/* An exit signal that cannot be blocked hits the process that asked, perhaps before it has noted the answer: being hit
 * is the answer then. */
static void see_to_its_end(pid_t process)
{
    int status = 0;

    while (waitpid(process, &status, __WALL | WUNTRACED) == process && WIFSTOPPED(status)) kill(process, SIGCONT);
    volatile int *answer = run->answers + run->asking;
    if (*answer == UNANSWERED && WIFSIGNALED(status) && questions[run->asking].exit_signal == SIGKILL) *answer = 0;
    reap_all(); /* CLONE_PARENT makes its tasks children of this process */
}

static void answer_all(void)
{
    int patience = PATIENCE;

    while (run->asking < count) {
        run->answers[run->asking] = UNANSWERED;
        pid_t process = fork();
        if (process < 0) fail("fork", 1);
        if (process == 0) {
            put_from_there();
            _exit(0);
        }
        see_to_its_end(process);
        if (is_shortage(run->answers[run->asking]) && patience-- > 0)
            usleep(PAUSE_US);
        else
            run->asking++;
    }
}

static int read_question(const char *line, struct question *q)
{
    char flags[32], exit_signal[32];

    strcpy(q->situation, "plain");
    if (sscanf(line, "%15s %31s %31s %31s", q->call, flags, exit_signal, q->situation) < 3) return -1;
    if (strcmp(q->call, "clone") && strcmp(q->call, "clone3") && strcmp(q->call, "unshare")) return -1;
    q->flags = strtoull(flags, NULL, 0);
    q->exit_signal = strtoull(exit_signal, NULL, 0);
    return (q->exit_signal == SIGKILL || q->exit_signal == SIGSTOP) && strcmp(q->situation, "plain") ? -1 : 0;
}

static int become(unsigned id) { return setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id); }

static void read_questions(void)
{
    size_t room = 0;
    char line[128];

    for (; fgets(line, sizeof line, stdin); count++) {
        if (count == room) {
            room = room ? 2 * room : 1024;
            questions = realloc(questions, room * sizeof *questions);
            if (!questions) fail("realloc", 1);
        }
        if (read_question(line, questions + count)) {
            fprintf(stderr, "rules_oracle: not a question: %s", line);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && become((unsigned)strtoul(argv[1], NULL, 10))) fail("other ids", 3);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1)) fail("subreaper", 1);
    read_questions();
    run = mmap(NULL, sizeof *run + count * sizeof *run->answers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
               0);
    if (run == MAP_FAILED) fail("mmap", 1);
    for (size_t i = 0; i < count; i++) run->answers[i] = UNANSWERED;
    answer_all();
    for (size_t i = 0; i < count; i++) printf("%d\n", run->answers[i]);
    return 0;
}
