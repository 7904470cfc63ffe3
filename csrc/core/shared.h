/* A task that shares memory: its record, and the host that lends it thread-local storage.
 *
 * The task owns the host's TLS from its first instruction until the kernel has run mm_release() for it. Nobody else may
 * touch that TLS meanwhile: no libc call, no errno, no signal handler in the host. Every system call of a host is raw.
 *
 *   caller.c        who the caller is; nothing of what follows is asked there
 *   record.c        the record's life; its descriptor, signals, zombie
 *   body.c          running the body, and what it leaves
 *   route_shared.c  start: the child's main function, hosted and in place
 *   route_thread.c  the same record and body, for a thread: TLS of its own, no host
 *   exchange.c      a thread whose kernel task the caller has cloned
 *   host.c          host threads, the pool of parked ones
 *   forks.c         what happens around a fork
 *   bell.c          descriptors that tell event loops of an outcome
 *   descriptor.c    other descriptors, and who closes them
 *   settle.c        zombie, status and host of a task that has ended
 *   keeper.c        the thread that makes hosts for tasks and carries out ends that signals ask for
 *   death.c         what is done on the host after an abnormal death, and later by whoever looks at the task
 *   dumpable.c      what a task that has changed its ids leaves of the memory's rights
 *   watchdog.c      what names a wait that will never end, after a death
 *   ending.c        one look at a task that shall end
 *   threads.c       the guard of _thread.start_new_thread
 *   pollable.c      what an event loop can watch of a task
 *   handle.c        the Python object
 *   stats.c         what can be asked about all of them together
 */
#ifndef TC_SHARED_H
#define TC_SHARED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "child.h"
#include "wait.h"

/* Values of tc_task.state, which is a futex word and only grows. */
enum { TC_NEW, TC_STARTED, TC_DONE, TC_ENDED }; /* DONE: the outcome is there; ENDED: dead, and recovered from */

struct tc_host;
struct lender;

/* What a bell hangs on: the record's, for ever. Bells come and go. */
struct tc_hook {
    struct tc_hook *next;
    _Atomic int fd; /* to be rung; -1: it is free */
};

struct tc_task {
    struct tc_signals signals; /* what the task's TLS points to: first, so that a cast gives the task */
    struct tc_report report;
    struct tc_spec spec;
    char name[16];
    struct tc_host *host;
    struct lender *lender;                         /* of a thread, while it begins: see exchange.c */
    struct tc_task *next, *previous;               /* list of those not ENDED */
    struct tc_task *grave;                         /* list of those that the creator may free */
    struct tc_task *done_next;                     /* list of those that wait to be settled */
    _Atomic uint32_t state, waiters[TC_ENDED + 1]; /* waiters: by the state that they wait for */
    _Atomic(struct tc_hook *) bells;               /* of those who await it in an event loop */
    _Atomic int ringing;
    unsigned generation;
    int dumpable; /* of the memory, when it was started */
    /* futex: 1 until the kernel has run mm_release() for a hosted task, or for a lent one whose body has ended */
    _Atomic uint32_t alive, watchers; /* watchers: those who sleep on it */
    _Atomic uint32_t clean;           /* the body ended and gave its thread state back */
    _Atomic int references;           /* Python handles, host */
    _Atomic pid_t pid;
    _Atomic int pidfd; /* -1 until somebody wants it, or from birth: tc_others_reap(); closed by whoever takes it out */
    _Atomic int reaping, holds; /* reaping waits until nobody holds; see tc_task_reaping() */
    _Atomic int orphan;         /* no Python handle is left: the host closes it */
    int in_place, daemon;
    int lent;             /* started by the caller itself, on the TLS of a host that sleeps meanwhile */
    _Atomic int finished; /* on its way to the list of those that wait to be settled */
    int thread;           /* a thread: pid is its thread id */
    uint64_t own;         /* what a thread has of its own, as flags of unshare(2) */
    _Atomic int rings;    /* pidfd is an eventfd, which the thread writes to at its end (before Linux 6.9) */
    /* known_place: ended by us where it can hold no lock of libc or the interpreter */
    _Atomic int known_place, killed;
    struct tc_status status;
    int exit_code;
    int malloc_stuck;
    _Atomic uint32_t examined; /* futex: 1 while a thread looks for what the death has left behind, 2 once it has */
    uint64_t serial;           /* no other record has had it */
    /* guarded by the interpreter lock */
    int handles;
    int cancelled;       /* end asked for before the body began: it never runs */
    int interrupted;     /* an asynchronous exception was set */
    int asked;           /* somebody has had the exception, or been told of it */
    PyThreadState *ts;   /* while the body runs */
    PyThreadState *dead; /* after an abnormal death, until it has been abandoned */
    unsigned long ident; /* threading.get_ident() of the body */
    PyObject *fn, *args, *kwargs, *context, *value, *exception, *stack, *cancel, *setup;
    PyObject *damage; /* what the death has left behind: a tuple of str */
    PyObject *entry;  /* what threading.enumerate() shows for a thread */
};
/* What a record refers to, but for `cancel`, which an autopsy still wants. */
#define TC_OBJECTS(task)                                                                                               \
    &(task)->fn, &(task)->args, &(task)->kwargs, &(task)->context, &(task)->value, &(task)->exception, &(task)->stack, \
        &(task)->setup, &(task)->entry, &(task)->damage

