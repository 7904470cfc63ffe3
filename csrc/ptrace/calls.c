/* The kernel hands number and arguments over in one form on every machine, so no register is named here; only the
 * numbers differ, and on which side of the TLS the fourth pointer of clone stands. The machine is that of the call, not
 * of the tracer: a 32-bit program, and a 64-bit one that says `int $0x80`, have the numbers of i386. */
#include "calls.h"

#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>

#include "sys.h"

#define X32_BIT 0x40000000u
#define CLONE3 435 /* of all of them */

static const struct machine {
    uint32_t audit;
    int fork, vfork, clone;
    int tls_before_child_tid;
} machines[] = {
    {AUDIT_ARCH_X86_64, 57, 58, 56, 0},
    {AUDIT_ARCH_I386, 2, 190, 120, 1},
    {AUDIT_ARCH_AARCH64, -1, -1, 220, 1},
    {AUDIT_ARCH_ARM, 2, 190, 120, 1},
};

static void read_clone(const struct machine *machine, const __u64 *args, struct clone_args *out)
{
    /* The kernel looks at 32 bits: a program that passes CLONE_IO in an int has set the upper ones as well. */
    uint32_t flags = (uint32_t)args[0];
    int tls = machine->tls_before_child_tid ? 3 : 4;
    out->flags = flags & ~(uint32_t)CSIGNAL;
    out->exit_signal = flags & CSIGNAL;
    out->stack = args[1];
    out->pidfd = out->parent_tid = args[2]; /* one argument for both: the flags say which */
    out->tls = args[tls];
    out->child_tid = args[7 - tls];
}

/* By words: whoever may stop a task may read it so, where a filter refuses process_vm_readv. */
static int32_t peek(pid_t tid, uint64_t address, void *to, size_t size)
{
    for (size_t done = 0; done < size; done += sizeof(long)) {
        long word;
        int err = (int)TC_SYS(SYS_ptrace, PTRACE_PEEKDATA, tid, address + done, &word);
        if (err) return err == -EIO ? EFAULT : -err;
        memcpy((char *)to + done, &word, size - done < sizeof word ? size - done : sizeof word);
    }
    return 0;
}

static int32_t read_memory(pid_t tid, uint64_t address, void *to, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)(uintptr_t)address, size};
    long got = TC_SYS(SYS_process_vm_readv, tid, &local, 1, &remote, 1, 0);
    if (got == -EPERM || got == -ENOSYS) return peek(tid, address, to, size);
    return got < 0 ? (int32_t)-got : got == (long)size ? 0 : EFAULT;
}

void tp_read_call(pid_t tid, const struct ptrace_syscall_info *info, struct tp_call *call)
{
    memset(call, 0, sizeof *call);
    const struct machine *machine = NULL;
    for (unsigned i = 0; i < sizeof machines / sizeof *machines; i++)
        if (machines[i].audit == info->arch) machine = &machines[i];
    if (!machine) return;
    int nr = (int)info->entry.nr;
    if (machine->audit == AUDIT_ARCH_X86_64) nr &= ~(int)X32_BIT;
    if (nr == CLONE3) {
        size_t size = info->entry.args[1];
        call->which = TP_CLONE3;
        call->size = size;
        call->unread =
            read_memory(tid, info->entry.args[0], &call->args, size < sizeof call->args ? size : sizeof call->args);
        if (call->unread) memset(&call->args, 0, sizeof call->args);
    } else if (nr == machine->clone) {
        call->which = TP_CLONE;
        read_clone(machine, info->entry.args, &call->args);
    } else if (nr >= 0 && (nr == machine->fork || nr == machine->vfork)) {
        call->which = nr == machine->fork ? TP_FORK : TP_VFORK;
        call->args.flags = nr == machine->fork ? 0 : CLONE_VM | CLONE_VFORK; /* what the call itself stands for */
        call->args.exit_signal = SIGCHLD;
    }
}
