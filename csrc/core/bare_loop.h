/* Bare starts: a C loop launches a body that does nothing and waits for it, n times. No Python in here: route_bare.c
 * runs the loop inside an interpreter, bare_program.c as a program of a few pages, which is what a C program's fork
 * has to copy. (The functions are static so that each of the two is complete with this one file; bare_rewrite.h and
 * bare_switch.h add what only the program can do to the same loop.)
 *
 * Three clock readings a launch: before the call, when it is back in the creator, when the task is joined or reaped.
 * The kinds named _first have a fourth, the first thing that their body does; they are kinds of their own because
 * a child that reads the clock touches pages that it would not touch otherwise.
 * Every start is waited for before the next thing happens, so no error or signal can leave a zombie behind.
 *
 * What the child may do. fork's child has memory of its own, and ends by a raw system call. The VM children run on
 * the creator's thread-local storage (no CLONE_SETTLS), beside a creator that runs too: they must touch nothing of it,
 * errno included, and no signal handler may run in them. Hence all signals are blocked around them; a Ctrl-C
 * waits for the end of the chunk. */
#ifndef TC_BARE_LOOP_H
#define TC_BARE_LOOP_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

#define STACK_SIZE (64 * 1024)
#define CHUNK 256            /* launches ... */
#define CHUNK_NS 50000000ull /* ... or nanoseconds, after which signals are looked at */

#define MOST_TIMES 3

struct burden;  /* bare_burden.h */
struct partner; /* bare_switch.h */

struct bare {
    const struct kind *kind;
    uint64_t *ns[MOST_TIMES]; /* by the kind's times; each has room for count values */
    size_t count;             /* wanted */
    size_t done;
    uint64_t deadline; /* CLOCK_MONOTONIC, ns */
    char *stack;       /* of a VM child */
    struct common *common;
    struct burden *burden;   /* what this process carries; NULL in an interpreter */
    struct partner *partner; /* of the kinds that talk to one */
    int no_clone3;           /* missing or filtered: glibc's clone() does it */
    const char *call;        /* the call that failed */
    int status;              /* wait status of a body that did not end as it should */
};

/* A page that creator and child have in common, whatever else they share. */
struct common {
    _Atomic uint64_t first; /* ns, written by the body */
    _Atomic uint32_t go;
};

struct kind {
    const char *name;
    const char *times[MOST_TIMES]; /* what launch() measures, in this order */
    uint64_t flags;                /* of the VM kinds */
    int (*launch)(struct bare *b, uint64_t *ns);
    int (*open)(struct bare *b); /* before the first launch; NULL: nothing to do. Like launch: 0 or -errno */
    void (*close)(struct bare *b);
};

static inline uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static int fail(struct bare *b, const char *call, int error)
{
    b->call = call;
    return -error;
}

static int reap(struct bare *b, pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, __WALL) < 0)
        if (errno != EINTR) return fail(b, "waitpid", errno);
    b->status = status;
    return status ? fail(b, "body", EPROTO) : 0;
}

/* What every body does: nothing, or say when it began. */
static inline void body_of(struct common *tell)
{
    if (tell) atomic_store(&tell->first, now_ns());
}

static inline int tells_first(const struct kind *kind) { return kind->times[2] != NULL; }

static inline struct common *to_tell(struct bare *b) { return tells_first(b->kind) ? b->common : NULL; }

static void keep_times(struct bare *b, uint64_t *ns, uint64_t before, uint64_t started, uint64_t ended)
{
    ns[0] = started - before;
    ns[1] = ended - before;
    if (tells_first(b->kind)) ns[2] = atomic_load(&b->common->first) - before;
}

/* fork */

static int launch_fork(struct bare *b, uint64_t *ns)
{
    struct common *tell = to_tell(b);
    uint64_t before = now_ns();
    pid_t pid = fork();
    if (pid == 0) {
        body_of(tell);
        for (;;) TC_SYS(SYS_exit_group, 0);
    }
    uint64_t started = now_ns();
    if (pid < 0) return fail(b, "fork", errno);
    int r = reap(b, pid);
    keep_times(b, ns, before, started, now_ns());
    return r;
}

/* pthread */

static void *thread_body(void *tell)
{
    body_of(tell);
    return tell;
}

static int launch_pthread(struct bare *b, uint64_t *ns)
{
    pthread_t thread;
    struct common *tell = to_tell(b);
    uint64_t before = now_ns();
    int r = pthread_create(&thread, NULL, thread_body, tell);
    uint64_t started = now_ns();
    if (r) return fail(b, "pthread_create", r);
    r = pthread_join(thread, NULL);
    keep_times(b, ns, before, started, now_ns());
    return r ? fail(b, "pthread_join", r) : 0;
}

