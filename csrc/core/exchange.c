/* A thread of the C library's whose kernel task is the caller's own clone: for what pthread_create cannot say.
 *
 * pthread_create makes the thread, stack and storage with it. It parks, and the caller clones onto its storage, with
 * the flags that were asked for, so that the new task shares with the caller and inherits from it. The kernel writes
 * the new task's id where libc keeps the thread's; the first task leaves by the bare system call; and the new one goes
 * on in the first one's frame. To libc it is the same thread from then on: signals by pthread_kill(), os.setuid() of
 * another thread, destructors and the end of the stack are all libc's own, and no second task waits for it. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>

#include "fallback.h"
#include "rawfork.h"
#include "shared.h"
#include "spec.h"
#include "sys.h"

/* For the handler of signal 33 in the parked task, and for the steps of the new one below it. */
enum { GAP = 64 << 10, STEPS = 32 << 10 };
enum { PARKED, LEAVE, STAY }; /* values of lender.word */

/* On the stack of the thread. */
struct lender {
    struct tc_task *task;
    _Atomic uint32_t word;  /* futex: what the parked task shall do */
    _Atomic uint32_t alive; /* futex: 1 until the kernel has let go of the parked task */
    jmp_buf frame;
    char *top; /* of the stack on which the new task begins */
    void *tls, *robust;
    size_t robust_size;
    pid_t *id;      /* where libc has it, or NULL: not to be found */
    pid_t *cleared; /* what the kernel clears at the thread's end: the same; from glibc 2.43 on a word that joiners
                       watch */
};

/* Between the caller and the thread, on the caller's stack. */
struct offer {
    struct tc_task *task;
    struct lender *lender;
    _Atomic uint32_t made;
};

/* ---- the thread ------------------------------------------------------------------------------------------------- */

/* By the first task. Returns when no other took its place. */
static __attribute__((noinline)) void park(struct lender *lender, struct offer *offer)
{
    lender->top = (char *)(((uintptr_t)__builtin_frame_address(0) - GAP) & ~63ul);
    offer->lender = lender;
    atomic_store(&offer->made, 1);
    tc_futex_wake(&offer->made);
    while (atomic_load(&lender->word) == PARKED) tc_futex_wait(&lender->word, PARKED, NULL);
    if (atomic_load(&lender->word) == STAY) return;
    /* The kernel clears this word in the place of libc's, which is the new task's. */
    TC_SYS(SYS_set_tid_address, &lender->alive);
    for (;;) TC_SYS(SYS_exit, 0);
}

static void *lender_main(void *argument)
{
    struct offer *offer = argument;
    struct tc_task *task = offer->task;
    struct lender lender = {.task = task, .alive = 1, .tls = tc_thread_pointer(), .id = tc_libc_tid()};
    if (TC_SYS(SYS_prctl, PR_GET_TID_ADDRESS, &lender.cleared) || !lender.cleared) lender.cleared = lender.id;
    TC_SYS(SYS_get_robust_list, 0, &lender.robust, &lender.robust_size);
    task->spec.rseq = tc_give_up_rseq(&task->spec.rseq_size);
    if (_setjmp(lender.frame) == 0) {
        park(&lender, offer);
        return NULL;
    }
    tc_thread_live(task);
    return NULL;
}

/* ---- the new task ----------------------------------------------------------------------------------------------- */

static int step_robust_list(const struct tc_spec *spec)
{
    struct tc_task *task = (struct tc_task *)spec->signals; /* its first member */
    struct lender *lender = task->lender;
    return lender->robust ? (int)TC_SYS(SYS_set_robust_list, lender->robust, lender->robust_size) : 0;
}

static void begin(void *argument)
{
    static const struct tc_step_row steps[] = {
        {TC_STEP_RSEQ, tc_step_rseq},
        {TC_STEP_ROBUST_LIST, step_robust_list},
        {TC_STEP_NAME, tc_step_name_task},
        {TC_STEP_SIGMASK, tc_step_sigmask},
        {TC_STEP_NONE, NULL},
    };
    struct lender *lender = argument;
    struct tc_task *task = lender->task;
    /* Clone(2) may have no place to report it, and the caller may sleep. */
    atomic_store(&task->pid, (pid_t)TC_SYS(SYS_gettid));
    *lender->id = task->pid; /* there already, where it is the word that the kernel clears */
    atomic_store(&lender->word, LEAVE);
    tc_futex_wake(&lender->word);
    while (atomic_load(&lender->alive)) tc_futex_wait(&lender->alive, 1, NULL);
    tc_run_steps(&task->spec, steps);
    _longjmp(lender->frame, 1);
}

/* ---- the caller ------------------------------------------------------------------------------------------------- */

static long clone_onto(struct lender *lender, struct tc_task *task)
{
    struct tc_spec *spec = &task->spec;
    struct clone_args args;
    uint64_t mask;
    task->lender = lender;
    spec->signals = &task->signals;
    spec->flags |= CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    if (lender->cleared == lender->id) spec->flags |= CLONE_CHILD_SETTID;
    tc_clone_args(spec, &args, (int *)&task->pidfd, (pid_t *)&task->pid);
    args.tls = (uint64_t)(uintptr_t)lender->tls;
    args.child_tid = (uint64_t)(uintptr_t)lender->cleared;
    args.stack = (uint64_t)(uintptr_t)(lender->top - STEPS);
    args.stack_size = STEPS;
    tc_block_signals(&mask);
    spec->sigmask = mask;
    long id = tc_start(spec, &args, begin, lender);
    /* If it succeeded the lender's frame may be gone by now. */
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    return id;
}

enum tc_step tc_exchange(struct tc_task *task, size_t stack_size, int *error)
{
    struct offer offer = {.task = task};
    int sleeps = (task->spec.flags & CLONE_VFORK) != 0;
    *error = -tc_thread_new(lender_main, &offer, tc_stack_bytes(stack_size));
    if (*error) return TC_STEP_PTHREAD;
    while (!atomic_load(&offer.made)) tc_futex_wait(&offer.made, 0, NULL);
    struct lender *lender = offer.lender;
    enum tc_step step = TC_STEP_LIBC_TID;
    long id = -ENOSYS;
    if (lender->id) {
        PyThreadState *state = sleeps ? PyEval_SaveThread() : NULL;
        id = clone_onto(lender, task);
        if (state) PyEval_RestoreThread(state);
        step = tc_start_step(&task->spec);
    }
    if (id > 0) return TC_STEP_NONE;
    *error = (int)-id;
    /* The kernel may have written a descriptor's number before it failed, and taken the descriptor back. */
    atomic_store(&task->pidfd, -1);
    atomic_store(&lender->word, STAY);
    tc_futex_wake(&lender->word);
    return step;
}
