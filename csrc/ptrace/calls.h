/* Reads a clone-like system call of a task that stands at its entry. */
#ifndef TP_CALLS_H
#define TP_CALLS_H

#include <linux/ptrace.h>
#include <sys/types.h>

#include "records.h"

/* Fills `call` from what PTRACE_GET_SYSCALL_INFO says at the entry of a system call; clone3's structure is read from
 * the memory of `tid`. call->which is TP_NO_CALL when the call makes no task. */
void tp_read_call(pid_t tid, const struct ptrace_syscall_info *info, struct tp_call *call);

#endif
