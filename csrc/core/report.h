/* What a child tells its creator about a start that failed or a death that had a signal: fixed records in memory that
 * both see. Each is published by one atomic store, so that the reader finds it whole or not at all. */
#ifndef TC_REPORT_H
#define TC_REPORT_H

#include <stdatomic.h>
#include <stdint.h>

/* The steps of a start, in no particular order; tc_step_name() has their names. */
enum tc_step {
    TC_STEP_NONE,
    TC_STEP_CLONE3,
    TC_STEP_CLONE,
    TC_STEP_PTHREAD,
    TC_STEP_UNSHARE,
    TC_STEP_FORK,
    TC_STEP_RELAY,
    TC_STEP_LIBC_TID,
    TC_STEP_LEAVE_OUT,
    TC_STEP_STACK,
    TC_STEP_HOST,
    TC_STEP_PIDFD,
    TC_STEP_RSEQ,
    TC_STEP_SETGROUPS,
    TC_STEP_UID_MAP,
    TC_STEP_GID_MAP,
    TC_STEP_ID_MAPS,
    TC_STEP_NO_NEW_PRIVS,
    TC_STEP_ROBUST_LIST,
    TC_STEP_PARENT_DEATH,
    TC_STEP_NAME,
    TC_STEP_ALTSTACK,
    TC_STEP_FATAL_HANDLERS,
    TC_STEP_HANDLERS,
    TC_STEP_CLEAR_HANDLERS,
    TC_STEP_DEFAULT_SIGNALS,
    TC_STEP_SIGNALS,
    TC_STEP_SIGMASK,
    TC_STEP_CHDIR,
    TC_STEP_STREAMS,
    TC_STEP_CLOSE_FDS,
    TC_STEP_ENVIRONMENT,
    TC_STEP_EXEC,
    TC_STEP_COUNT
};

struct tc_report {
    _Atomic uint64_t failure; /* step in the upper, errno in the lower half; 0: none */
    _Atomic uint32_t crashed; /* set last: the fields below are there */
    int32_t signal, code;     /* of the fatal signal */
    uint64_t address, pc;
    uint32_t threads; /* of the task's own process, which die with it, but for the one that crashed */
};

/* Write side: async-signal-safe, no TLS. */
void tc_report_failure(struct tc_report *report, enum tc_step step, int error);
void tc_report_crash(struct tc_report *report, int signal, int code, uint64_t address, uint64_t pc);

/* Read side: the failed step and its errno, or TC_STEP_NONE. */
enum tc_step tc_report_failed(const struct tc_report *report, int *error);
const char *tc_step_name(enum tc_step step);

#endif
