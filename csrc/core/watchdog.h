/* What names a wait that will never end, after the death of a task that shared memory. */
#ifndef TC_WATCHDOG_H
#define TC_WATCHDOG_H

#include "shared.h"

void tc_watchdog_init(void);
/* On the host of a dead task, its last deed: returns at once where another one watches. Raw system calls. */
void tc_watchdog(struct tc_host *host, struct tc_task *task);
pid_t tc_watchdog_quit(void); /* its thread id, or 0 */
int tc_watchdog_there(void);
void tc_watchdog_after_fork(void); /* in the child */

#endif
