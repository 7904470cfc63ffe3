#include <linux/sched.h>

#include "spec.h"

#include <string.h>

#include "mapper.h"
#include "sys.h"

int tc_set_tid_from(PyObject *ids, struct tc_spec *spec)
{
    Py_ssize_t n = PyTuple_GET_SIZE(ids);
    if (n > TC_PID_LEVELS) return PyErr_BadArgument(), -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        long id = PyLong_AsLong(PyTuple_GET_ITEM(ids, i));
        if (id == -1 && PyErr_Occurred()) return -1;
        spec->set_tid[i] = (pid_t)id;
    }
    spec->set_tid_size = (unsigned)n;
    return 0;
}

int tc_setup_from(PyObject *setup, struct tc_spec *spec)
{
    for (int i = 0; i < 3; i++) spec->streams[i] = -1;
    if (setup == Py_None) return 0;
    unsigned long long ignored, defaulted;
    PyObject *mask;
    int close_fds, no_new_privs;
    Py_ssize_t uid_size, gid_size;
    PyObject *set_tid;
    if (!PyTuple_Check(setup)) return PyErr_BadArgument(), -1;
    if (!PyArg_ParseTuple(setup, "O&KKOip(iii)(iO!z#z#O&p):setup", tc_bytes_or_none, &spec->cwd, &ignored, &defaulted,
                          &mask, &spec->parent_death, &close_fds, &spec->streams[0], &spec->streams[1],
                          &spec->streams[2], &spec->cgroup, &PyTuple_Type, &set_tid, &spec->uid_map, &uid_size,
                          &spec->gid_map, &gid_size, tc_mailbox_from, &spec->mailbox, &no_new_privs) ||
        tc_set_tid_from(set_tid, spec) < 0)
        return -1;
    spec->uid_map_size = (size_t)uid_size;
    spec->gid_map_size = (size_t)gid_size;
    spec->no_new_privs = (unsigned)no_new_privs;
    if (no_new_privs) spec->emulated |= CLONE_NNP;
    if (mask != Py_None) {
        spec->sigmask = PyLong_AsUnsignedLongLong(mask);
        if (spec->sigmask == (uint64_t)-1 && PyErr_Occurred()) return -1;
        spec->own_sigmask = 1;
    }
    spec->ignored = ignored;
    spec->defaulted = defaulted;
    spec->close_fds = (unsigned)close_fds;
    spec->awaited = 1;
    return 0;
}

void tc_clone_args(const struct tc_spec *spec, struct clone_args *args, int *pidfd, pid_t *tid)
{
    memset(args, 0, sizeof *args);
    args->flags = spec->flags | CLONE_PARENT_SETTID;
    args->exit_signal = spec->exit_signal;
    if (spec->flags & CLONE_PIDFD) args->pidfd = (uint64_t)(uintptr_t)pidfd;
    args->parent_tid = (uint64_t)(uintptr_t)tid;
}
