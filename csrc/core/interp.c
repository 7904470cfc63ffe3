#include "interp.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>

#if PY_VERSION_HEX < 0x030b0000 || PY_VERSION_HEX >= 0x030e0000
#error "taskclone knows the thread states of CPython 3.11 to 3.13 only"
#endif
#ifdef Py_GIL_DISABLED
#error "taskclone needs a CPython with the interpreter lock: free-threaded builds are not supported"
#endif

PyThreadState *tc_current_state(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

int tc_main_interpreter(void) { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

int tc_sub_interpreters(void)
{
    /* Newest first; without the lock of the list, which nobody changes while we hold the interpreter lock of the main
     * one, or is being changed by one with a lock of its own (3.12): then the answer is a moment old. */
    PyInterpreterState *first = PyInterpreterState_Head();
    return first && PyInterpreterState_Next(first);
}

int tc_python_threads(void)
{
    PyThreadState *first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    return first && PyThreadState_Next(first);
}

int tc_runtime_range(uintptr_t *low, uintptr_t *high)
{
    /* _PyRuntime is exported with its size. From 3.12 the main interpreter, with its lock, lies in it. */
    void *runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    const ElfW(Sym) *symbol = NULL;
    Dl_info info;
    if (!runtime || !dladdr1(runtime, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol || !symbol->st_size)
        return -1;
    *low = (uintptr_t)runtime;
    *high = *low + symbol->st_size;
    return 0;
}

PyObject *tc_state_stack(PyThreadState *state)
{
    PyObject *list = PyList_New(0);
    PyFrameObject *frame = list ? PyThreadState_GetFrame(state) : NULL;
    while (frame) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *row = Py_BuildValue("(OiO)", code->co_filename, PyFrame_GetLineNumber(frame), code->co_qualname);
        Py_DECREF(code);
        if (!row || PyList_Append(list, row) < 0) Py_CLEAR(list);
        Py_XDECREF(row);
        PyFrameObject *back = list ? PyFrame_GetBack(frame) : NULL;
        Py_DECREF(frame);
        frame = back;
    }
    return list;
}

void tc_abandon_state(PyThreadState *state)
{
    state->exc_info = &state->exc_state; /* may point into a generator or a dead C frame */
#if PY_VERSION_HEX >= 0x030d0000
    state->current_frame = NULL;
#else
    state->root_cframe.current_frame = NULL;
    state->cframe = &state->root_cframe; /* was a struct on the dead C stack */
#endif
    PyThreadState_Clear(state);
}

/* By atomic exchange: a task may be killed at any instruction, so no lock may be held here. */
enum { CHUNKS = 16 };
static _Atomic(_PyStackChunk *) chunks[CHUNKS];

void tc_lend_chunk(PyThreadState *state)
{
    for (int i = 0; i < CHUNKS && !state->datastack_chunk; i++) {
        _PyStackChunk *chunk = atomic_load(&chunks[i]) ? atomic_exchange(&chunks[i], NULL) : NULL;
        if (!chunk) continue;
        /* As push_chunk() of pystate.c leaves a root chunk: its first slot stays empty, so that it is never popped. */
        state->datastack_chunk = chunk;
        state->datastack_top = &chunk->data[1];
        state->datastack_limit = (PyObject **)((char *)chunk + chunk->size);
    }
}

void tc_take_chunk(PyThreadState *state)
{
    enum { ROOT_SIZE = 16 << 10 }; /* DATA_STACK_CHUNK_SIZE; a body whose first frame is larger has another */
    _PyStackChunk *chunk = state->datastack_chunk, *none = NULL;
    if (!chunk || chunk->previous || chunk->size != ROOT_SIZE || state->datastack_top != &chunk->data[1]) return;
    for (int i = 0; i < CHUNKS; i++, none = NULL)
        if (!atomic_load(&chunks[i]) && atomic_compare_exchange_strong(&chunks[i], &none, chunk)) {
            state->datastack_chunk = NULL;
            state->datastack_top = state->datastack_limit = NULL;
            return;
        }
}

int tc_has_state(unsigned long native_id)
{
    for (PyThreadState *s = PyInterpreterState_ThreadHead(PyInterpreterState_Get()); s; s = PyThreadState_Next(s))
        if (s->native_thread_id == native_id) return 1;
    return 0;
}

void tc_settle_async(PyObject *exception)
{
#if PY_VERSION_HEX < 0x030d0000
    static PyObject *nothing;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!nothing) {
        PyObject *globals = PyDict_New();
        nothing = globals ? PyRun_String("lambda: None", Py_eval_input, globals, globals) : NULL;
        Py_XDECREF(globals);
    }
    /* One of somebody else's, which is on its way to us, does the same. */
    if (nothing && !PyThreadState_Get()->async_exc) {
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), exception);
        PyObject *result = PyObject_CallNoArgs(nothing); /* it rises at the first instruction */
        Py_XDECREF(result);
    }
    PyErr_Restore(type, value, traceback);
#else
    (void)exception; /* each thread state has a note of its own */
#endif
}

PyObject *tc_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}
