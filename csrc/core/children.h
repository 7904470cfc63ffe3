/* Ordinary children of this process: copied tasks and programs. */
#ifndef TC_CHILDREN_H
#define TC_CHILDREN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "wait.h"

struct tc_child {
    PyObject_HEAD
    pid_t pid;
    int pidfd;           /* -1: none */
    pid_t owner;         /* whose child it is; 0: not started */
    unsigned generation; /* of the owner: a copy in a PID namespace of its own may have the same id */
    char daemon;
    uint64_t file_table; /* in which its descriptors are: tc_file_table() */
    char sibling;        /* by CLONE_PARENT: another waits for it */
    char by_pid;         /* no pidfd is to be had in this system: its pid names it, as long as nobody else reaps it */
    int exit_signal;     /* SIGCHLD, unless whoever starts it says another */
    uint64_t flags, replaced; /* what the call was given; what it could not say and was done another way */
    struct tc_status status;
    PyObject *cached; /* what Python made of the status */
    struct list *list;
    struct tc_child *next, *previous;
};

extern PyTypeObject *tc_child_type; /* a base: for Copied here, for handles in Python */
int tc_children_ready(PyObject *module);
PyObject *tc_child_new(PyTypeObject *type, int daemon);
void tc_child_dealloc(PyObject *self);
PyObject *tc_child_abandon(struct tc_child *self, PyObject *unused);
void tc_child_close(struct tc_child *self);
/* In the child of a fork: the parent's. */
int tc_child_is_copy(const struct tc_child *self);
/* False in a copy that shares descriptors with the creator, whose child it is: the numbers are the creator's too. */
int tc_child_may_close(const struct tc_child *self);
/* Closes a descriptor of the child's, as tc_close_in() does. With the interpreter lock. */
void tc_child_close_fd(const struct tc_child *self, int fd);
/* From now on there is something to wait for. */
void tc_child_started(struct tc_child *self, pid_t pid, int pidfd, uint64_t flags);
PyObject *tc_children_running(PyObject *module, PyObject *unused);
PyObject *tc_children_forget(PyObject *module, PyObject *unused);

#endif
