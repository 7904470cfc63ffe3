/* taskclone.tracer._ptrace: the method table and the init, nothing else. */
#include "records.h"
#include "tracer.h"

static PyMethodDef methods[] = {
    {"parse", tp_parse, METH_O, "parse(bytes) -> the tracer's records, as tuples"},
    {"start", tp_start, METH_VARARGS, "start(path, argv, environment, streams) -> (pid, pidfd, pipe), of the tracer"},
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "taskclone.tracer._ptrace", "The C part of the tracer.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__ptrace(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddIntConstant(module, "RECORD_SIZE", sizeof(struct tp_record)) < 0) Py_CLEAR(module);
    return module;
}
