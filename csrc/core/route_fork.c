/* The raw form of the copied route: execution goes on from the call in both. */
#include "route_fork.h"

#include <errno.h>
#include <sys/mman.h>

#include "children.h"
#include "copies.h"
#include "error.h"
#include "route_copied.h"
#include "spec.h"

/* 1 in the copy, 0 in the creator, -1 with an exception. */
static int start(struct tc_copy *copy)
{
    void *page = mmap(NULL, sizeof *copy->start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return tc_raise(errno, "mmap"), -1;
    copy->start = page;
    copy->spec->report = &copy->start->report;
    int made = tc_copy(copy);
    munmap(page, sizeof *copy->start);
    return made;
}

PyObject *tc_fork_start(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *type, *how, *setup;
    struct tc_spec spec = {0};
    struct tc_copy copy = {.spec = &spec};
    if (!PyArg_ParseTuple(args, "O!OOOO!:fork_start", &PyType_Type, &type, &setup, &copy.prepare, &how, &PyTuple_Type,
                          &copy.harmless) ||
        tc_setup_from(setup, &spec) < 0)
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)type, tc_child_type))
        return PyErr_Format(PyExc_TypeError, "fork_start() needs a type derived from Child");
    if (tc_copy_from(how, &copy) < 0) return NULL;
    if (!tc_flush_streams(NULL, NULL) || PySys_Audit("os.fork", NULL) < 0) return NULL;
    PyObject *self = tc_child_new((PyTypeObject *)type, 0);
    if (!self) return NULL;
    int made = start(&copy);
    if (made) {
        Py_DECREF(self);
        return made < 0 ? NULL : Py_NewRef(Py_None);
    }
    tc_copy_started(&copy, (struct tc_child *)self);
    return self;
}
