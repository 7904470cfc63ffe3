/* The keeper: a thread that makes hosts for tasks (one made *by* a task would die with it) and sees to the ends that
 * signals ask for. */
#include "shared.h"

#include <errno.h>

#include "error.h"
#include "sys.h"

_Atomic uint32_t tc_end_bell;

enum { KEEPER_NONE, KEEPER_IDLE, KEEPER_BUSY, KEEPER_QUIT };
static _Atomic uint32_t keeper, make_lock, make_word; /* make_word: 0 free, 1 asked, 2 answered */
static size_t make_size;
static int make_error;
static struct tc_host *make_result;
static pid_t keeper_tid;
static PyObject *end_hook; /* called as end_hook(handle, signal) */

static void carry_out_ends(void)
{
    PyGILState_STATE lock = PyGILState_Ensure();
    for (struct tc_task *task; (task = tc_task_first_end_request());) {
        uint32_t sig = atomic_exchange(&task->signals.end_requested, 0);
        PyObject *handle = tc_handle_for(task); /* owns a reference to the task, as we do */
        tc_task_release(task);
        PyObject *done = handle && end_hook ? PyObject_CallFunction(end_hook, "OI", handle, sig) : NULL;
        if (!done && PyErr_Occurred()) PyErr_WriteUnraisable(handle);
        Py_XDECREF(done);
        Py_XDECREF(handle);
    }
    PyGILState_Release(lock);
}

static _Atomic uint32_t ender;
static void *ender_main(void *unused)
{
    carry_out_ends();
    atomic_store(&ender, 0);
    struct tc_task *late = tc_task_first_end_request(); /* came between the last look and the line above */
    if (late) {
        tc_task_release(late);
        atomic_fetch_add(&tc_end_bell, 1);
        tc_futex_wake(&tc_end_bell);
    }
    return unused;
}

static void *keeper_main(void *unused)
{
    (void)unused;
    keeper_tid = (pid_t)TC_SYS(SYS_gettid);
    atomic_store(&keeper, KEEPER_IDLE);
    tc_futex_wake(&keeper);
    for (;;) {
        uint32_t bell = atomic_load(&tc_end_bell), idle = KEEPER_IDLE;
        if (!atomic_compare_exchange_strong(&keeper, &idle, KEEPER_BUSY)) break; /* told to quit */
        if (atomic_load(&make_word) == 1) {
            make_error = tc_host_new(make_size, &make_result);
            atomic_store(&make_word, 2);
            tc_futex_wake(&make_word);
        }
        struct tc_task *task = tc_task_first_end_request();
        uint32_t none = 0;
        if (task) tc_task_release(task);
        /* On a thread of its own: an end may take seconds, and a task that is being ended may want a host meanwhile. */
        if (task && atomic_compare_exchange_strong(&ender, &none, 1) &&
            tc_thread_new(ender_main, NULL, tc_stack_bytes(0)))
            atomic_store(&ender, 0); /* no thread to be had: the next bell tries again */
        atomic_store(&keeper, KEEPER_IDLE);
        tc_futex_wait(&tc_end_bell, bell, NULL);
    }
    return NULL;
}

int tc_keeper_ensure(void)
{
    /* With the interpreter lock: nobody else starts one. */
    if (atomic_load(&keeper) != KEEPER_NONE) return 0;
    int err = tc_thread_new(keeper_main, NULL, tc_stack_bytes(0));
    while (!err && atomic_load(&keeper) == KEEPER_NONE) tc_futex_wait(&keeper, KEEPER_NONE, NULL);
    return err;
}

int tc_keeper_make_host(size_t stack_size, struct tc_host **host)
{
    int err;
    Py_BEGIN_ALLOW_THREADS;
    tc_spin_lock(&make_lock);
    make_size = stack_size;
    atomic_store(&make_word, 1);
    atomic_fetch_add(&tc_end_bell, 1);
    tc_futex_wake(&tc_end_bell);
    struct timespec look = {0, 100000000};
    while (atomic_load(&make_word) != 2 && atomic_load(&keeper) != KEEPER_NONE) tc_futex_wait(&make_word, 1, &look);
    err = atomic_load(&make_word) == 2 ? make_error : -EAGAIN; /* the creator has just ended its keeper, for a fork */
    *host = err ? NULL : make_result;
    atomic_store(&make_word, 0);
    tc_spin_unlock(&make_lock);
    Py_END_ALLOW_THREADS;
    return err;
}

int tc_own_futex(uintptr_t address) { return address == (uintptr_t)&make_word || address == (uintptr_t)&make_lock; }

/* ---- forks and the interpreter's exit --------------------------------------------------------------------------- */

pid_t tc_keeper_quit(void)
{
    uint32_t word = KEEPER_IDLE;
    if (!atomic_compare_exchange_strong(&keeper, &word, KEEPER_QUIT)) return 0;
    atomic_fetch_add(&tc_end_bell, 1);
    tc_futex_wake(&tc_end_bell);
    return keeper_tid;
}

void tc_keeper_gone(void)
{
    uint32_t word = KEEPER_QUIT;
    atomic_compare_exchange_strong(&keeper, &word, KEEPER_NONE);
}

int tc_keeper_idle(void) { return atomic_load(&keeper) == KEEPER_IDLE; }

void tc_keeper_after_fork(void)
{
    atomic_store(&keeper, KEEPER_NONE);
    atomic_store(&make_lock, 0);
    atomic_store(&make_word, 0);
    atomic_store(&ender, 0);
}

/* after_fork(), in the parent: running tasks need the keeper that before_fork() has ended. */
PyObject *tc_after_fork(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (tc_keep_hosts || tc_current_task() || tc_private) Py_RETURN_NONE;
    struct tc_task **all = tc_task_all(), **at = all;
    if (!all) return PyErr_NoMemory();
    while (*at && (*at)->thread) at++;
    int needed = *at != NULL;
    tc_task_all_done(all);
    if (!needed) Py_RETURN_NONE;
    int err = tc_keeper_ensure();
    if (err) return tc_raise(-err, "pthread_create");
    Py_RETURN_NONE;
}

PyObject *tc_set_end_hook(PyObject *module, PyObject *hook)
{
    (void)module;
    Py_XSETREF(end_hook, Py_NewRef(hook));
    Py_RETURN_NONE;
}
