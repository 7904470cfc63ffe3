/* A copy of this process, whoever asks for it and whatever it is for, until the creator has it and its setup is done.
 *
 *   fork    libc's fork: pthread_atfork's handlers run, malloc and stdio are whole. No flags.
 *   relay   fork, and in its child a clone3 with CLONE_PARENT and the flags: the handlers have run, the copy has every
 *           flag from birth and is the creator's own child. The task in the middle ends.
 *   bare    one clone3 by the creator, the only way to share descriptors, directory, undo list or I/O context with it.
 *           No handler of libc's runs: what other threads have locked is locked for ever in the copy. */
#ifndef TC_COPIES_H
#define TC_COPIES_H

#include "children.h"
#include "leaveout.h"
#include "rawfork.h"

enum tc_form { TC_FORK, TC_RELAY, TC_BARE };

struct tc_copy {
    enum tc_form form;
    int careful;        /* bare: other threads are refused */
    int hooked;         /* bare, found out by tc_copy(): the interpreter's own steps around a fork are taken */
    PyObject *harmless; /* bare: NULL or a tuple, see tc_other_threads() */
    uint64_t held;      /* relay, bare: signals that stay blocked in the copy until they are handled */
    /* In the copy, after the steps: handles them. It may leave an exception. NULL: there is nothing to handle. */
    void (*handle)(const struct tc_copy *copy);
    struct tc_spec *spec;
    struct tc_handshake *start;
    PyObject *prepare; /* called in the copy after the steps, or None */
    const struct tc_left_out *left_out;
    /* in the creator: */
    pid_t pid;
    int pidfd;         /* -1: it was reaped by somebody else at once */
    int by_pid;        /* pidfd_open is kept back by a filter */
    uint64_t flags;    /* that the kernel was given */
    uint64_t replaced; /* what it could not say and was done another way */
};

/* 1 in the copy, whose setup is done; 0 in the creator; -1 with an exception in the creator: there is no copy. */
int tc_copy(struct tc_copy *copy);

/* Makes the child of a copy that there is known as such. */
void tc_copy_started(const struct tc_copy *copy, struct tc_child *child);

/* The form as Python gives it: None, or (form, flags, exit signal, careful). 0, or -1 with an exception. */
int tc_copy_from(PyObject *how, struct tc_copy *copy);

#endif
