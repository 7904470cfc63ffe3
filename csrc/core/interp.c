#include "interp.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>

#if PY_VERSION_HEX < 0x030b0000
#error "taskclone needs CPython 3.11 or later"
#endif
#ifdef Py_GIL_DISABLED
#error "taskclone needs the interpreter lock: without it a dead task may hold the lock of any object, and none can tell"
#endif
/* Whose thread states this file has been read against. With a later one only what needs none of their fields is done:
 * memory that is copied and programs. The tests build it once more as if this were such a version. */
#if PY_VERSION_HEX < 0x03100000 && !defined TC_PRETEND_UNKNOWN
#define TC_KNOWN 1
#else
#define TC_KNOWN 0
#endif

int tc_known_interpreter(void) { return TC_KNOWN; }

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

int tc_each_frame(PyThreadState *state, void (*tell)(PyCodeObject *code, int line, void *argument), void *argument)
{
#if PY_VERSION_HEX >= 0x030d0000 && TC_KNOWN
    /* The head of struct _PyInterpreterFrame; 3.14 and later have marks in the lowest bits of the first. */
    struct head {
        uintptr_t executable;
        struct head *previous;
    } *frame = (struct head *)(void *)state->current_frame;
    for (int i = 0; frame && i < 100; i++, frame = frame->previous) {
        PyObject *code = (PyObject *)(frame->executable & ~(uintptr_t)3);
        if (code && Py_IS_TYPE(code, &PyCode_Type)) /* else a trampoline of the interpreter's */
            tell((PyCodeObject *)code, PyUnstable_InterpreterFrame_GetLine((struct _PyInterpreterFrame *)(void *)frame),
                 argument);
    }
    return 1;
#else
    (void)state, (void)tell, (void)argument;
    return 0;
#endif
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

#if TC_KNOWN
void tc_abandon_state(PyThreadState *state)
{
    state->exc_info = &state->exc_state; /* may point into a generator or a dead C frame */
#if PY_VERSION_HEX >= 0x030f0000
    state->current_frame = state->base_frame;
#elif PY_VERSION_HEX >= 0x030d0000
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
#else
/* None is started, so there is none to be abandoned, lent to or looked for. */
void tc_abandon_state(PyThreadState *state) { (void)state; }
void tc_lend_chunk(PyThreadState *state) { (void)state; }
void tc_take_chunk(PyThreadState *state) { (void)state; }
int tc_has_state(unsigned long native_id) { return native_id == 0; }
#endif

/* ---- the parking lot ----------------------------------------------------------------------------------------------
 */

#if TC_KNOWN && PY_VERSION_HEX >= 0x030d0000
/* Exported, but declared for the interpreter's own files only. */
typedef void unparker(void *argument, void *parked, int more);
PyAPI_FUNC(void) _PyParkingLot_Unpark(const void *address, unparker *fn, void *argument);

/* The first words of struct wait_entry in parking_lot.c. It lies on the waiter's stack, and it sleeps at `semaphore`.
 */
struct entry {
    void *argument; /* for who unparks it: a mutex's waiter, the place for a queue's item; NULL: an event's, all wake */
    _Atomic uintptr_t address;
    uint32_t semaphore;
};
enum { BUCKETS = 257 }; /* by the address: an entry is in the list of its remainder */

static struct entry *entry_at(uintptr_t futex) { return (struct entry *)(futex - offsetof(struct entry, semaphore)); }

uintptr_t tc_parked_for(uintptr_t futex) { return atomic_load(&entry_at(futex)->address); }

static void note_found(void *found, void *parked, int more)
{
    (void)more;
    if (parked) *(int *)found = 1;
}

int tc_unpark(uintptr_t futex)
{
    static const char own[BUCKETS]; /* addresses at which nobody else waits, one for each list */
    struct entry *entry = entry_at(futex);
    uintptr_t address = atomic_load(&entry->address);
    const char *alias = own + (address + BUCKETS - (uintptr_t)own % BUCKETS) % BUCKETS;
    int found = 0;
    /* Under an address of its own it is the only one that can be meant. Should a list be chosen otherwise than we
     * think, it is not found, and all is as before. */
    atomic_store(&entry->address, (uintptr_t)alias);
    _PyParkingLot_Unpark(alias, note_found, &found);
    if (!found) atomic_store(&entry->address, address);
    return found || !entry->argument;
}
#else
uintptr_t tc_parked_for(uintptr_t futex) { return futex; }
int tc_unpark(uintptr_t futex) { return futex != 0; }
#endif

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
