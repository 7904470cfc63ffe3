/* steps: those that have to do with signals, their handlers and their stack. */
#include "steps.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "sys.h"

static void step_default_signals(char **argv)
{
    (void)argv;
    struct tc_spec spec = blank();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    say("error", tc_step_default_signals(&spec));
    say_status();
}

/* signals IGNORED DEFAULTED, as masks: SIGUSR1 was handled, SIGUSR2 ignored. */
static void step_signals(char **argv)
{
    struct tc_spec spec = blank();
    signal(SIGUSR1, (void (*)(int))exit);
    signal(SIGUSR2, SIG_IGN);
    spec.ignored = strtoull(argv[0], NULL, 16);
    spec.defaulted = strtoull(argv[1], NULL, 16);
    say("error", tc_step_signals(&spec));
    say_status();
}

static void step_sigmask(char **argv)
{
    struct tc_spec spec = blank();
    spec.sigmask = strtoull(argv[0], NULL, 16);
    say("error", tc_step_sigmask(&spec));
    say_status();
}

static void block_signals(char **argv)
{
    (void)argv;
    uint64_t old = 1;
    tc_block_signals(&old);
    say("error", old ? -1 : 0);
    say_status();
}

static void step_altstack(char **argv)
{
    static char stack[64 << 10];
    struct tc_spec spec = blank();
    stack_t now;
    spec.altstack = stack;
    spec.altstack_size = argv[0] ? (size_t)atol(argv[0]) : sizeof stack;
    say("error", tc_step_altstack(&spec));
    sigaltstack(NULL, &now);
    say("size", (long)now.ss_size);
    say("same", now.ss_sp == stack);
}

static int overflow(int n)
{
    volatile char frame[4096];
    frame[0] = (char)n;
    return n ? overflow(n + 1) + frame[0] : 0;
}

/* fatal_handlers SIGNAL [HOW]: a child gets the handlers and the signal. HOW: "overflow", "core", an address to read.
 */
static void step_fatal_handlers(char **argv)
{
    static char stack[64 << 10];
    int number = atoi(argv[0]);
    const char *how = argv[1] ? argv[1] : "";
    pid_t child = fork();
    if (!child) {
        struct tc_spec spec = blank();
        prctl(PR_SET_DUMPABLE, 0);
        spec.altstack = stack;
        spec.altstack_size = sizeof stack;
        spec.kernel_core = !strcmp(how, "core");
        tc_current = signals;
        if (tc_step_altstack(&spec) || tc_step_fatal_handlers(&spec)) _exit(1);
        if (!strcmp(how, "overflow"))
            overflow(1);
        else if (!strncmp(how, "0x", 2))
            (void)*(volatile char *)strtoul(how, NULL, 16);
        else
            kill(getpid(), number);
        _exit(2);
    }
    say_end(child);
    say_report();
}

/* handlers SIGNAL [ignored]: what the signal then does. */
static void step_handlers(char **argv)
{
    int number = atoi(argv[0]);
    struct tc_spec spec = blank();
    if (argv[1]) signal(number, SIG_IGN);
    tc_current = signals;
    say("error", tc_step_handlers(&spec));
    kill(getpid(), number);
    say("alive", 1);
    say("asked_by", signals->end_requested);
    say("bell", *bell);
    say_status();
}

static void never(int sig) { (void)sig; }

/* clear_handlers [by_clone3]: of three signals one is handled, one ignored, one left. */
static void step_clear_handlers(char **argv)
{
    struct tc_spec spec = blank();
    if (!argv[0]) spec.emulated = CLONE_CLEAR_SIGHAND;
    signal(SIGUSR1, never);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGRTMAX, never);
    say("error", tc_step_clear_handlers(&spec));
    say_status();
}

static void step_handlers_with_sighand(char **argv)
{
    (void)argv;
    struct tc_spec spec = blank();
    spec.flags = CLONE_SIGHAND;
    say("error", tc_step_handlers(&spec) | tc_step_fatal_handlers(&spec));
    say_status();
}

const struct command signal_commands[] = {
    {"default_signals", step_default_signals},
    {"signals", step_signals},
    {"sigmask", step_sigmask},
    {"block_signals", block_signals},
    {"altstack", step_altstack},
    {"fatal_handlers", step_fatal_handlers},
    {"handlers", step_handlers},
    {"clear_handlers", step_clear_handlers},
    {"handlers_with_sighand", step_handlers_with_sighand},
    {NULL, NULL},
};
