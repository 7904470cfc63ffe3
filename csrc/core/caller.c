/* What every other file asks: in which copy of the process the caller is, on which thread, in which task, with which
 * file table; and the counts. It asks none of the others. */
#include "shared.h"

#include "sys.h"

int tc_keep_hosts, tc_borrowed_files;
unsigned tc_generation, tc_closed_generation;
void *tc_main_thread;
__thread char tc_private, tc_private_files; /* shared.h says of which kind */
struct tc_counters tc_counters;

int tc_may_close(unsigned generation)
{
    return generation >= tc_closed_generation && (!tc_borrowed_files || generation == tc_generation);
}

int tc_on_main_thread(void) { return tc_thread_pointer() == tc_main_thread; }

struct tc_task *tc_current_task(void) { return (struct tc_task *)tc_current; }

int tc_own_files(void)
{
    /* In a task with a file table of its own, the creator's descriptor numbers mean something else. */
    if (tc_private_files) return 0;
    struct tc_task *here = tc_current_task();
    return !here || (here->spec.flags & CLONE_FILES);
}

uint64_t tc_file_table(void)
{
    if (tc_private_files) return UINT64_MAX; /* nothing of ours is made there */
    return tc_own_files() ? 0 : tc_current_task()->serial;
}
