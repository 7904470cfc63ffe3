/* What a child does before its body. See child.c for the contract. */
#ifndef TC_CHILD_H
#define TC_CHILD_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "report.h"

/* What a signal in a memory-sharing task writes to. One per task; found through thread-local storage. */
struct tc_signals {
    struct tc_report *report;
    uint64_t fork_mask;             /* the task's mask, while it forks */
    _Atomic uint32_t end_requested; /* the signal that asked for the end */
    _Atomic uint32_t *end_bell;     /* futex word of the creator's keeper, counted up at every request */
};

/* The kernel's struct sigaction, which is not libc's. */
struct tc_sigaction {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

struct clone_args;
struct tc_mailbox;

enum { TC_PID_LEVELS = 32 }; /* MAX_PID_NS_LEVEL */

/* Everything that a start needs, filled before the clone: the child allocates nothing. Unused fields are zero. */
struct tc_spec {
    uint64_t flags;       /* CLONE_* for clone3: what was asked plus what the route adds */
    unsigned relayed;     /* the caller ends at once, and its creator's is the new task: see tc_relay() */
    unsigned by_clone;    /* clone(2) did it: then flags is what that was given, see fallback.h */
    uint64_t emulated;    /* CLONE_* that it cannot say and that are done in another way */
    uint64_t exit_signal; /* 0 or a signal number */
    uint64_t sigmask;     /* the kernel's 64-bit mask for the body: the caller's, unless own_sigmask */
    const char *name;     /* for PR_SET_NAME, or NULL */
    struct tc_report *report;
    int parent_death;  /* signal at the end of the thread that clones; 0: none */
    pid_t creator;     /* thread group that must still be the parent */
    int creator_pidfd; /* with NEWPID, where getppid is 0, and with PARENT, where it is another's; else -1 */

    /* of the call itself, by tc_setup_from() too */
    int cgroup; /* descriptor of a control group's directory, with INTO_CGROUP */
    pid_t set_tid[TC_PID_LEVELS];
    unsigned set_tid_size;
    pid_t child_tid; /* for who names CHILD_SETTID or CHILD_CLEARTID, where the route has no use for them */

    /* a ChildSetup and streams, by tc_setup_from() */
    unsigned awaited; /* there is something of it: the creator waits for the end of the steps */
    unsigned own_sigmask, close_fds;
    uint64_t ignored, defaulted; /* signals, as masks */
    const char *cwd;
    unsigned no_new_privs;
    const char *uid_map, *gid_map; /* maps that the task may write itself, or NULL; and their lengths */
    size_t uid_map_size, gid_map_size;
    struct tc_mailbox *mailbox; /* of who writes them for it, or NULL */
    int streams[3];             /* descriptors for 0, 1, 2; -1: as they are */
    int kept_fd;                /* close_fds leaves it open; below 3: none */

    /* tasks that share memory */
    struct tc_signals *signals;
    void *rseq; /* area on the host's TLS, or NULL */
    uint32_t rseq_size;
    void *altstack;
    size_t altstack_size;
    unsigned kernel_core; /* leave fatal signals to the kernel */

    /* programs */
    char *const *argv, *const *envp;
    const char *const *paths; /* candidates for execve, NULL at the end */
};

/* 1, 0, or -errno. By its pidfd where there is one, else by the parent's id. */
int tc_creator_gone(const struct tc_spec *spec);

typedef int (*tc_step_fn)(const struct tc_spec *spec);
struct tc_step_row {
    enum tc_step step;
    tc_step_fn run;
};

int tc_step_no_new_privs(const struct tc_spec *spec);
int tc_step_clear_handlers(const struct tc_spec *spec);
int tc_step_rseq(const struct tc_spec *spec);
int tc_step_parent_death(const struct tc_spec *spec);
int tc_step_name_task(const struct tc_spec *spec);
int tc_step_altstack(const struct tc_spec *spec);
int tc_step_fatal_handlers(const struct tc_spec *spec);
int tc_step_handlers(const struct tc_spec *spec);
int tc_step_default_signals(const struct tc_spec *spec);
int tc_step_signals(const struct tc_spec *spec);
int tc_step_sigmask(const struct tc_spec *spec);
int tc_step_chdir(const struct tc_spec *spec);
int tc_step_streams(const struct tc_spec *spec);
int tc_step_close_fds(const struct tc_spec *spec);
int tc_step_exec(const struct tc_spec *spec);

/* Runs the steps up to the row TC_STEP_NONE. The first that fails is written to spec->report; returns 0 or -errno. */
int tc_run_steps(const struct tc_spec *spec, const struct tc_step_row *rows);

extern const struct tc_step_row tc_copied_steps[];  /* a Python body in memory of its own, if its plan asks for any */
extern const struct tc_step_row tc_shared_steps[];  /* a Python body in the creator's memory */
extern const struct tc_step_row tc_program_steps[]; /* ends in execve */

/* The signals of the task that runs on this thread-local storage, or NULL. */
extern __thread struct tc_signals *tc_current __attribute__((tls_model("initial-exec"), visibility("hidden")));

_Noreturn void tc_exit_task(int code);
/* Back to the default what tc_step_fatal_handlers and tc_step_handlers have set. */
void tc_reset_handlers(void);
/* Blocks every signal but 33 (glibc's SETXID: os.setuid() in the creator waits for an answer from each thread). */
void tc_block_signals(uint64_t *old);

#endif
