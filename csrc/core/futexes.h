/* What a thread waits for, from outside. System calls only. */
#ifndef TC_FUTEXES_H
#define TC_FUTEXES_H

#include <stdint.h>
#include <sys/types.h>

/* The address of its futex wait without a limit (/proc/TID/syscall); 0: it is in none, or that cannot be seen. */
uintptr_t tc_endless_wait(pid_t tid);

#endif
