/* A thread of the creator waits here until a task asks for its maps, while the one that starts it may sleep in the
 * kernel. What it writes, and by which program, is Python's affair. */
#include "mapper.h"

#include <errno.h>
#include <sys/mman.h>

#include "error.h"
#include "idmap.h"
#include "sys.h"

typedef struct {
    PyObject_HEAD
    struct tc_mailbox *box;
} MapperObject;

static PyTypeObject *mapper_type;

static PyObject *mapper_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!PyArg_ParseTuple(args, ":Mapper") || (kwargs && PyDict_GET_SIZE(kwargs)))
        return PyErr_Format(PyExc_TypeError, "Mapper() takes no arguments");
    MapperObject *self = (MapperObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    void *page = mmap(NULL, sizeof *self->box, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        int err = errno;
        Py_DECREF(self);
        return tc_raise(err, "mmap");
    }
    self->box = page;
    return (PyObject *)self;
}

static void mapper_dealloc(MapperObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->box) munmap(self->box, sizeof *self->box);
    type->tp_free(self);
    Py_DECREF(type);
}

int tc_mailbox_from(PyObject *object, void *result)
{
    *(struct tc_mailbox **)result = NULL;
    if (object == Py_None) return 1;
    if (!Py_IS_TYPE(object, mapper_type)) return PyErr_BadArgument(), 0;
    *(struct tc_mailbox **)result = ((MapperObject *)object)->box;
    return 1;
}

/* wanted(): the id of the task that asks, as /proc has it; 0 when nobody will. */
static PyObject *mapper_wanted(MapperObject *self, PyObject *unused)
{
    (void)unused;
    uint32_t number;
    Py_BEGIN_ALLOW_THREADS;
    while (!(number = atomic_load(&self->box->wanted))) tc_futex_wait(&self->box->wanted, 0, NULL);
    Py_END_ALLOW_THREADS;
    return PyLong_FromUnsignedLong(number == UINT32_MAX ? 0 : number);
}

/* answer(errno): 0: the maps are written. */
static PyObject *mapper_answer(MapperObject *self, PyObject *number)
{
    long err = PyLong_AsLong(number);
    if (err == -1 && PyErr_Occurred()) return NULL;
    atomic_store(&self->box->answer, (uint32_t)err + 1);
    tc_futex_wake(&self->box->answer);
    Py_RETURN_NONE;
}

/* end(): the start is over; a wanted() that still waits is let go. */
static PyObject *mapper_end(MapperObject *self, PyObject *unused)
{
    (void)unused;
    uint32_t none = 0;
    if (atomic_compare_exchange_strong(&self->box->wanted, &none, UINT32_MAX)) tc_futex_wake(&self->box->wanted);
    Py_RETURN_NONE;
}

static PyMethodDef mapper_methods[] = {
    {"wanted", (PyCFunction)mapper_wanted, METH_NOARGS, "wait for the task; its id as /proc has it, 0: it never asked"},
    {"answer", (PyCFunction)mapper_answer, METH_O, "answer(errno): 0: the maps are written"},
    {"end", (PyCFunction)mapper_end, METH_NOARGS, "the start is over"},
    {0},
};
static PyType_Slot mapper_slots[] = {
    {Py_tp_new, mapper_new},
    {Py_tp_dealloc, mapper_dealloc},
    {Py_tp_methods, mapper_methods},
    {Py_tp_doc, "A mailbox between a task in a new user namespace and who writes its maps."},
    {0, NULL},
};
static PyType_Spec mapper_spec = {"taskclone._core.Mapper", sizeof(MapperObject), 0, Py_TPFLAGS_DEFAULT, mapper_slots};

int tc_mapper_ready(PyObject *module)
{
    mapper_type = (PyTypeObject *)PyType_FromSpec(&mapper_spec);
    return mapper_type ? PyModule_AddType(module, mapper_type) : -1;
}
