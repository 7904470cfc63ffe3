/* Round trips between two tasks: the creator sends, the partner answers, and neither does anything else. What they
 * share is the kind's first half, how they wake each other the second.
 *
 * Both sides are the same code for every kind, in raw system calls only: a partner that shares memory runs on the
 * creator's thread-local storage. The words lie in a page that both map in any case, so the futexes are shared ones
 * for threads too. */
#ifndef TC_BARE_SWITCH_H
#define TC_BARE_SWITCH_H

#include <stdlib.h>
#include <sys/eventfd.h>

#include "bare_rewrite.h"

struct way {
    const char *name;
    int (*make)(struct partner *p); /* 0 or -errno */
    void (*send)(struct partner *p, int side);
    void (*receive)(struct partner *p, int side);
};

/* Side 0 is the creator's: it sends to the partner, and receives what side 1 has sent. */
struct partner {
    _Atomic uint32_t words[2]; /* of futexes: how often that side has sent */
    _Atomic uint32_t stop;
    uint32_t received[2];
    int in[2], out[2]; /* descriptors, by side; -1: none */
    const struct way *way;
    cpu_set_t cpu, old; /* the partner's; the creator's before */
    pid_t creator, pid;
    pthread_t thread;
    struct vm_call call;
};

/* Ways to wake each other */

static int futex_make(struct partner *p)
{
    (void)p;
    return 0;
}

static void futex_send(struct partner *p, int side)
{
    atomic_fetch_add(&p->words[side], 1);
    tc_futex_wake(&p->words[side]);
}

static void futex_receive(struct partner *p, int side)
{
    _Atomic uint32_t *word = &p->words[!side];
    while (atomic_load(word) == p->received[side]) tc_futex_wait(word, p->received[side], NULL);
    p->received[side]++;
}

static int pipe_make(struct partner *p)
{
    int there[2], back[2];
    if (pipe(there)) return -errno;
    p->in[1] = there[0], p->out[0] = there[1];
    if (pipe(back)) return -errno;
    p->in[0] = back[0], p->out[1] = back[1];
    return 0;
}

static void pipe_send(struct partner *p, int side) { TC_SYS(SYS_write, p->out[side], "x", 1); }

static void pipe_receive(struct partner *p, int side)
{
    char byte;
    TC_SYS(SYS_read, p->in[side], &byte, 1);
}

static int eventfd_make(struct partner *p)
{
    if ((p->in[1] = p->out[0] = eventfd(0, 0)) < 0) return -errno;
    if ((p->in[0] = p->out[1] = eventfd(0, 0)) < 0) return -errno;
    return 0;
}

static void eventfd_send(struct partner *p, int side)
{
    uint64_t one = 1;
    TC_SYS(SYS_write, p->out[side], &one, sizeof one);
}

static void eventfd_receive(struct partner *p, int side)
{
    uint64_t count;
    TC_SYS(SYS_read, p->in[side], &count, sizeof count);
}

static const struct way ways[] = {
    {"pipe", pipe_make, pipe_send, pipe_receive},
    {"futex", futex_make, futex_send, futex_receive},
    {"eventfd", eventfd_make, eventfd_send, eventfd_receive},
};

/* The partner */

static void answer(struct partner *p)
{
    TC_SYS(SYS_sched_setaffinity, 0, sizeof p->cpu, &p->cpu);
    for (;;) {
        p->way->receive(p, 1);
        if (atomic_load(&p->stop)) return;
        p->way->send(p, 1);
    }
}

static void *thread_partner(void *partner)
{
    answer(partner);
    return NULL;
}

static void vm_partner(void *partner)
{
    struct partner *p = partner;
    die_with(p->creator);
    answer(p);
    for (;;) TC_SYS(SYS_exit, 0);
}

static int start_thread(struct bare *b)
{
    int r = pthread_create(&b->partner->thread, NULL, thread_partner, b->partner);
    return r ? fail(b, "pthread_create", r) : 0;
}

