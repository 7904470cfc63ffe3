/* malloc's arenas whose lock a dead task has left locked. */
#ifndef TC_ARENAS_H
#define TC_ARENAS_H

#include <stdint.h>

/* Which arena a block of malloc's is in; TC_NO_ARENA for one that has a mapping to itself. System calls only. */
uintptr_t tc_arena_of(const void *block);
enum { TC_NO_ARENA = 0, TC_MAIN_ARENA = 1, TC_UNKNOWN_ARENA = 2 }; /* else its address */

/* An arena is lost: from now on no block of it is freed in the interpreter's raw domain. `mutex`: its lock's address,
 * at which a call of malloc has hung; 0: not known. On the host of the dead. */
void tc_lose_arena(uintptr_t arena, uintptr_t mutex);

int tc_is_lost_mutex(uintptr_t address);

#endif