/* Values of tc_host.word, a futex word.
 *
 * LENT: the TLS is a task's that another thread has started. The kernel clears the word when such a task dies or calls
 * execve (CLONE_CHILD_CLEARTID), and so wakes the host; a task whose body has ended points the kernel elsewhere first,
 * and the host sleeps on. Whoever turns LENT into BUSY owns the host. */
enum { TC_GONE, TC_PARKED, TC_BUSY, TC_LENT, TC_SETTLE, TC_GO, TC_RECOVER, TC_QUIT };

struct tc_host {
    _Atomic uint32_t word, ready;
    struct tc_task *task;
    struct tc_host *next;
    pid_t tid;
    char *stack, *top; /* of the child: below the probe's stack and the host's own frames */
    char *probe_top;
    void *tls, *rseq, *altstack;
    uint32_t rseq_size;
    size_t stack_size;
    uintptr_t arena; /* of malloc, from which this thread is served */
    size_t altstack_size;
    int pooled;
};

/* Bytes between the child's stack and the host's frames: the upper half is the host's, the lower the probe's. So what
 * the dead left on its stack (3.11 and 3.12 keep the chain of frames there) is still there for the post-mortem. */
enum { TC_RESERVE = 256 << 10 };

struct tc_counters {
    _Atomic int hosts, idle, retired, abandoned, malloc_deaths, threads;
};

/* caller.c */
extern struct tc_counters tc_counters;
struct tc_task *tc_current_task(void); /* NULL: in none that shares memory */
int tc_on_main_thread(void);   /* without a system call; never true where the module was imported by another thread */
extern void *tc_main_thread;   /* its thread pointer */
extern int tc_keep_hosts;      /* set around a fork of our own, which idle hosts do not disturb */
extern unsigned tc_generation; /* counted up in the child of a fork: whose tasks and descriptors are these */
extern int tc_borrowed_files;  /* this copy's descriptors are its creator's */
extern unsigned tc_closed_generation; /* in this copy all descriptors of earlier generations were closed */
/* Whether the descriptor of an object of that generation is this process's own, and still the same file. */
int tc_may_close(unsigned generation);
int tc_own_files(void);       /* the creator's descriptor numbers are ours too */
uint64_t tc_file_table(void); /* which the caller has: 0 the creator's, else one of its own */
/* In a thread that has unshared something. Initial-exec: the first touch of another kind of TLS may call malloc. */
#define TC_TLS __attribute__((tls_model("initial-exec"), visibility("hidden")))
extern __thread char tc_private TC_TLS;       /* anything */
extern __thread char tc_private_files TC_TLS; /* its file table */