/* CLONE_VM, with and without CLONE_VFORK. The clock is read in the vdso, which touches no thread-local storage. */

static void vm_body(void *tell)
{
    body_of(tell);
    for (;;) TC_SYS(SYS_exit, 0);
}

struct vm_call {
    void (*body)(void *);
    void *arg;
};

static int vm_body_libc(void *call)
{
    ((struct vm_call *)call)->body(((struct vm_call *)call)->arg);
    return 0;
}

/* The body ends by a raw exit. call: lives until the child is gone, where clone3 is missing. */
static long vm_clone(struct bare *b, uint64_t flags, struct vm_call *call)
{
    if (!b->no_clone3) {
        struct clone_args args = {.flags = flags, .stack = (uintptr_t)b->stack, .stack_size = STACK_SIZE};
        long r = tc_clone3(&args, sizeof args, call->body, call->arg);
        if (r != -ENOSYS) return r;
        b->no_clone3 = 1;
    }
    int r = clone(vm_body_libc, b->stack + STACK_SIZE, (int)flags, call);
    return r < 0 ? -errno : r;
}

static int vm_failed(struct bare *b, long r) { return fail(b, b->no_clone3 ? "clone" : "clone3", (int)-r); }

static int launch_vm(struct bare *b, uint64_t *ns)
{
    struct vm_call call = {vm_body, to_tell(b)};
    uint64_t before = now_ns();
    long pid = vm_clone(b, b->kind->flags, &call);
    uint64_t started = now_ns();
    if (pid < 0) return vm_failed(b, pid);
    int r = reap(b, (pid_t)pid);
    keep_times(b, ns, before, started, now_ns());
    return r;
}

#define TIMES {"start", "total"}
#define TIMES_FIRST {"start", "total", "first"}

static const struct kind kinds[] = {
    {"fork", TIMES, 0, launch_fork},
    {"pthread", TIMES, 0, launch_pthread},
    {"vm_vfork", TIMES, CLONE_VM | CLONE_VFORK, launch_vm},
    {"vm", TIMES, CLONE_VM, launch_vm},
    {"fork_first", TIMES_FIRST, 0, launch_fork},
    {"pthread_first", TIMES_FIRST, 0, launch_pthread},
    {"vm_vfork_first", TIMES_FIRST, CLONE_VM | CLONE_VFORK, launch_vm},
    {"vm_first", TIMES_FIRST, CLONE_VM, launch_vm},
};

/* The loop */

static int times_of(const struct kind *kind)
{
    int count = 0;
    while (count < MOST_TIMES && kind->times[count]) count++;
    return count;
}

/* Up to a chunk of launches; 0 or -errno. */
static int run_chunk(struct bare *b)
{
    sigset_t all, old;
    if (b->kind->flags) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
    }
    int r = 0;
    uint64_t pause = now_ns() + CHUNK_NS, now = 0;
    for (int i = 0; i < CHUNK && b->done < b->count && now < pause && now < b->deadline; i++) {
        uint64_t ns[MOST_TIMES] = {0};
        r = b->kind->launch(b, ns);
        if (r) break;
        for (int time = 0; time < times_of(b->kind); time++) b->ns[time][b->done] = ns[time];
        b->done++;
        now = now_ns();
    }
    if (b->kind->flags) pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static const struct kind *find_kind(const struct kind *table, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

#define FIND_KIND(table, name) find_kind((table), sizeof(table) / sizeof *(table), (name))

/* 0 or -errno; end it with bare_close(). */
static int bare_open(struct bare *b, double seconds)
{
    b->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    b->common = mmap(NULL, sizeof *b->common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->stack == MAP_FAILED || b->common == MAP_FAILED) return fail(b, "mmap", errno);
    int r = b->kind->open ? b->kind->open(b) : 0;
    b->deadline = now_ns() + (uint64_t)(seconds * 1e9);
    return r;
}

static void bare_close(struct bare *b)
{
    if (b->kind->close) b->kind->close(b);
    if (b->stack != MAP_FAILED) munmap(b->stack, STACK_SIZE);
    if (b->common != MAP_FAILED) munmap(b->common, sizeof *b->common);
}

/* What went wrong, in words, for whoever reports it. */
static void bare_explain(const struct bare *b, int error, char *text, size_t size)
{
    if (b->status)
        snprintf(text, size, "the body of a bare %s ended with wait status %#x", b->kind->name, (unsigned)b->status);
    else
        snprintf(text, size, "%s: %s", b->call, strerror(error));
}

#endif
