/* Starts that say it to clone3, and to clone(2) where clone3 is missing or filtered. */
#ifndef TC_FALLBACK_H
#define TC_FALLBACK_H

#include "child.h"
#include "sys.h"

/* clone3, and where the system does not have it clone(2): fn(arg) on the stack that args names; fn must not return. The
 * creator gets the new task's id or -errno.
 *
 * spec->by_clone says which it was, and the flags of spec are then what clone(2) was given; what it cannot say and the
 * child's steps do in its place is in spec->emulated. -ENOSYS: clone3 is not to be had, and nothing can do this without
 * it. A refusal of clone3 itself, EPERM for want of a privilege among them, is returned as it is. Nothing is
 * remembered: a filter may be one thread's. */
long tc_start(struct tc_spec *spec, struct clone_args *args, void (*fn)(void *), void *arg);

/* The step that a failed tc_start() is to be blamed on. */
static inline enum tc_step tc_start_step(const struct tc_spec *spec)
{
    return spec->by_clone ? TC_STEP_CLONE : TC_STEP_CLONE3;
}

/* What clone(2) is given in the place of args: its flags in spec, the rest in words; 0 when it cannot be said to it. */
int tc_translate(struct tc_spec *spec, const struct clone_args *args, struct tc_clone_words *words);

/* What of a spec is the call's own: ids that were asked for, the control group. */
void tc_call_args(const struct tc_spec *spec, struct clone_args *args);

/* Whether a clone3 that failed so is not to be had here at all. */
int tc_clone3_missing(long answer);

#endif
