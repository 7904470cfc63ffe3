/* The tracer: a process of its own that starts one program and follows all that it makes. tracer.c says why. */
#ifndef TP_TRACER_H
#define TP_TRACER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/types.h>

struct tc_spec;

/* A pipe whose ends are 3 or more and closed by execve: the streams of the program are set up below. 0 or -errno; raw
 * system calls. */
int tp_pipe(int ends[2]);

/* Never returns: traces the program of `spec` until the last task has ended, and writes records to `fd`. Every signal
 * is blocked at the call; the program gets the mask of the spec. */
_Noreturn void tp_trace(struct tc_spec *spec, pid_t creator, int fd);

/* start(path, argv, environment, (stdin, stdout, stderr)) -> (pid, pidfd, read end of the pipe), of the tracer.
 * It dies with the thread that has called this. */
PyObject *tp_start(PyObject *module, PyObject *args);

#endif
