#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>

#include "error.h"
#include "sys.h"

/* ---- status ----------------------------------------------------------------------------------------------------- */

int tc_waitid(int idtype, int id, int options, struct tc_status *status)
{
    siginfo_t info;
    info.si_pid = 0; /* stays 0 with WNOHANG and nothing to tell */
    long err = TC_SYS(SYS_waitid, idtype, id, &info, options, &status->usage);
    if (err) return (int)err;
    if (info.si_pid) {
        status->code = info.si_code;
        status->value = info.si_status;
        status->source = TC_STATUS_WAIT;
    }
    return 0;
}

/* First published form of struct pidfd_info (linux/pidfd.h): later ones are longer, and no field of theirs is read. */
struct tc_pidfd_info {
    uint64_t mask, cgroupid;
    uint32_t ids[11];
    int32_t exit_code;
};
#define TC_PIDFD_GET_INFO _IOWR(0xFF, 11, struct tc_pidfd_info)
#define TC_PIDFD_INFO_EXIT 8ull

long tc_pidfd_ask(int pidfd) { return TC_SYS(SYS_ioctl, pidfd, TC_PIDFD_GET_INFO, &(struct tc_pidfd_info){0}); }

/* Between the moment from which nobody can wait for a task any more and the one in which its pidfd has the status, the
 * answer is one without it; whoever reaps may lose the processor there. Then ESRCH, from a kernel that keeps the status
 * to one that asked a moment too early, from 6.13 and 6.14 for ever. */
static int ask_until_kept(int pidfd, struct tc_pidfd_info *info)
{
    static const struct timespec pause = {0, 100000};
    for (int i = 0, gone = 0; i < 10000; i++) {
        *info = (struct tc_pidfd_info){.mask = TC_PIDFD_INFO_EXIT};
        long err = TC_SYS(SYS_ioctl, pidfd, TC_PIDFD_GET_INFO, info);
        if (err == -ESRCH && gone++ < 3) continue;
        if (err < 0) return 0; /* absent: ENOTTY before 6.13, EINVAL on some */
        if (info->mask & TC_PIDFD_INFO_EXIT) return 1;
        i < 50 ? TC_SYS(SYS_sched_yield) : TC_SYS(SYS_nanosleep, &pause, 0);
    }
    return 0;
}

static void set_status(struct tc_status *status, int source, int wait_status)
{
    status->source = source;
    status->code = WIFEXITED(wait_status) ? CLD_EXITED : WCOREDUMP(wait_status) ? CLD_DUMPED : CLD_KILLED;
    status->value = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status);
}

void tc_status_of_reaped(int pidfd, struct tc_status *status)
{
    struct tc_pidfd_info info;
    status->source = TC_STATUS_LOST;
    if (pidfd < 0 || !ask_until_kept(pidfd, &info)) return;
    set_status(status, TC_STATUS_PIDFD, info.exit_code);
}

/* exit_code of /proc/PID/stat, for a zombie; -1: none is told to us; BEING_REAPED: its parent has taken it just now. */
enum { BEING_REAPED = -2 };
static int wait_status_of_zombie(pid_t pid)
{
    char path[32], text[1024], user[32];
    /* The kernel says 0 to who may not look, as he may not here. */
    PyOS_snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    if (TC_SYS(SYS_readlinkat, AT_FDCWD, path, user, sizeof user) < 0) return -1;
    PyOS_snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = (int)TC_SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    long n = TC_SYS(SYS_read, fd, text, sizeof text - 1);
    TC_SYS(SYS_close, fd);
    if (n <= 0) return -1;
    text[n] = 0;
    const char *field = strrchr(text, ')'); /* the name may hold anything */
    if (!field || field[1] != ' ') return -1;
    if (field[2] != 'Z') return BEING_REAPED; /* X: it has ended, for who asks here */
    for (int i = 2; field && i < 52; i++) field = strchr(field + 1, ' ');
    return field ? atoi(field + 1) : -1;
}

void tc_status_of_sibling(pid_t pid, int pidfd, struct tc_status *status)
{
    struct pollfd ended = {pidfd, POLLIN, 0};
    struct timespec now = {0, 0};
    if (TC_SYS(SYS_ppoll, &ended, 1, &now, 0, 0) != 1) return;
    int wait_status = wait_status_of_zombie(pid);
    /* Still there, so the number was its own. */
    int is_there = TC_SYS(SYS_pidfd_send_signal, pidfd, 0, 0, 0) == 0;
    if (is_there && wait_status >= 0)
        set_status(status, TC_STATUS_PROC, wait_status);
    else if (is_there && wait_status != BEING_REAPED)
        status->source = TC_STATUS_LOST; /* a zombie of which /proc does not tell, and its pidfd not yet */
    else
        tc_status_of_reaped(pidfd, status);
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

PyObject *tc_status_tuple(const struct tc_status *s)
{
    if (s->source == TC_STATUS_NONE) Py_RETURN_NONE;
    const struct rusage *u = &s->usage;
    PyObject *usage = s->source != TC_STATUS_WAIT
                          ? Py_NewRef(Py_None)
                          : Py_BuildValue("(ddllllllllllllll)", seconds_of(u->ru_utime), seconds_of(u->ru_stime),
                                          u->ru_maxrss, u->ru_ixrss, u->ru_idrss, u->ru_isrss, u->ru_minflt,
                                          u->ru_majflt, u->ru_nswap, u->ru_inblock, u->ru_oublock, u->ru_msgsnd,
                                          u->ru_msgrcv, u->ru_nsignals, u->ru_nvcsw, u->ru_nivcsw);
    return usage ? Py_BuildValue("(iiiN)", (int)s->source, s->code, s->value, usage) : NULL;
}

/* ---- deadlines -------------------------------------------------------------------------------------------------- */

int tc_deadline_in(double seconds, struct tc_deadline *deadline)
{
    if (!(seconds >= 0)) {
        PyObject *value = PyFloat_FromDouble(seconds);
        if (value) PyErr_Format(PyExc_ValueError, "timeout must be None or at least 0 seconds, not %R", value);
        Py_XDECREF(value);
        return -1;
    }
    deadline->forever = seconds > 1e9; /* 30 years: for ever, and no overflow below */
    if (deadline->forever) return 0;
    clock_gettime(CLOCK_MONOTONIC, &deadline->end);
    deadline->end.tv_sec += (time_t)seconds;
    deadline->end.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (deadline->end.tv_nsec >= 1000000000) deadline->end.tv_sec++, deadline->end.tv_nsec -= 1000000000;
    return 0;
}

int tc_deadline_from(PyObject *seconds, struct tc_deadline *deadline)
{
    deadline->forever = seconds == Py_None;
    if (deadline->forever) return 0;
    double value = PyFloat_AsDouble(seconds);
    if (value == -1 && PyErr_Occurred()) return -1;
    return tc_deadline_in(value, deadline);
}

const struct timespec *tc_deadline_left(const struct tc_deadline *deadline, struct timespec *left)
{
    if (deadline->forever) return NULL;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    left->tv_sec = deadline->end.tv_sec - now.tv_sec;
    left->tv_nsec = deadline->end.tv_nsec - now.tv_nsec;
    if (left->tv_nsec < 0) left->tv_sec--, left->tv_nsec += 1000000000;
    if (left->tv_sec < 0) left->tv_sec = left->tv_nsec = 0;
    return left;
}
