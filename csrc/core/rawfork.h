/* Copies of the caller by clone3 itself, in the place of libc's fork: for what fork() cannot say. */
#ifndef TC_RAWFORK_H
#define TC_RAWFORK_H

#include "child.h"

struct clone_args;

/* What creator and copy tell each other during a start, in memory that both map. */
struct tc_handshake {
    struct tc_report report;
    _Atomic uint32_t creator_ready; /* futex: the creator has its pidfd, the copy may go on */
    _Atomic uint32_t set_up;        /* futex: the steps of an awaited setup are done, or one has failed */
    uint64_t flags, emulated;       /* of a relay that clone(2) did, once the middle has ended: its spec's */
    _Atomic uint32_t relayed;       /* futex: the new task's id by the kernel's own hand, or -1: there is none */
};

/* Where libc keeps the calling thread's id, or NULL. fork() has the kernel write there (CLONE_CHILD_SETTID), and so
 * must whoever clones without it: raise(), the owner of a lock, and much else go by that number. */
pid_t *tc_libc_tid(void);
/* The same place, seen from the thread pointer, for kernels without PR_GET_TID_ADDRESS; 0: not known. */
extern long tc_libc_tid_offset;

/* clone3, or clone(2) in its place (fallback.h), without CLONE_VM and without a stack, so that both go on from here: 0
 * in the copy, its id or -errno in the caller. */
long tc_raw_fork(struct tc_spec *spec, struct clone_args *args, pid_t *libc_tid);

/* In the child of a fork, single-threaded: puts a task with spec->flags in its own place, and ends. The new task, which
 * alone returns, is a child of the creator. */
void tc_relay(struct tc_spec *spec, struct tc_handshake *start);

#endif
