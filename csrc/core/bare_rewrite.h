/* The bill that comes after a fork: the creator writes to every page of its heap again. Without a fork; when the child
 * is gone (each page is still write-protected, and its first write is a fault); and while the child lives (each is
 * copied too). The fork itself is timed as well: it finds a heap that was just written to, which the plain loop's never
 * does. */
#ifndef TC_BARE_REWRITE_H
#define TC_BARE_REWRITE_H

#include <sys/prctl.h>

#include "bare_burden.h"
#include "bare_loop.h"

/* In a child that waits: it must not outlive its creator. */
static void die_with(pid_t creator)
{
    TC_SYS(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
    if (TC_SYS(SYS_getppid) != creator) TC_SYS(SYS_exit_group, 1);
}

static uint64_t time_rewrite(const struct burden *burden)
{
    uint64_t before = now_ns();
    write_heap(burden);
    return now_ns() - before;
}

static int rewrite_alone(struct bare *b, uint64_t *ns)
{
    ns[0] = time_rewrite(b->burden);
    return 0;
}

static int rewrite_after(struct bare *b, uint64_t *ns)
{
    uint64_t before = now_ns();
    pid_t pid = fork();
    if (pid == 0)
        for (;;) TC_SYS(SYS_exit_group, 0);
    ns[1] = now_ns() - before;
    if (pid < 0) return fail(b, "fork", errno);
    int r = reap(b, pid);
    if (r == 0) ns[0] = time_rewrite(b->burden);
    return r;
}

static int rewrite_beside(struct bare *b, uint64_t *ns)
{
    pid_t creator = getpid();
    atomic_store(&b->common->go, 0);
    uint64_t before = now_ns();
    pid_t pid = fork();
    if (pid == 0) {
        die_with(creator);
        while (!atomic_load(&b->common->go)) tc_futex_wait(&b->common->go, 0, NULL);
        for (;;) TC_SYS(SYS_exit_group, 0);
    }
    ns[1] = now_ns() - before;
    if (pid < 0) return fail(b, "fork", errno);
    ns[0] = time_rewrite(b->burden);
    atomic_store(&b->common->go, 1);
    tc_futex_wake(&b->common->go);
    return reap(b, pid);
}

static const struct kind rewrite_kinds[] = {
    {"rewrite", {"rewrite"}, 0, rewrite_alone},
    {"rewrite_after", {"rewrite", "start"}, 0, rewrite_after},
    {"rewrite_beside", {"rewrite", "start"}, 0, rewrite_beside},
};

#endif
