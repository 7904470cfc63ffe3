/* The status of a task that ended, and where it was learnt; waiting for a task that is the caller's own child. */
#ifndef TC_WAIT_H
#define TC_WAIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/resource.h>
#include <sys/types.h>

enum tc_source {
    TC_STATUS_NONE,  /* not ended yet */
    TC_STATUS_WAIT,  /* waitid: rusage too */
    TC_STATUS_PIDFD, /* reaped by somebody else, but the pidfd kept it (Linux 6.15) */
    TC_STATUS_LOST,  /* reaped by somebody else */
    TC_STATUS_PROC   /* a zombie of somebody else's: /proc says it */
};

struct tc_status {
    enum tc_source source;
    int code, value; /* si_code (CLD_*) and si_status */
    struct rusage usage;
};

/* waitid() on a pid or pidfd; raw, so that a host may call it. Fills status when it ended; 0, -ECHILD or another
 * -errno; 0 with status->source NONE: still running (WNOHANG). */
int tc_waitid(int idtype, int id, int options, struct tc_status *status);
/* PIDFD_GET_INFO (Linux 6.13) about nothing: 0, or -errno where the kernel does not have it. */
long tc_pidfd_ask(int pidfd);
/* What the pidfd still knows of a task that others have reaped; sets source PIDFD or LOST. Raw; waits a second at most
 * for one that is just being reaped. */
void tc_status_of_reaped(int pidfd, struct tc_status *status);
/* Of a task that another process is to wait for: nothing while it runs. Sets source PROC, PIDFD or LOST. Raw, too. */
void tc_status_of_sibling(pid_t pid, int pidfd, struct tc_status *status);
/* None, or (source, si_code, si_status, rusage as a tuple of 16 or None). */
PyObject *tc_status_tuple(const struct tc_status *status);

/* A deadline on CLOCK_MONOTONIC; `seconds` is None or a float >= 0. */
struct tc_deadline {
    int forever;
    struct timespec end;
};
int tc_deadline_from(PyObject *seconds, struct tc_deadline *deadline);
int tc_deadline_in(double seconds, struct tc_deadline *deadline);
/* Time left, at least zero; NULL for ever. */
const struct timespec *tc_deadline_left(const struct tc_deadline *deadline, struct timespec *left);

#endif
