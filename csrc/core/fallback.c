/* Runs in creators, in hosts while their task lives, and in tasks that copy themselves: raw system calls only. */
#include "fallback.h"

#include <errno.h>

static const uint64_t SIGNAL_BYTE = 0xff, ROOM = 0xffffffff;

int tc_clone3_missing(long answer)
{
    if (answer == -ENOSYS) return 1;
    /* Some filters say EPERM, and so does the kernel to who lacks a privilege: then an empty call is EINVAL. */
    return answer == -EPERM && TC_SYS(SYS_clone3, NULL, 0) != -EINVAL;
}

int tc_translate(struct tc_spec *spec, const struct clone_args *args, struct tc_clone_words *words)
{
    uint64_t flags = args->flags & ~CLONE_CLEAR_SIGHAND;
    if (flags & ~(ROOM & ~SIGNAL_BYTE) || args->exit_signal > SIGNAL_BYTE || args->set_tid_size) return 0;
    *words = (struct tc_clone_words){args->parent_tid, args->child_tid, args->tls};
    spec->by_clone = 1;
    spec->emulated |= args->flags & CLONE_CLEAR_SIGHAND;
    if (flags & CLONE_PIDFD && spec->relayed) {
        /* It would be gone with the caller; the id is waited for. The creator opens one. */
        spec->emulated |= CLONE_PIDFD;
        flags &= ~(uint64_t)CLONE_PIDFD;
    } else if (flags & CLONE_PIDFD) {
        /* One argument for both. The id comes back from the call, but later; asleep in it the caller cannot write. */
        words->parent_tid = args->pidfd;
        spec->emulated |= flags & CLONE_PARENT_SETTID;
        flags &= ~(uint64_t)CLONE_PARENT_SETTID;
        if (flags & CLONE_VFORK && !(flags & (CLONE_NEWPID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID))) {
            words->child_tid = args->parent_tid;
            flags |= CLONE_CHILD_SETTID;
        }
    }
    spec->flags = flags;
    return 1;
}

void tc_call_args(const struct tc_spec *spec, struct clone_args *args)
{
    if (args->flags & CLONE_INTO_CGROUP) args->cgroup = (uint64_t)spec->cgroup;
    if (spec->set_tid_size) args->set_tid = (uint64_t)(uintptr_t)spec->set_tid, args->set_tid_size = spec->set_tid_size;
}

long tc_start(struct tc_spec *spec, struct clone_args *args, void (*fn)(void *), void *arg)
{
    tc_call_args(spec, args);
    long id = tc_clone3(args, sizeof *args, fn, arg);
    if (id > 0 || !tc_clone3_missing(id)) return id;
    struct tc_clone_words words;
    if (!tc_translate(spec, args, &words)) return -ENOSYS;
    char *top = (char *)(uintptr_t)(args->stack + args->stack_size);
    id = tc_clone(spec->flags | args->exit_signal, top, &words, fn, arg);
    if (id > 0 && spec->emulated & CLONE_PARENT_SETTID)
        atomic_store((_Atomic pid_t *)(uintptr_t)args->parent_tid, (pid_t)id);
    return id;
}
