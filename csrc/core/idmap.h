/* The maps of ids of a new user namespace (user_namespaces(7)): what the task does for them, and what its creator does
 * where the task may not write them itself. */
#ifndef TC_IDMAP_H
#define TC_IDMAP_H

#include "child.h"

/* Between a task and who writes its maps, in memory that both map. */
struct tc_mailbox {
    _Atomic uint32_t wanted; /* futex: the task's id, as /proc has it */
    _Atomic uint32_t answer; /* futex: 1 and the errno; 0: none yet */
};

/* In the child: see child.c for the contract. */
int tc_step_setgroups(const struct tc_spec *spec);
int tc_step_uid_map(const struct tc_spec *spec);
int tc_step_gid_map(const struct tc_spec *spec);
int tc_step_id_maps(const struct tc_spec *spec);

#endif
