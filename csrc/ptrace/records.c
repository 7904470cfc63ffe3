#include "records.h"

#include <errno.h>

#include "sys.h"

int tp_write(int fd, const struct tp_record *record)
{
    long written;
    do written = TC_SYS(SYS_write, fd, record, sizeof *record);
    while (written == -EINTR);
    return written < 0 ? (int)written : 0; /* never in part: a record is shorter than PIPE_BUF */
}

static const char *const call_names[] = {
    [TP_NO_CALL] = "", [TP_FORK] = "fork", [TP_VFORK] = "vfork", [TP_CLONE] = "clone", [TP_CLONE3] = "clone3"};

static PyObject *fields_of(const struct clone_args *args)
{
    typedef unsigned long long u64;
    return Py_BuildValue("(KKKKKKKKKKK)", (u64)args->flags, (u64)args->pidfd, (u64)args->child_tid,
                         (u64)args->parent_tid, (u64)args->exit_signal, (u64)args->stack, (u64)args->stack_size,
                         (u64)args->tls, (u64)args->set_tid, (u64)args->set_tid_size, (u64)args->cgroup);
}

static PyObject *tuple_of(const struct tp_record *record)
{
    const char *word = record->word;
    int length = (int)strnlen(word, sizeof record->word);
    switch (record->kind) {
    case TP_FAILED:
        return Py_BuildValue("(ss#i)", "failed", word, (Py_ssize_t)length, record->value);
    case TP_EXEC:
        return Py_BuildValue("(siiN)", "exec", record->tid, record->peer,
                             PyUnicode_DecodeUTF8(word, length, "surrogateescape"));
    case TP_CALL:
        return Py_BuildValue("(sisiiNiKN)", "call", record->tid, call_names[record->call.which], record->peer,
                             record->value, PyBool_FromLong(record->followed), record->call.unread,
                             (unsigned long long)record->call.size, fields_of(&record->call.args));
    case TP_END:
        return Py_BuildValue("(sii)", "end", record->tid, record->value);
    }
    return PyErr_Format(PyExc_ValueError, "a record of unknown kind %d", (int)record->kind);
}

PyObject *tp_parse(PyObject *module, PyObject *bytes)
{
    (void)module;
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0) return NULL;
    if (size % (Py_ssize_t)sizeof(struct tp_record))
        return PyErr_Format(PyExc_ValueError, "%zd bytes are not whole records of %zu", size, sizeof(struct tp_record));
    PyObject *list = PyList_New(0);
    for (Py_ssize_t at = 0; list && at < size; at += (Py_ssize_t)sizeof(struct tp_record)) {
        struct tp_record record;
        memcpy(&record, data + at, sizeof record);
        PyObject *tuple = tuple_of(&record);
        if (!tuple || PyList_Append(list, tuple) < 0) Py_CLEAR(list);
        Py_XDECREF(tuple);
    }
    return list;
}
