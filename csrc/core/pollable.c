/* What an event loop can watch of a task: its descriptor, made when it is first asked for, and bells. */
#include "shared.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "bell.h"
#include "error.h"
#include "sys.h"

int tc_task_descriptor(struct tc_task *task)
{
    if (!tc_own_files()) {
        tc_raise_named("UnsupportedOperation", "this task has a file table of its own: a descriptor of another task "
                                               "would be in the creator's");
        return -1;
    }
    int fd = atomic_load(&task->pidfd), none = -1, rings = 0;
    const char *call = "pidfd_open";
    if (fd < 0) fd = tc_open_pidfd(task);
    int filtered = tc_pidfd_filtered(fd), no_thread = task->thread && (fd == -EINVAL || filtered);
    if (filtered && (!task->thread || task->own & CLONE_FILES)) {
        tc_raise_named("UnsupportedOperation",
                       "task %d can have no pidfd: pidfd_open is filtered here (a container's seccomp profile); "
                       "wait() and result() do without, and exit_signal=SIGCHLD gives a process one from birth",
                       (int)task->pid);
        return -1;
    }
    if (no_thread && task->own & CLONE_FILES) {
        tc_raise_named("UnsupportedOperation",
                       "this kernel has no pidfd for a thread (Linux 6.9), and one with a file table of its own "
                       "cannot ring an eventfd of the creator");
        return -1;
    }
    if (no_thread) {
        call = "eventfd2";
        fd = (int)TC_SYS(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
        rings = fd >= 0;
    } else if (fd == -ESRCH) {
        /* Ended and reaped: no pidfd is to be had any more, and all that it would say is "readable". */
        call = "eventfd2";
        fd = (int)TC_SYS(SYS_eventfd2, 1, EFD_CLOEXEC);
    }
    if (fd < 0) {
        tc_raise(-fd, call);
        return -1;
    }
    if (!atomic_compare_exchange_strong(&task->pidfd, &none, fd) && none != fd) {
        TC_SYS(SYS_close, fd); /* another task of this memory was quicker */
        fd = none;
    } else if (rings) {
        atomic_store(&task->rings, 1);
        if (atomic_load(&task->state) >= TC_DONE) tc_ring(fd);
    }
    return fd;
}

PyObject *tc_task_bell(struct tc_task *task)
{
    if (!task->thread || !(task->own & CLONE_FILES)) return tc_bell_for_task(task);
    /* It could not ring: the kernel does, at its end. */
    if (tc_task_descriptor(task) < 0) return NULL;
    return tc_bell_for_pidfd(atomic_load(&task->pidfd));
}
