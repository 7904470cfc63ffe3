/* The creator's side: everything is allocated here, then the tracer is made. */
#include "tracer.h"

#include <signal.h>
#include <unistd.h>

#include "child.h"
#include "error.h"
#include "cstrings.h"
#include "sys.h"

/* The tracer's id, or -errno of the system call that is named then. By the bare system call: it will make nothing but
 * system calls, so it needs none of the handlers and locks that libc's fork() deals with, which take time, and hang
 * after a death inside malloc. Without an exit signal: no os.wait() of the creator takes it. */
static long start(struct tc_spec *spec, int *pidfd, int *read_end, const char **call)
{
    *call = "pipe2";
    int ends[2], err = tp_pipe(ends);
    if (err) return err;
    *call = "clone";
    pid_t creator = getpid();
    tc_block_signals(&spec->sigmask); /* the interpreter's handlers must not run in the tracer */
    long pid = TC_SYS(SYS_clone, CLONE_PIDFD, 0, pidfd, 0, 0);
    if (!pid) tp_trace(spec, creator, ends[1]);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &spec->sigmask, 0, sizeof spec->sigmask);
    close(ends[1]);
    if (pid < 0) close(ends[0]);
    *read_end = ends[0];
    return pid;
}

PyObject *tp_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *argv, *environment;
    const char *path;
    struct tc_spec spec = {.close_fds = 1};
    if (!PyArg_ParseTuple(args, "yOO(iii):start", &path, &argv, &environment, &spec.streams[0], &spec.streams[1],
                          &spec.streams[2]))
        return NULL;
    const char *paths[] = {path, NULL}, **c_environment = NULL;
    const char **c_argv = tc_strings(argv, "argv must be a sequence of bytes");
    if (c_argv) c_environment = tc_strings(environment, "environment must be a sequence of bytes");
    PyObject *result = NULL;
    if (c_environment) {
        spec.paths = paths;
        spec.argv = (char *const *)c_argv;
        spec.envp = (char *const *)c_environment;
        int pidfd = -1, read_end = -1;
        long pid;
        const char *call;
        Py_BEGIN_ALLOW_THREADS;
        pid = start(&spec, &pidfd, &read_end, &call);
        Py_END_ALLOW_THREADS;
        result = pid < 0 ? tc_raise((int)-pid, call) : Py_BuildValue("(iii)", (int)pid, pidfd, read_end);
    }
    PyMem_Free(c_environment);
    PyMem_Free(c_argv);
    return result;
}
