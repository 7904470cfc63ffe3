#include "report.h"

void tc_report_failure(struct tc_report *report, enum tc_step step, int error)
{
    atomic_store(&report->failure, (uint64_t)step << 32 | (uint32_t)error);
}

void tc_report_crash(struct tc_report *report, int signal, int code, uint64_t address, uint64_t pc)
{
    report->signal = signal;
    report->code = code;
    report->address = address;
    report->pc = pc;
    atomic_store(&report->crashed, 1);
}

enum tc_step tc_report_failed(const struct tc_report *report, int *error)
{
    uint64_t failure = atomic_load(&report->failure);
    *error = (int)(uint32_t)failure;
    return (enum tc_step)(failure >> 32);
}

const char *tc_step_name(enum tc_step step)
{
    static const char *const names[TC_STEP_COUNT] = {
        [TC_STEP_NONE] = "none",
        [TC_STEP_CLONE3] = "clone3",
        [TC_STEP_CLONE] = "clone",
        [TC_STEP_PTHREAD] = "pthread_create",
        [TC_STEP_UNSHARE] = "unshare",
        [TC_STEP_FORK] = "fork",
        [TC_STEP_RELAY] = "relay",
        [TC_STEP_LIBC_TID] = "libc_tid",
        [TC_STEP_LEAVE_OUT] = "leave_out",
        [TC_STEP_PIDFD] = "pidfd_open",
        [TC_STEP_STACK] = "stack",
        [TC_STEP_HOST] = "host",
        [TC_STEP_RSEQ] = "rseq",
        [TC_STEP_SETGROUPS] = "setgroups",
        [TC_STEP_UID_MAP] = "uid_map",
        [TC_STEP_GID_MAP] = "gid_map",
        [TC_STEP_ID_MAPS] = "id_maps",
        [TC_STEP_NO_NEW_PRIVS] = "no_new_privs",
        [TC_STEP_ROBUST_LIST] = "robust_list",
        [TC_STEP_PARENT_DEATH] = "parent_death",
        [TC_STEP_NAME] = "name",
        [TC_STEP_ALTSTACK] = "altstack",
        [TC_STEP_FATAL_HANDLERS] = "fatal_handlers",
        [TC_STEP_HANDLERS] = "handlers",
        [TC_STEP_CLEAR_HANDLERS] = "clear_handlers",
        [TC_STEP_DEFAULT_SIGNALS] = "default_signals",
        [TC_STEP_SIGNALS] = "signals",
        [TC_STEP_SIGMASK] = "sigmask",
        [TC_STEP_CHDIR] = "chdir",
        [TC_STEP_STREAMS] = "streams",
        [TC_STEP_CLOSE_FDS] = "close_fds",
        [TC_STEP_ENVIRONMENT] = "environment",
        [TC_STEP_EXEC] = "execve",
    };
    return step < TC_STEP_COUNT ? names[step] : "unknown";
}
