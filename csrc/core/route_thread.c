/* A thread: pthread_create, so the exact set of flags that it passes, then unshare() of what the flags leave out; or,
 * for flags that pthread_create does not pass, a clone of the caller's own (exchange.c). */
#include "shared.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "interp.h"
#include "spec.h"
#include "sys.h"

void tc_thread_live(struct tc_task *task)
{
    int err;
    if (!tc_report_failed(&task->report, &err)) {
        tc_private = task->own != 0;
        tc_private_files = (task->own & CLONE_FILES) != 0;
        tc_task_publish(task, TC_STARTED);
        PyGILState_STATE lock = PyGILState_Ensure();
        tc_lend_chunk(PyThreadState_Get());
        tc_run_body(task);
        tc_take_chunk(PyThreadState_Get());
        PyGILState_Release(lock);
    }
    atomic_store(&task->clean, 1);
    tc_task_reaping(task); /* from here on the thread id may be another's any moment */
    atomic_fetch_sub(&tc_counters.threads, 1);
    tc_task_publish(task, TC_DONE);
    /* Whoever makes and marks it looks at the state then: one of us two rings. Before ENDED, when it may be closed. */
    if (atomic_load(&task->rings)) tc_ring(atomic_load(&task->pidfd));
    tc_task_publish(task, TC_ENDED);
    tc_task_release(task);
}

static void *thread_main(void *argument)
{
    struct tc_task *task = argument;
    task->pid = (pid_t)TC_SYS(SYS_gettid);
    int err = task->own ? (int)TC_SYS(SYS_unshare, task->own) : 0;
    if (err)
        tc_report_failure(&task->report, TC_STEP_UNSHARE, -err);
    else
        tc_step_name_task(&task->spec); /* cannot fail: the address is good */
    tc_thread_live(task);
    return NULL;
}

static int create(struct tc_task *task, size_t stack_size)
{
    pthread_attr_t attributes;
    int err = pthread_attr_init(&attributes);
    if (err) return err;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_size) err = pthread_attr_setstacksize(&attributes, stack_size);
    pthread_t thread;
    if (!err) err = pthread_create(&thread, &attributes, thread_main, task);
    pthread_attr_destroy(&attributes);
    return err;
}

/* thread_start(fn, args, kwargs, flags, own, stack_size, name, cancel, daemon, entry, set_tid=()) -> Shared
 *
 * flags: what clone is given, or 0: pthread_create; own: what the thread has of its own, by its flags or by unshare. */
PyObject *tc_thread_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *fn, *fn_args, *kwargs, *cancel, *entry, *set_tid = NULL;
    unsigned long long flags, own;
    int daemon;
    Py_ssize_t stack_size;
    const char *name;
    if (!PyArg_ParseTuple(args, "OO!OKKnO&OpO|O!:thread_start", &fn, &PyTuple_Type, &fn_args, &kwargs, &flags, &own,
                          &stack_size, tc_bytes_or_none, &name, &cancel, &daemon, &entry, &PyTuple_Type, &set_tid))
        return NULL;
    if (tc_guard_threads() < 0 || !tc_may_start_thread()) return NULL;
    if (!tc_main_interpreter())
        return tc_raise_named("UnsupportedOperation", "threads can be started by the main interpreter only");
    tc_bury_dead();
    struct tc_task *task = tc_task_new(fn, fn_args, kwargs, cancel);
    if (!task) return NULL;
    task->thread = 1;
    task->daemon = daemon;
    task->own = own;
    task->spec.flags = flags;
    task->entry = Py_NewRef(entry);
    if (set_tid && tc_set_tid_from(set_tid, &task->spec) < 0) {
        atomic_store(&task->references, 1);
        tc_task_release(task);
        return NULL;
    }
    if (name) {
        strncpy(task->name, name, sizeof task->name - 1);
        task->spec.name = task->name;
    }
    PyObject *handle = tc_handle_for(task);
    if (!handle) {
        atomic_store(&task->references, 1);
        tc_task_release(task);
        return NULL;
    }
    if (PyObject_SetAttrString(entry, "core", handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    tc_task_list(task);
    atomic_fetch_add(&tc_counters.threads, 1);
    atomic_fetch_add(&task->references, 1); /* the thread's */
    int err;
    enum tc_step failed = TC_STEP_NONE;
    if (flags)
        failed = tc_exchange(task, (size_t)stack_size, &err);
    else if ((err = create(task, (size_t)stack_size)))
        failed = TC_STEP_PTHREAD;
    if (!failed) return handle;
    atomic_fetch_sub(&tc_counters.threads, 1);
    Py_CLEAR(task->entry);
    tc_raise_step(failed, err);
    tc_task_publish(task, TC_ENDED);
    tc_task_release(task);
    Py_DECREF(handle);
    return NULL;
}