static int start_process(struct bare *b)
{
    pid_t pid = fork();
    if (pid == 0) {
        die_with(b->partner->creator);
        answer(b->partner);
        for (;;) TC_SYS(SYS_exit_group, 0);
    }
    b->partner->pid = pid;
    return pid < 0 ? fail(b, "fork", errno) : 0;
}

static int start_vm(struct bare *b)
{
    struct partner *p = b->partner;
    p->call = (struct vm_call){vm_partner, p};
    long pid = vm_clone(b, b->kind->flags, &p->call);
    p->pid = (pid_t)pid;
    return pid < 0 ? vm_failed(b, pid) : 0;
}

/* The creator on the last CPU that it may use, the partner there too or on the first one. */
static int choose_cpus(struct bare *b)
{
    struct partner *p = b->partner;
    if (sched_getaffinity(0, sizeof p->old, &p->old)) return fail(b, "sched_getaffinity", errno);
    int first = 0, last = CPU_SETSIZE - 1;
    while (!CPU_ISSET(first, &p->old)) first++;
    while (!CPU_ISSET(last, &p->old)) last--;
    if (b->burden->size > 1 && first == last) return fail(b, "two CPUs", ENODEV);
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(last, &own);
    CPU_ZERO(&p->cpu);
    CPU_SET(b->burden->size > 1 ? first : last, &p->cpu);
    return sched_setaffinity(0, sizeof own, &own) ? fail(b, "sched_setaffinity", errno) : 0;
}

static int open_partner(struct bare *b, const char *way, int (*start)(struct bare *))
{
    struct partner *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return fail(b, "mmap", errno);
    b->partner = p;
    p->creator = getpid();
    for (int side = 0; side < 2; side++) p->in[side] = p->out[side] = -1;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, way) == 0) p->way = &ways[i];
    int r = choose_cpus(b);
    if (r) return r;
    r = p->way->make(p);
    return r ? fail(b, way, -r) : start(b);
}

/* The kind's name is WHAT_WAY. */
static int open_switch(struct bare *b)
{
    const char *way = strrchr(b->kind->name, '_') + 1;
    if (b->kind->flags) return open_partner(b, way, start_vm);
    return open_partner(b, way, strncmp(b->kind->name, "thread", 6) == 0 ? start_thread : start_process);
}

static void close_switch(struct bare *b)
{
    struct partner *p = b->partner;
    if (!p) return;
    if (p->thread || p->pid > 0) {
        atomic_store(&p->stop, 1);
        p->way->send(p, 0);
        if (p->thread) pthread_join(p->thread, NULL);
        if (p->pid > 0) reap(b, p->pid);
    }
    sched_setaffinity(0, sizeof p->old, &p->old);
    for (int side = 0; side < 2; side++) {
        if (p->in[side] >= 0) close(p->in[side]);
        if (p->out[side] >= 0 && p->out[side] != p->in[!side]) close(p->out[side]);
    }
    munmap(p, sizeof *p);
    b->partner = NULL;
}

static int round_trip(struct bare *b, uint64_t *ns)
{
    struct partner *p = b->partner;
    uint64_t before = now_ns();
    p->way->send(p, 0);
    p->way->receive(p, 0);
    ns[0] = now_ns() - before;
    return 0;
}

#define SWITCH_KIND(name, flags) {name, {"round_trip"}, flags, round_trip, open_switch, close_switch}
#define SWITCH_KINDS(what, flags) \
    SWITCH_KIND(what "_pipe", flags), SWITCH_KIND(what "_futex", flags), SWITCH_KIND(what "_eventfd", flags)

static const struct kind switch_kinds[] = {
    SWITCH_KINDS("thread", 0),
    SWITCH_KINDS("shared", CLONE_VM | CLONE_FILES),
    SWITCH_KINDS("vm", CLONE_VM),
    SWITCH_KINDS("process", 0),
};

#endif
