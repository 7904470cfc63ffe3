/* What happens around a fork, whoever makes it: of the creator, of a task, in C or in Python. */
#include "shared.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "descriptor.h"
#include "error.h"
#include "rawfork.h"
#include "sys.h"
#include "watchdog.h"

PyObject *tc_generation_now(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLong(tc_generation);
}

/* A task whose result is there ends in a moment, and only then is its host idle: at most 50 ms for all. */
static void await_done_tasks(void)
{
    struct timespec pause = {0, 1000000};
    int tries = 50;
    tc_settle_finished();
    struct tc_task **all = tc_task_all();
    for (struct tc_task **at = all; at && *at; at++)
        for (; tries && atomic_load(&(*at)->state) == TC_DONE; tries--) {
            if ((*at)->lent) tc_settle_soon(*at);
            tc_task_wait(*at, TC_DONE, TC_ENDED, &pause);
        }
    tc_task_all_done(all);
}

/* before_fork(): an exception here does not stop the fork, but it is printed; then the hang has a name. */
PyObject *tc_before_fork(PyObject *module, PyObject *unused)
{
    if (atomic_load(&tc_counters.malloc_deaths) && !tc_current_task())
        return PyErr_Format(PyExc_RuntimeError,
                            "a task died inside malloc and keeps an arena of it locked: fork() takes the locks of all "
                            "arenas, and will hang now. Restart this process; programs can still be started by vfork");
    if (!tc_keep_hosts && !tc_current_task()) {
        Py_BEGIN_ALLOW_THREADS;
        await_done_tasks();
        Py_END_ALLOW_THREADS;
    }
    return tc_hosts_end(module, unused);
}

/* A signal to a task's own child that came before its handlers are reset would be lost in them. */
static void before_any_fork(void)
{
    if (tc_current) tc_block_signals(&tc_current->fork_mask);
}
static void after_any_fork(void)
{
    if (tc_current) TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &tc_current->fork_mask, 0, sizeof tc_current->fork_mask);
}

void tc_in_copy(void)
{
    tc_generation++;
    tc_borrowed_files = 0;
    tc_main_thread = tc_thread_pointer();
    tc_hosts_after_fork();
    tc_keeper_after_fork();
    tc_looks_after_fork();
    tc_watchdog_after_fork();
    tc_descriptors_after_fork();
    if (tc_current) tc_reset_handlers(); /* forked by a task: what its handlers do is the task's affair */
    tc_counters.threads = 0;
    tc_current = NULL;
    tc_private = tc_private_files = 0; /* what this thread has of its own is the whole process's here */
    tc_tasks_after_fork();
    tc_settle_after_fork();
}

static void in_forked_child(void)
{
    struct tc_signals *task = tc_current;
    tc_in_copy();
    if (task) TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &task->fork_mask, 0, sizeof task->fork_mask);
}

/* ---- threads that a bare copy would lose ------------------------------------------------------------------------ */

/* How many of these threads there are now: counted earlier, one that ends meanwhile would hide another. */
static int alive_of(PyObject *places)
{
    int alive = 0;
    for (Py_ssize_t i = 0; places && i < PyTuple_GET_SIZE(places); i++) {
        PyObject *ids = PyTuple_GET_ITEM(places, i);
        if (!PyList_Check(ids) || !PyList_GET_SIZE(ids)) continue;
        char path[64];
        struct stat task;
        PyOS_snprintf(path, sizeof path, "/proc/self/task/%ld", PyLong_AsLong(PyList_GET_ITEM(ids, 0)));
        alive += stat(path, &task) == 0;
    }
    return alive;
}

int tc_other_threads(PyObject *harmless)
{
    /* One that was joined, or a host that retires, may be seen a moment longer. */
    const struct timespec pause = {0, 100000};
    for (int i = 0, others = 0;; i++) {
        tc_settle_finished();
        if (TC_SYS(SYS_unshare, CLONE_THREAD) == 0) return 0; /* it refuses this where there are threads */
        struct stat task;
        if (stat("/proc/self/task", &task)) return -errno;
        others = (int)task.st_nlink - 3 - alive_of(harmless) - atomic_load(&tc_counters.idle) - tc_keeper_idle() -
                 tc_watchdog_there();
        if (others <= 0) return 0;
        if (i == 100) return others;
        TC_SYS(SYS_nanosleep, &pause, 0);
    }
}

/* ----------------------------------------------------------------------------------------------------------------- */

/* From what glibc tells debuggers (nptl_db.h). */
static void find_libc_tid(void)
{
    const uint32_t *field = dlsym(RTLD_DEFAULT, "_thread_db_pthread_tid"); /* bits, number, offset */
    const uint32_t *size = dlsym(RTLD_DEFAULT, "_thread_db_sizeof_pthread");
    if (field && size && field[0] == 32) tc_libc_tid_offset = (long)field[2] - tc_thread_descriptor((long)*size);
}

int tc_forks_init(void)
{
    find_libc_tid();
    if (TC_SYS(SYS_gettid) == TC_SYS(SYS_getpid)) tc_main_thread = tc_thread_pointer();
    int err = pthread_atfork(before_any_fork, after_any_fork, in_forked_child);
    if (err) tc_raise(err, "pthread_atfork");
    return err ? -1 : 0;
}
