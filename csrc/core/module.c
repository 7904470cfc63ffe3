/* taskclone._core: the method table and the init, nothing else. */
#include "bell.h"
#include "children.h"
#include "copied.h"
#include "descriptor.h"
#include "interp.h"
#include "kcmp.h"
#include "mapper.h"
#include "mapping.h"
#include "objects.h"
#include "probe.h"
#include "route_bare.h"
#include "copies.h"
#include "forkhooks.h"
#include "route_copied.h"
#include "route_fork.h"
#include "route_program.h"
#include "shared.h"
#include "watchdog.h"

static PyMethodDef methods[] = {
    {"after_fork", tc_after_fork, METH_NOARGS, "make the keeper anew where tasks run"},
    {"bare_memcpy", tc_bare_memcpy, METH_VARARGS, "bare_memcpy(size, repeats) -> durations"},
    {"bare_run", tc_bare_run, METH_VARARGS, "bare_run(kind, count, seconds) -> times, by launch"},
    {"before_fork", tc_before_fork, METH_NOARGS, "hosts_end(), with a word where fork() would hang"},
    {"children_forget", tc_children_forget, METH_NOARGS, "in the child of a fork: they are the parent's"},
    {"children_running", tc_children_running, METH_NOARGS, "the children that were not seen to end"},
    {"fork_hooks", tc_fork_hooks, METH_NOARGS, "what is called in the child of a fork, as a list"},
    {"keep_fork_hooks", tc_keep_fork_hooks, METH_O, "what of it is called in a copy that shares descriptors"},
    {"copied_hooks", tc_copied_hooks, METH_VARARGS, "copied_hooks(signal, arguments, finish, nothing)"},
    {"copied_start", tc_copied_start, METH_VARARGS, "copied_start(type, ...) -> Copied, in the creator"},
    {"descriptor", tc_descriptor, METH_O, "descriptor(number) -> Descriptor, which owns it from now on"},
    {"flush_streams", tc_flush_streams, METH_NOARGS, "flush sys.stdout and sys.stderr"},
    {"fork_start", tc_fork_start, METH_VARARGS, "fork_start(type, ...) -> Child, in the creator; None in the copy"},
    {"generation", tc_generation_now, METH_NOARGS, "counted up in each copy of this memory, where a pid may recur"},
    {"hosts_end", tc_hosts_end, METH_NOARGS, "end the idle hosts and the keeper"},
    {"in_task", tc_in_task, METH_NOARGS, "True in a task that shares memory"},
    {"kcmp", tc_kcmp, METH_VARARGS, "kcmp(pid1, pid2, type, index1=0, index2=0) -> 0, 1 or 2"},
    {"keep", tc_keep, METH_O, "keep(object): for ever, also while the interpreter is finalized"},
    {"memory_of", tc_memory_of, METH_O, "memory_of(object) -> bytes: its own memory, as large as its type says"},
    {"set_word", tc_set_word, METH_VARARGS, "set_word(object, at, value): in that memory, in words of unsigned long"},
    {"of_types", tc_of_types, METH_VARARGS, "of_types(list, types) -> those of the objects that are of such a type"},
    {"probe", tc_probe, METH_O, "probe(name) -> errno: 0 where the system has it"},
    {"probe_flags", tc_probe_flags, METH_VARARGS, "probe_flags(flags, clone3) -> errno: 0 where it takes them"},
    {"probe_user_namespace", tc_probe_user_namespace, METH_NOARGS, "-> errno of the start, errno of a change in it"},
    {"program_start", tc_program_start, METH_VARARGS, "program_start(type, ...) -> Child"},
    {"set_damage_hook", tc_set_damage_hook, METH_O,
     "called as hook(ident, threads, malloc) after a death -> what it has left behind, a tuple of str"},
    {"set_end_hook", tc_set_end_hook, METH_O, "called as hook(handle, signal) when a signal asks a task to end"},
    {"shared_live", tc_shared_live, METH_NOARGS, "handles of the tasks that have not ended"},
    {"shared_start", tc_shared_start, METH_VARARGS, "shared_start(...) -> Shared"},
    {"shared_stats", tc_shared_stats, METH_NOARGS, "counts of hosts and of what deaths left behind"},
    {"threads_running", tc_threads_running, METH_NOARGS, "how many tasks are threads"},
    {"set_uncaught_hook", tc_set_uncaught_hook, METH_O,
     "called as hook(exception, thread or None, name or None, ident, native id) for what nobody can ask for any more"},
    {"thread_start", tc_thread_start, METH_VARARGS, "thread_start(...) -> Shared"},
    {"thread_known", tc_thread_known, METH_O, "True when a kernel thread id has a thread state"},
    {0},
};

/* In two phases, so that it runs for each interpreter that imports the module. */
static int fill(PyObject *module)
{
    static PyObject *filled; /* what an earlier import has made: types are made once */
    if (!tc_main_interpreter()) {
        PyErr_SetString(PyExc_ImportError, "taskclone can be imported by the main interpreter only");
        return -1;
    }
    if (filled) return PyDict_Merge(PyModule_GetDict(module), filled, 0);
    if (tc_bell_ready(module) < 0 || tc_children_ready(module) < 0 || tc_copied_ready(module) < 0 ||
        tc_mapper_ready(module) < 0 || tc_descriptor_ready(module) < 0 || tc_mapping_ready(module) < 0 ||
        tc_shared_ready(module) < 0 || tc_forks_init() < 0 || tc_death_init() < 0 || tc_body_init() < 0 ||
        PyModule_AddIntConstant(module, "FORK", TC_FORK) < 0 ||
        PyModule_AddIntConstant(module, "RELAY", TC_RELAY) < 0 ||
        PyModule_AddIntConstant(module, "BARE", TC_BARE) < 0 || PyModule_AddIntConstant(module, "NEW", TC_NEW) < 0 ||
        PyModule_AddIntConstant(module, "STARTED", TC_STARTED) < 0 ||
        PyModule_AddIntConstant(module, "DONE", TC_DONE) < 0 || PyModule_AddIntConstant(module, "ENDED", TC_ENDED) < 0)
        return -1;
    tc_watchdog_init();
    filled = PyDict_Copy(PyModule_GetDict(module));
    return filled ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "taskclone._core",
                                        .m_doc = "The C core of taskclone.", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
