/* What the core can be asked about all its tasks, hosts and threads together. */
#include "shared.h"

#include "interp.h"
#include "watchdog.h"

/* shared_live() -> handles of all that have not ended. */
PyObject *tc_shared_live(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct tc_task **all = tc_task_all();
    if (!all) return PyErr_NoMemory();
    PyObject *list = PyList_New(0);
    for (struct tc_task **at = all; list && *at; at++) {
        PyObject *handle = tc_handle_for(*at);
        if (!handle || PyList_Append(list, handle) < 0) Py_CLEAR(list);
        Py_XDECREF(handle);
    }
    tc_task_all_done(all);
    return list;
}

/* threads_running() -> how many tasks are threads */
PyObject *tc_threads_running(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(atomic_load(&tc_counters.threads));
}

PyObject *tc_shared_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    tc_settle_finished();
    tc_bury_dead();
    struct tc_counters *c = &tc_counters;
    return Py_BuildValue("{s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "hosts", c->hosts, "idle_hosts", c->idle, "retired_hosts",
                         c->retired, "abandoned_states", c->abandoned, "malloc_deaths", c->malloc_deaths,
                         "malloc_limit", tc_malloc_limit(), "watchdog", tc_watchdog_there());
}

PyObject *tc_in_task(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(tc_current_task() != NULL);
}

PyObject *tc_thread_known(PyObject *module, PyObject *native_id)
{
    (void)module;
    unsigned long id = PyLong_AsUnsignedLong(native_id);
    if (id == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    return PyBool_FromLong(tc_has_state(id));
}
