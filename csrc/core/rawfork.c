/* Runs in a child before its body: the contract of child.c holds. */
#include "rawfork.h"

#include <errno.h>
#include <sys/prctl.h>

#include "fallback.h"
#include "sys.h"

long tc_libc_tid_offset;

pid_t *tc_libc_tid(void)
{
    pid_t *place = NULL, self = (pid_t)TC_SYS(SYS_gettid);
    if (tc_libc_tid_offset) {
        place = (pid_t *)(void *)((char *)tc_thread_pointer() + tc_libc_tid_offset);
        if (*place == self) return place;
    }
    /* A task that runs on a host's storage has a word of ours there, and from glibc 2.43 on a thread another of libc's,
     * whose small numbers are ids too in a new PID namespace: so this comes second. */
    if (TC_SYS(SYS_prctl, PR_GET_TID_ADDRESS, &place) == 0 && place && *place == self) return place;
    return NULL;
}

static long by_clone(struct tc_spec *spec, const struct clone_args *args)
{
    struct tc_clone_words words;
    if (!tc_translate(spec, args, &words)) return -ENOSYS;
    long flags = (long)(spec->flags | args->exit_signal);
    return tc_syscall6(SYS_clone, flags, 0,
                       TC_CLONE_ORDER((long)words.parent_tid, (long)words.child_tid, (long)words.tls), 0);
}

long tc_raw_fork(struct tc_spec *spec, struct clone_args *args, pid_t *libc_tid)
{
    void *robust = NULL;
    size_t size = 0;
    args->flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
    args->child_tid = (uint64_t)(uintptr_t)libc_tid;
    /* The same as it is: the copy's memory has it at the same place. */
    if (args->flags & CLONE_SETTLS) args->tls = (uint64_t)(uintptr_t)tc_thread_pointer();
    tc_call_args(spec, args);
    /* Not inherited: the kernel would no longer mark a robust mutex whose owner dies. */
    TC_SYS(SYS_get_robust_list, 0, &robust, &size);
    long id = TC_SYS(SYS_clone3, args, sizeof *args);
    if (tc_clone3_missing(id)) id = by_clone(spec, args);
    if (id == 0 && robust) TC_SYS(SYS_set_robust_list, robust, size);
    return id;
}

static _Noreturn void end_relay(struct tc_handshake *start, enum tc_step step, int error)
{
    tc_report_failure(&start->report, step, error);
    atomic_store(&start->relayed, (uint32_t)-1);
    tc_futex_wake(&start->relayed);
    for (;;) TC_SYS(SYS_exit_group, 127);
}

void tc_relay(struct tc_spec *spec, struct tc_handshake *start)
{
    pid_t *libc_tid = tc_libc_tid();
    if (!libc_tid) end_relay(start, TC_STEP_LIBC_TID, ENOSYS);
    /* In another PID namespace than the creator the ids that we see mean nothing to it. */
    if (TC_SYS(SYS_getppid) != spec->creator) end_relay(start, TC_STEP_RELAY, ESRCH);
    struct clone_args args = {
        .flags = spec->flags | CLONE_PARENT | CLONE_PARENT_SETTID,
        .parent_tid = (uint64_t)(uintptr_t)&start->relayed,
    };
    spec->relayed = 1;
    int pidfd; /* ours, and gone with us: the creator opens one of its own */
    if (spec->flags & CLONE_PIDFD) args.pidfd = (uint64_t)(uintptr_t)&pidfd;
    long id = tc_raw_fork(spec, &args, libc_tid);
    if (id < 0) end_relay(start, tc_start_step(spec), (int)-id);
    if (id == 0) {
        tc_futex_wake(&start->relayed);
        return;
    }
    if (spec->by_clone) start->flags = spec->flags, start->emulated = spec->emulated;
    for (;;) TC_SYS(SYS_exit_group, 0);
}
