/* The Python object for a task that shares memory. One record may have several: the user's, and the keeper's. */
#include "shared.h"

#include <errno.h>

#include "error.h"

typedef struct {
    PyObject_HEAD
    struct tc_task *task;
    unsigned generation;
} SharedObject;

static PyTypeObject *shared_type;

PyObject *tc_handle_for(struct tc_task *task)
{
    SharedObject *self = PyObject_GC_New(SharedObject, shared_type);
    if (!self) return NULL;
    self->task = task;
    self->generation = tc_generation;
    task->handles++;
    atomic_store(&task->orphan, 0);
    atomic_fetch_add(&task->references, 1);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* What is in the record is the task's while it runs: the collector sees references from nowhere, and lets it be. Later
 * they are visited through one handle only, or each would be counted twice. (True does not turn false under a
 * collection: that holds the interpreter lock.) */
static int owns_record(SharedObject *self)
{
    return atomic_load(&self->task->state) >= TC_DONE && self->task->handles == 1;
}

static int shared_traverse(SharedObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    if (!owns_record(self)) return 0;
    PyObject **objects[] = {TC_OBJECTS(self->task)};
    for (unsigned i = 0; i < sizeof objects / sizeof *objects; i++) Py_VISIT(*objects[i]);
    return 0;
}

static int shared_clear(SharedObject *self)
{
    if (!owns_record(self)) return 0;
    PyObject **objects[] = {TC_OBJECTS(self->task)};
    for (unsigned i = 0; i < sizeof objects / sizeof *objects; i++) Py_CLEAR(*objects[i]);
    return 0;
}

static void shared_finalize(SharedObject *self)
{
    if (self->generation == tc_generation && self->task->handles == 1) tc_tell_uncaught(self->task, NULL);
}

static void shared_dealloc(SharedObject *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyTypeObject *type = Py_TYPE(self);
    struct tc_task *task = self->task;
    PyObject_GC_UnTrack(self);
    shared_clear(self);
    task->handles--;
    if (self->generation != tc_generation) {
        tc_task_close(task); /* our copy of the descriptor, in the child of a fork */
    } else if (task->handles == 0) {
        /* The host says ENDED and then looks for orphans: one of us two sees the other. */
        atomic_store(&task->orphan, 1);
        if (atomic_load(&task->state) == TC_ENDED && tc_own_files()) tc_task_close(task);
    }
    tc_task_release(task);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

static int is_ours(SharedObject *self)
{
    if (self->generation == tc_generation) return 1;
    PyErr_Format(PyExc_ChildProcessError, "task %d belongs to the process that forked this one", (int)self->task->pid);
    return 0;
}

/* 1 reached, 0 timeout, -1 exception */
static int wait_for(SharedObject *self, uint32_t want, PyObject *timeout)
{
    struct tc_task *task = self->task;
    struct tc_deadline deadline;
    if (tc_deadline_from(timeout, &deadline) < 0 || !is_ours(self)) return -1;
    for (uint32_t state; (state = atomic_load(&task->state)) < want;) {
        if (task->lent && state == TC_DONE && tc_settle(task)) continue;
        struct timespec left;
        const struct timespec *limit = tc_deadline_left(&deadline, &left);
        if (limit && !left.tv_sec && !left.tv_nsec) return 0;
        long err;
        Py_BEGIN_ALLOW_THREADS;
        if (task->lent && state == TC_DONE) tc_settle_soon(task);
        err = tc_task_wait(task, state, want, limit);
        Py_END_ALLOW_THREADS;
        if (err == -EINTR && PyErr_CheckSignals() < 0) return -1;
    }
    return 1;
}

/* 1 ended, 0 timeout, 2 the body has ended and something of the task lingers, -1 exception. Nobody is woken by the
 * outcome: on one CPU that would cost the task its turn just before its end. */
static int wait_for_end(SharedObject *self, PyObject *timeout, double linger)
{
    struct tc_task *task = self->task;
    struct tc_deadline deadline, patience = {.forever = 1};
    if (tc_deadline_from(timeout, &deadline) < 0 || !is_ours(self)) return -1;
    for (uint32_t state; (state = atomic_load(&task->state)) < TC_ENDED;) {
        if (state == TC_DONE) {
            if (task->lent && tc_settle(task)) continue;
            if (patience.forever && tc_deadline_in(linger, &patience) < 0) return -1;
        }
        struct timespec left, look = {1, 0};
        const struct timespec *limit = tc_deadline_left(&deadline, &left);
        if (limit && !left.tv_sec && !left.tv_nsec) return 0;
        if (!patience.forever) {
            const struct timespec *rest = tc_deadline_left(&patience, &look);
            if (!rest->tv_sec && !rest->tv_nsec) return 2;
        }
        if (!limit || left.tv_sec > look.tv_sec || (left.tv_sec == look.tv_sec && left.tv_nsec > look.tv_nsec))
            limit = &look; /* whose outcome came a second ago, and whose end did not, is noticed */
        long err = 0;
        Py_BEGIN_ALLOW_THREADS;
        if (task->lent && atomic_load(&task->alive) && !tc_current_task())
            err = tc_watch(task, limit);
        else {
            if (task->lent && state == TC_DONE) tc_settle_soon(task);
            err = tc_task_wait(task, state, TC_ENDED, limit);
        }
        Py_END_ALLOW_THREADS;
        if (err == -EINTR && PyErr_CheckSignals() < 0) return -1;
    }
    return 1;
}

/* wait_end(timeout, linger): 1 ended, 0 timeout, 2: `linger` seconds after the body something of the task lives on */
static PyObject *shared_wait_end(SharedObject *self, PyObject *args)
{
    PyObject *timeout;
    double linger;
    if (!PyArg_ParseTuple(args, "Od:wait_end", &timeout, &linger)) return NULL;
    int how = wait_for_end(self, timeout, linger);
    return how < 0 ? NULL : PyLong_FromLong(how);
}

static PyObject *shared_wait(SharedObject *self, PyObject *args)
{
    int want;
    PyObject *timeout;
    if (!PyArg_ParseTuple(args, "iO:wait", &want, &timeout)) return NULL;
    int reached = wait_for(self, (uint32_t)want, timeout);
    return reached < 0 ? NULL : PyBool_FromLong(reached);
}

/* started(): waits for the kernel's answer; the task's id, or StartError. */
static PyObject *shared_started(SharedObject *self, PyObject *unused)
{
    (void)unused;
    if (wait_for(self, TC_STARTED, Py_None) < 0) return NULL;
    int err;
    enum tc_step step = tc_report_failed(&self->task->report, &err);
    if (!step) return PyLong_FromLong(self->task->pid);
    Py_CLEAR(self->task->fn); /* no body will */
    Py_CLEAR(self->task->args);
    Py_CLEAR(self->task->kwargs);
    return tc_raise_step(step, err);
}

/* ---- what is known ---------------------------------------------------------------------------------------------- */

static PyObject *shared_state(SharedObject *self, void *unused)
{
    (void)unused;
    /* In the child of a fork: the parent's, of which nothing more will be heard here. */
    return PyLong_FromUnsignedLong(self->generation == tc_generation ? atomic_load(&self->task->state) : TC_ENDED);
}

/* plain() -> ("value", object), or None where there is more to say. */
static PyObject *shared_plain(SharedObject *self, PyObject *unused)
{
    (void)unused;
    static PyObject *kind;
    if (!kind && !(kind = PyUnicode_InternFromString("value"))) return NULL;
    struct tc_task *task = self->task;
    int err, ran = atomic_load(&task->state) >= TC_DONE && atomic_load(&task->clean);
    if (!ran || task->exception || tc_report_failed(&task->report, &err)) Py_RETURN_NONE;
    return PyTuple_Pack(2, kind, task->value ? task->value : Py_None);
}

/* outcome() -> (kind, object, exit code) with kind "value", "exception" or "died"; only from DONE on. */
static PyObject *shared_outcome(SharedObject *self, PyObject *unused)
{
    (void)unused;
    struct tc_task *task = self->task;
    int err;
    enum tc_step step = tc_report_failed(&task->report, &err);
    if (step) return tc_raise_step(step, err);
    if (atomic_load(&task->state) < TC_DONE) return PyErr_Format(PyExc_RuntimeError, "the task still runs");
    if (!atomic_load(&task->clean)) return Py_BuildValue("(sOi)", "died", Py_None, 0);
    task->asked = 1;
    if (task->exception) return Py_BuildValue("(sOi)", "exception", task->exception, task->exit_code);
    return Py_BuildValue("(sOi)", "value", task->value ? task->value : Py_None, task->exit_code);
}

/* status() -> None, or (source, si_code, si_status, rusage); reaps where that is left to us. */
static PyObject *shared_status(SharedObject *self, PyObject *unused)
{
    (void)unused;
    struct tc_task *task = self->task;
    if (atomic_load(&task->state) < TC_ENDED) Py_RETURN_NONE;
    if (tc_own_files()) tc_task_reap(task, atomic_load(&task->pidfd));
    return tc_status_tuple(&task->status);
}

/* death() -> (signal, si_code, address, pc) | None, stack as a list, damage as a tuple, killed by us */
static PyObject *shared_death(SharedObject *self, PyObject *unused)
{
    (void)unused;
    struct tc_task *task = self->task;
    if (atomic_load(&task->state) < TC_ENDED) return PyErr_Format(PyExc_RuntimeError, "the task still runs");
    tc_post_mortem(task);
    PyObject *crash =
        !atomic_load(&task->report.crashed)
            ? Py_NewRef(Py_None)
            : Py_BuildValue("(iiKK)", task->report.signal, task->report.code, (unsigned long long)task->report.address,
                            (unsigned long long)task->report.pc);
    PyObject *stack = task->stack ? Py_NewRef(task->stack) : PyList_New(0);
    PyObject *damage = task->damage ? Py_NewRef(task->damage) : PyTuple_New(0);
    if (!crash || !stack || !damage) {
        Py_XDECREF(crash);
        Py_XDECREF(stack);
        Py_XDECREF(damage);
        return NULL;
    }
    return Py_BuildValue("(NNNO)", crash, stack, damage, atomic_load(&task->killed) ? Py_True : Py_False);
}

/* ---- ending ----------------------------------------------------------------------------------------------------- */

/* interrupt(): an asynchronous exception in the body; before the body it is kept from running. False: no body (any
 * more). */
static PyObject *shared_interrupt(SharedObject *self, PyObject *unused)
{
    (void)unused;
    struct tc_task *task = self->task;
    task->cancelled = 1;
    /* The lock that we hold keeps the task from giving its state, and so its host's ident, to another one. */
    if (!task->ts || task->dead) Py_RETURN_FALSE;
    task->interrupted = 1;
    return PyBool_FromLong(PyThreadState_SetAsyncExc(task->ident, task->cancel));
}

static PyObject *shared_look(SharedObject *self, PyObject *args)
{
    unsigned long futex;
    int write_fd, user;
    if (!PyArg_ParseTuple(args, "kip:look", &futex, &write_fd, &user)) return NULL;
    if (!is_ours(self)) return NULL;
    return tc_look(self->task, futex, write_fd, user);
}

static PyObject *shared_send_signal(SharedObject *self, PyObject *number)
{
    long sig = PyLong_AsLong(number);
    if (sig == -1 && PyErr_Occurred()) return NULL;
    long err = tc_task_signal(self->task, (int)sig);
    if (err < 0) return tc_raise((int)-err, err == -ENOSYS ? "pidfd_open" : "pidfd_send_signal");
    Py_RETURN_NONE;
}

static PyObject *shared_fileno(SharedObject *self, PyObject *unused)
{
    (void)unused;
    int fd = is_ours(self) ? tc_task_descriptor(self->task) : -1;
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *shared_bell(SharedObject *self, PyObject *unused)
{
    (void)unused;
    return is_ours(self) ? tc_task_bell(self->task) : NULL;
}

static PyObject *shared_get(SharedObject *self, void *what)
{
    struct tc_task *task = self->task;
    switch (*(const char *)what) {
    case 'p':
        return PyLong_FromLong(task->pid);
    case 't':
        return PyBool_FromLong(task->thread);
    case 'd':
        return PyBool_FromLong(task->daemon);
    case 'c':
        return PyLong_FromLong(task->exit_code);
    case 'i':
        return PyLong_FromUnsignedLong(task->ts ? task->ident : 0);
    case 'e':
        return PyLong_FromUnsignedLongLong(task->spec.emulated);
    default:
        if (task->spec.by_clone) return PyLong_FromUnsignedLongLong(task->spec.flags);
        return PyLong_FromUnsignedLongLong(task->spec.flags | CLONE_PARENT_SETTID |
                                           (task->in_place ? CLONE_VFORK : CLONE_CHILD_CLEARTID) |
                                           (task->in_place || task->lent ? CLONE_SETTLS : 0));
    }
}

static PyMethodDef shared_methods[] = {
    {"wait", (PyCFunction)shared_wait, METH_VARARGS, "wait(state, timeout): True when the state is reached"},
    {"wait_end", (PyCFunction)shared_wait_end, METH_VARARGS,
     "wait_end(timeout, linger): 1 ended, 0 timeout, 2 lingers"},
    {"started", (PyCFunction)shared_started, METH_NOARGS, "wait for the kernel's answer; the task's id"},
    {"plain", (PyCFunction)shared_plain, METH_NOARGS, "(\"value\", object) or None"},
    {"outcome", (PyCFunction)shared_outcome, METH_NOARGS, "(kind, object, exit code)"},
    {"status", (PyCFunction)shared_status, METH_NOARGS, "None, or (source, si_code, si_status, rusage)"},
    {"death", (PyCFunction)shared_death, METH_NOARGS, "(crash record, Python stack, damage, killed by us)"},
    {"interrupt", (PyCFunction)shared_interrupt, METH_NOARGS, "raise TaskTerminated in the body"},
    {"look", (PyCFunction)shared_look, METH_VARARGS, "look(futex, write_fd, user): stop, see, perhaps kill"},
    {"fileno", (PyCFunction)shared_fileno, METH_NOARGS, "pidfd, made when it is first asked for"},
    {"bell", (PyCFunction)shared_bell, METH_NOARGS, "a Bell: readable once the state is DONE"},
    {"send_signal", (PyCFunction)shared_send_signal, METH_O, "send a signal through the pidfd"},
    {0},
};
static PyGetSetDef shared_getset[] = {
    {"state", (getter)shared_state, NULL, "NEW, STARTED, DONE or ENDED", NULL},
    {"pid", (getter)shared_get, NULL, "process id; 0 before the kernel's answer", "p"},
    {"ident", (getter)shared_get, NULL, "threading ident of the running body, else 0", "i"},
    {"exit_code", (getter)shared_get, NULL, "of a body that has ended", "c"},
    {"daemon", (getter)shared_get, NULL, "ended at the interpreter's exit, instead of waited for", "d"},
    {"thread", (getter)shared_get, NULL, "a thread, whose id pid is", "t"},
    {"flags", (getter)shared_get, NULL, "the flags that the kernel was given", "g"},
    {"replaced", (getter)shared_get, NULL, "flags that were done another way", "e"},
    {0},
};
static PyType_Slot shared_slots[] = {
    {Py_tp_dealloc, shared_dealloc},
    {Py_tp_traverse, shared_traverse},
    {Py_tp_clear, shared_clear},
    {Py_tp_finalize, shared_finalize},
    {Py_tp_methods, shared_methods},
    {Py_tp_getset, shared_getset},
    {Py_tp_doc, "A task that shares memory."},
    {0, NULL},
};
PyType_Spec tc_shared_spec = {"taskclone._core.Shared", sizeof(SharedObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                              shared_slots};

int tc_shared_ready(PyObject *module)
{
    shared_type = (PyTypeObject *)PyType_FromSpec(&tc_shared_spec);
    return shared_type ? PyModule_AddType(module, shared_type) : -1;
}