/* host.c */
int tc_host_take(size_t stack_size, struct tc_host **host); /* 0 or -errno; with the interpreter lock */
void tc_host_give_back(struct tc_host *host);               /* one that was taken and not used */
void tc_host_wake(struct tc_host *host, uint32_t word);
PyObject *tc_hosts_end(PyObject *module, PyObject *unused); /* ends the idle ones and the keeper, and waits */
void tc_hosts_after_fork(void);
/* Bytes of a thread whose body may use `asked`, or the default of threads. */
size_t tc_stack_bytes(size_t asked);
/* The area of the calling thread, for a task on the same TLS to register, or NULL. It does without from then on. */
void *tc_give_up_rseq(uint32_t *size);
/* Starts a detached thread with every signal blocked. 0 or -errno. */
int tc_thread_new(void *(*body)(void *), void *argument, size_t stack_size);
int tc_host_new(size_t stack_size, struct tc_host **made); /* not in a task: it would die with it */

/* forks.c */
int tc_forks_init(void);
PyObject *tc_before_fork(PyObject *module, PyObject *unused);
/* In the child of a fork: none of the creator's threads and tasks is here. pthread_atfork sees to it, where there is a
 * fork. */
void tc_in_copy(void);
PyObject *tc_generation_now(PyObject *module, PyObject *unused);
/* But idle hosts and those of `harmless`: NULL, or a tuple with a list for each of some threads, in which its kernel id
 * is as long as it holds no lock. With the interpreter lock, and true until that is given up. How many, or -errno: not
 * to be known. */
int tc_other_threads(PyObject *harmless);

/* keeper.c */
int tc_keeper_ensure(void);                                        /* with the interpreter lock. 0 or -errno */
int tc_keeper_make_host(size_t stack_size, struct tc_host **host); /* for a task. 0 or -errno */
pid_t tc_keeper_quit(void); /* its thread id, or 0: there is none, or it is busy */
void tc_keeper_gone(void);  /* after its thread has ended */
void tc_keeper_after_fork(void);
int tc_keeper_idle(void);            /* 1 where its thread is there and waits */
int tc_own_futex(uintptr_t address); /* one on which a task waits for the keeper */
PyObject *tc_after_fork(PyObject *module, PyObject *unused);
PyObject *tc_set_end_hook(PyObject *module, PyObject *hook);
extern _Atomic uint32_t tc_end_bell;

/* record.c */
struct tc_task *tc_task_new(PyObject *fn, PyObject *args, PyObject *kwargs, PyObject *cancel); /* or an exception */
void tc_task_list(struct tc_task *task);
void tc_task_unlist(struct tc_task *task);
struct tc_task *tc_task_first_end_request(void);                    /* with a reference */
int tc_task_any(int (*test)(pid_t pid), const struct tc_task *but); /* of those that have not ended */
/* All that have not ended, each with a reference, NULL at the end; NULL: no memory. Given back as a whole. */
struct tc_task **tc_task_all(void);
void tc_task_all_done(struct tc_task **all);
void tc_task_publish(struct tc_task *task, uint32_t state);
void tc_ring_bells(struct tc_task *task); /* DONE or ENDED has been set; raw system calls */
void tc_ring(int eventfd);
/* Waits until the state is `want` or more, or the timeout is over (NULL: for ever). 0 or -errno; may return early. */
long tc_task_wait(struct tc_task *task, uint32_t seen, uint32_t want, const struct timespec *timeout);
void tc_task_release(struct tc_task *task); /* async-safe: the last one goes to the graveyard */
void tc_bury_dead(void);                    /* with the interpreter lock: frees the graveyard */
void tc_tasks_after_fork(void);
/* A pidfd that is surely the task's, or -errno: ESRCH when it has been reaped. */
int tc_open_pidfd(struct tc_task *task);
/* Sends a signal through a pidfd, never to another process. 0, -ESRCH (it has ended) or another -errno. */
long tc_task_signal(struct tc_task *task, int sig);
/* Its id may be another's any moment: with an exit signal any wait() may take it, with AUTOREAP the kernel does. */
int tc_others_reap(const struct tc_task *task);
/* Once, whoever calls: takes the zombie of a task with an exit signal, and closes the pidfd. Raw system calls. */
void tc_task_close(struct tc_task *task);
void tc_task_reap(struct tc_task *task, int pidfd);
/* Before the call that takes the zombie: until then the id is the task's own. */
void tc_task_reaping(struct tc_task *task);

