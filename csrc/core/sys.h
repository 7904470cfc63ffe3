/* Raw system calls for code that must not touch libc's thread-local storage (errno lives there):
 * whatever runs in a child before its body, and in a host while its task lives.
 * Each returns the kernel's answer: a value, or -errno. */
#ifndef TC_SYS_H
#define TC_SYS_H

#include <fcntl.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ull /* Linux 5.5 */
#endif

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ull /* Linux 5.7 */
#endif
#ifndef CLONE_AUTOREAP /* Linux 7.1 */
#define CLONE_AUTOREAP (1ull << 34)
#define CLONE_NNP (1ull << 35)
#define CLONE_PIDFD_AUTOKILL (1ull << 36)
#endif

#define TC_SYS(nr, ...) TC_SYS_(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define TC_SYS_(nr, a, b, c, d, e, f, ...) \
    tc_syscall6((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* Starts fn(arg) on the stack that args names; fn must not return. The creator gets the new task's id or -errno. */
long tc_clone3(struct clone_args *args, size_t size, void (*fn)(void *), void *arg);

/* The same by clone(2), which has the exit signal in the lowest byte of the flags. */
struct tc_clone_words {
    uint64_t parent_tid, child_tid, tls;
};
long tc_clone(uint64_t flags, void *top, const struct tc_clone_words *words, void (*fn)(void *), void *arg);

/* pidfd_open() that is kept back by a filter: of itself it has none of these errors. */
static inline int tc_pidfd_filtered(long answer) { return answer == -ENOSYS || answer == -EPERM || answer == -EACCES; }

/* Shared futexes, never FUTEX_PRIVATE_FLAG: a word may lie in memory that two processes map, and the kernel's own
 * wake for CLONE_CHILD_CLEARTID is a shared one; shared and private waiters of one address do not see each other. */
static inline long tc_futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *timeout)
{
    return TC_SYS(SYS_futex, word, FUTEX_WAIT, value, timeout);
}
static inline long tc_futex_wake(_Atomic uint32_t *word) { return TC_SYS(SYS_futex, word, FUTEX_WAKE, INT32_MAX); }

/* Spin locks, because the last thing that a host does before it parks must not touch TLS. */
static inline void tc_spin_lock(_Atomic uint32_t *lock)
{
    while (atomic_exchange(lock, 1)) TC_SYS(SYS_sched_yield);
}
static inline void tc_spin_unlock(_Atomic uint32_t *lock) { atomic_store(lock, 0); }

/* A new descriptor, or -errno, moved out of the way of a child's standard streams: where the creator's are closed it
 * may have one of their numbers, and would be overwritten. */
static inline int tc_not_a_stream(int fd)
{
    if (fd < 0 || fd > 2) return fd;
    long moved = TC_SYS(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    TC_SYS(SYS_close, fd);
    return (int)moved;
}

#endif
