/* taskclone._core: the method table and the init, nothing else. */
#include "error.h"
#include "kcmp.h"
#include "route_bare.h"
#include "route_copied.h"
#include "route_program.h"
#include "shared.h"

static PyMethodDef methods[] = {
    {"after_fork", tc_after_fork, METH_NOARGS, "make the keeper anew where tasks run"},
    {"bare_memcpy", tc_bare_memcpy, METH_VARARGS, "bare_memcpy(size, repeats) -> durations"},
    {"bare_run", tc_bare_run, METH_VARARGS, "bare_run(kind, count, seconds) -> (start, total)"},
    {"before_fork", tc_before_fork, METH_NOARGS, "hosts_end(), with a word where fork() would hang"},
    {"copied_start", tc_copied_start, METH_VARARGS, "copied_start(record, child, name) -> True in the creator"},
    {"flush_streams", tc_flush_streams, METH_NOARGS, "flush sys.stdout and sys.stderr"},
    {"hosts_end", tc_hosts_end, METH_NOARGS, "end the idle hosts and the keeper"},
    {"in_task", tc_in_task, METH_NOARGS, "True in a task that shares memory"},
    {"kcmp", tc_kcmp, METH_VARARGS, "kcmp(pid1, pid2, type, index1=0, index2=0) -> 0, 1 or 2"},
    {"program_start", tc_program_start, METH_VARARGS, "program_start(...) -> (pid, pidfd, flags)"},
    {"set_end_hook", tc_set_end_hook, METH_O, "called as hook(handle, signal) when a signal asks a task to end"},
    {"shared_live", tc_shared_live, METH_NOARGS, "handles of the tasks that have not ended"},
    {"shared_start", tc_shared_start, METH_VARARGS, "shared_start(...) -> Shared"},
    {"shared_stats", tc_shared_stats, METH_NOARGS, "counts of hosts and of what deaths left behind"},
    {"thread_known", tc_thread_known, METH_O, "True when a kernel thread id has a thread state"},
    {0},
};

static int add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromSpec(spec);
    int failed = !type || PyModule_AddObjectRef(module, name, type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "taskclone._core", "The C core of taskclone.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    if (add_type(module, &tc_child_spec, "Child") < 0 || add_type(module, &tc_record_spec, "Record") < 0 ||
        tc_shared_ready(module) < 0 || tc_hosts_init() < 0 || tc_death_init() < 0 ||
        PyModule_AddIntConstant(module, "NEW", TC_NEW) < 0 ||
        PyModule_AddIntConstant(module, "STARTED", TC_STARTED) < 0 ||
        PyModule_AddIntConstant(module, "DONE", TC_DONE) < 0 || PyModule_AddIntConstant(module, "ENDED", TC_ENDED) < 0)
        Py_CLEAR(module);
    return module;
}
