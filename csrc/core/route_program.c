/* A program: CLONE_VM|CLONE_VFORK, the child setup in C, execve. The calling thread sleeps in the kernel until then, so
 * the child may use its thread-local storage; it does not. */
#include "route_program.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "error.h"
#include "fallback.h"
#include "spec.h"
#include "sys.h"
#include "wait.h"

enum { STACK = 64 << 10 };

static void run_program(void *argument)
{
    tc_run_steps(argument, tc_program_steps);
    tc_exit_task(127); /* a step failed; the report says which */
}

/* The task, or a failed step in the report. */
static void clone_child(struct tc_spec *spec, pid_t *pid, int *pidfd)
{
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        tc_report_failure(spec->report, TC_STEP_STACK, errno);
        return;
    }
    struct clone_args args;
    tc_clone_args(spec, &args, pidfd, pid);
    args.tls = (uint64_t)(uintptr_t)tc_thread_pointer(); /* for who names SETTLS: what it has in any case */
    args.child_tid = (uint64_t)(uintptr_t)&spec->child_tid;
    args.stack = (uint64_t)(uintptr_t)stack;
    args.stack_size = STACK;
    /* A handler of the creator must not run in the child, whose memory is the creator's. */
    uint64_t mask;
    tc_block_signals(&mask);
    if (!spec->own_sigmask) spec->sigmask = mask;
    long tid = tc_start(spec, &args, run_program, spec);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    if (tid < 0) tc_report_failure(spec->report, tc_start_step(spec), (int)-tid);
    munmap(stack, STACK);
    int err;
    if (!tc_report_failed(spec->report, &err)) return;
    if (tid > 0) {
        struct tc_status gone = {0};
        while (tc_waitid(P_PIDFD, *pidfd, WEXITED | __WALL, &gone) == -EINTR) {
        }
        close(*pidfd);
    }
}

static void start(struct tc_spec *spec, pid_t *pid, int *pidfd)
{
    spec->creator = getpid();
    spec->creator_pidfd = -1;
    if (spec->flags & (CLONE_NEWPID | CLONE_PARENT) && (spec->parent_death || spec->mailbox)) {
        spec->creator_pidfd = tc_not_a_stream((int)TC_SYS(SYS_pidfd_open, spec->creator, 0));
        if (spec->creator_pidfd < 0) {
            tc_report_failure(spec->report, TC_STEP_PIDFD, -spec->creator_pidfd);
            return;
        }
    }
    clone_child(spec, pid, pidfd);
    if (spec->creator_pidfd >= 0) close(spec->creator_pidfd);
}

PyObject *tc_program_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *type, *paths, *argv, *environment, *setup;
    struct tc_report report = {0};
    struct tc_spec spec = {.report = &report};
    unsigned long long flags;
    int exit_signal, daemon;
    if (!PyArg_ParseTuple(args, "O!pOOOOKi:program_start", &PyType_Type, &type, &daemon, &paths, &argv, &environment,
                          &setup, &flags, &exit_signal) ||
        tc_setup_from(setup, &spec) < 0)
        return NULL;
    spec.flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_PARENT_SETTID;
    if (!(flags & CLONE_SIGHAND)) spec.flags |= CLONE_CLEAR_SIGHAND;
    spec.exit_signal = (uint64_t)exit_signal;

    if (!PyType_IsSubtype((PyTypeObject *)type, tc_child_type))
        return PyErr_Format(PyExc_TypeError, "program_start() needs a type derived from Child");
    PyObject *self = tc_child_new((PyTypeObject *)type, daemon);
    if (!self) return NULL;
    int failed = 1;
    const char **c_argv = NULL, **c_environment = NULL;
    const char **c_paths = tc_strings(paths, "paths must be a sequence of bytes");
    if (c_paths) c_argv = tc_strings(argv, "argv must be a sequence of bytes");
    if (c_argv) c_environment = tc_strings(environment, "environment must be a sequence of bytes");
    if (c_environment) {
        spec.paths = c_paths;
        spec.argv = (char *const *)c_argv;
        spec.envp = (char *const *)c_environment;
        pid_t pid = 0;
        int pidfd = -1, err;
        Py_BEGIN_ALLOW_THREADS;
        start(&spec, &pid, &pidfd);
        Py_END_ALLOW_THREADS;
        enum tc_step step = tc_report_failed(&report, &err);
        if (step)
            tc_raise_step(step, err);
        else {
            struct tc_child *child = (struct tc_child *)self;
            child->replaced = spec.emulated;
            child->sibling = (flags & CLONE_PARENT) != 0;
            if (flags & CLONE_AUTOREAP) child->exit_signal = 0; /* after execve, too */
            tc_child_started(child, pid, pidfd, spec.flags);
            failed = 0;
        }
    }
    PyMem_Free(c_environment);
    PyMem_Free(c_argv);
    PyMem_Free(c_paths);
    if (failed) Py_CLEAR(self);
    return self;
}
