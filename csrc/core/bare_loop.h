/* Bare starts: a C loop launches a body that does nothing and waits for it, n times. No Python in here: route_bare.c
 * runs the loop inside an interpreter, bare_program.c as a program of a few pages, which is what a C program's fork
 * has to copy. (The functions are static so that each of the two is complete with this one file.)
 *
 * Three clock readings a launch: before the call, when it is back in the creator, when the task is joined or reaped.
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

struct bare {
    const struct kind *kind;
    uint64_t *start_ns;
    uint64_t *total_ns;
    size_t count; /* wanted */
    size_t done;
    uint64_t deadline; /* CLOCK_MONOTONIC, ns */
    char *stack;       /* of a VM child */
    int no_clone3;     /* missing or filtered: glibc's clone() does it */
    const char *call;  /* the call that failed */
    int status;        /* wait status of a body that did not end as it should */
};

struct stamps {
    uint64_t before, started, ended;
};

struct kind {
    const char *name;
    uint64_t flags; /* of the VM kinds */
    int (*launch)(struct bare *b, struct stamps *t);
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

/* fork */

static int launch_fork(struct bare *b, struct stamps *t)
{
    t->before = now_ns();
    pid_t pid = fork();
    if (pid == 0)
        for (;;) TC_SYS(SYS_exit_group, 0);
    t->started = now_ns();
    if (pid < 0) return fail(b, "fork", errno);
    int r = reap(b, pid);
    t->ended = now_ns();
    return r;
}

/* pthread */

static void *thread_body(void *arg) { return arg; }

static int launch_pthread(struct bare *b, struct stamps *t)
{
    pthread_t thread;
    t->before = now_ns();
    int r = pthread_create(&thread, NULL, thread_body, NULL);
    t->started = now_ns();
    if (r) return fail(b, "pthread_create", r);
    r = pthread_join(thread, NULL);
    t->ended = now_ns();
    return r ? fail(b, "pthread_join", r) : 0;
}

/* CLONE_VM, with and without CLONE_VFORK */

static void vm_body(void *arg)
{
    (void)arg;
    for (;;) TC_SYS(SYS_exit, 0);
}

static int vm_body_libc(void *arg)
{
    vm_body(arg);
    return 0;
}

static long vm_clone(struct bare *b, uint64_t flags)
{
    if (!b->no_clone3) {
        struct clone_args args = {.flags = flags, .stack = (uintptr_t)b->stack, .stack_size = STACK_SIZE};
        long r = tc_clone3(&args, sizeof args, vm_body, NULL);
        if (r != -ENOSYS) return r;
        b->no_clone3 = 1;
    }
    int r = clone(vm_body_libc, b->stack + STACK_SIZE, (int)flags, NULL);
    return r < 0 ? -errno : r;
}

static int launch_vm(struct bare *b, struct stamps *t)
{
    t->before = now_ns();
    long pid = vm_clone(b, b->kind->flags);
    t->started = now_ns();
    if (pid < 0) return fail(b, b->no_clone3 ? "clone" : "clone3", (int)-pid);
    int r = reap(b, (pid_t)pid);
    t->ended = now_ns();
    return r;
}

static const struct kind kinds[] = {
    {"fork", 0, launch_fork},
    {"pthread", 0, launch_pthread},
    {"vm_vfork", CLONE_VM | CLONE_VFORK, launch_vm},
    {"vm", CLONE_VM, launch_vm},
};

/* The loop */

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
        struct stamps t;
        r = b->kind->launch(b, &t);
        if (r) break;
        b->start_ns[b->done] = t.started - t.before;
        b->total_ns[b->done] = t.ended - t.before;
        b->done++;
        now = t.ended;
    }
    if (b->kind->flags) pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
    return NULL;
}

/* 0 or -errno; end it with bare_close(). */
static int bare_open(struct bare *b, double seconds)
{
    b->deadline = now_ns() + (uint64_t)(seconds * 1e9);
    b->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (b->stack != MAP_FAILED) return 0;
    b->stack = NULL;
    return fail(b, "mmap", errno);
}

static void bare_close(struct bare *b)
{
    if (b->stack) munmap(b->stack, STACK_SIZE);
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