/* settle.c */
void tc_task_finish(struct tc_task *task); /* by a lent task, at its clean end: system calls and atomics only */
/* Takes the zombie of a lent task whose body has ended, and gives its host back. True when the task is ENDED. */
int tc_settle(struct tc_task *task);
void tc_settle_finished(void); /* all that can be settled without waiting */
/* Waits for the end of a lent task whose body has ended: the zombie comes a moment after the outcome. */
void tc_settle_soon(struct tc_task *task);
/* Sleeps until the kernel has let go of a lent task's memory, or the timeout is over; may return early. */
long tc_watch(struct tc_task *task, const struct timespec *timeout);
void tc_settle_after_fork(void);
void tc_take_status(struct tc_task *task); /* waits for its end */

/* route_shared.c */
void tc_run_hosted(struct tc_host *host, struct tc_task *task);
PyObject *tc_shared_start(PyObject *module, PyObject *args);

/* body.c */
int tc_body_init(void);
void tc_run_body(struct tc_task *task); /* on a fresh thread state */
/* A thread's exception that nobody can ask for any more, to the hook of the Python side. Keeps what is raised. `entry`:
 * what threading.enumerate() shows for it, or NULL: it is gone. */
void tc_tell_uncaught(struct tc_task *task, PyObject *entry);
PyObject *tc_set_uncaught_hook(PyObject *module, PyObject *hook);

/* route_thread.c */
PyObject *tc_thread_start(PyObject *module, PyObject *args);
void tc_thread_live(struct tc_task *task); /* on the thread: its body, unless a step has failed, and its end */

/* exchange.c */
/* Starts a thread with the flags of task->spec. With the interpreter lock, which it gives up for a CLONE_VFORK.
 * TC_STEP_NONE, or what failed, with a positive errno. */
enum tc_step tc_exchange(struct tc_task *task, size_t stack_size, int *error);

/* death.c */
void tc_recover(struct tc_host *host, struct tc_task *task); /* on the host */
void tc_post_mortem(struct tc_task *task);                   /* with the interpreter lock, on any thread */
/* Runs body(argument) in a short-lived task on the host's storage, where it may crash or hang. True when it came to its
 * end within about so many milliseconds; else where it waited, if the caller wants to know (tc_endless_wait). Raw
 * system calls. */
int tc_try(struct tc_host *host, void (*body)(void *), void *argument, int milliseconds, uintptr_t *hung_at);
PyObject *tc_set_damage_hook(PyObject *module, PyObject *hook);
int tc_malloc_limit(void);
int tc_death_init(void);
int tc_in_libc(uintptr_t pc, int or_python);

/* dumpable.c */
int tc_dumpable(void);
void tc_keep_dumpable(struct tc_task *task); /* it is a zombie, and about to be reaped */

/* ending.c */
void tc_looks_after_fork(void);
PyObject *tc_look(struct tc_task *task, uintptr_t futex, int write_fd, int user);

/* threads.c */
int tc_guard_threads(void);
int tc_may_start_thread(void); /* else with an exception */

/* pollable.c */
/* What fileno() gives: a pidfd, or an eventfd where there is none. -1 with an exception. */
int tc_task_descriptor(struct tc_task *task);
PyObject *tc_task_bell(struct tc_task *task); /* readable once the state is DONE */

/* handle.c */
int tc_shared_ready(PyObject *module);
PyObject *tc_handle_for(struct tc_task *task);

/* stats.c */
PyObject *tc_shared_live(PyObject *module, PyObject *unused);
PyObject *tc_threads_running(PyObject *module, PyObject *unused);
PyObject *tc_shared_stats(PyObject *module, PyObject *unused);
PyObject *tc_in_task(PyObject *module, PyObject *unused);
PyObject *tc_thread_known(PyObject *module, PyObject *native_id);

#endif
