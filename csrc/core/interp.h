/* Everything that depends on the version of CPython. No other file looks at PY_VERSION_HEX. */
#ifndef TC_INTERP_H
#define TC_INTERP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* True when the layout of this version's thread states is known. If not, no task may run a body on a fresh one. */
int tc_known_interpreter(void);
/* The thread state that is current on this thread (3.11: the one that holds the interpreter lock), or NULL. No libc. */
PyThreadState *tc_current_state(void);
/* True in the main interpreter: PyGILState_Ensure(), which starts a body, knows no other. */
int tc_main_interpreter(void);
int tc_python_threads(void);   /* true when there are others than the caller */
int tc_sub_interpreters(void); /* true when there are others */
/* Address range of the runtime's own state, with the interpreter lock in it. 0 or -1 (not found). */
int tc_runtime_range(uintptr_t *low, uintptr_t *high);
/* The Python stack of a thread state that does not run, as a list of (file, line, function), newest first. */
PyObject *tc_state_stack(PyThreadState *state);
/* The same without the interpreter lock and without allocating, from memory that may be wrong: to be called where a
 * crash does no harm. 0 where this version's frames are not known; up to 3.12 faulthandler's own function is to be had.
 */
int tc_each_frame(PyThreadState *state, void (*tell)(PyCodeObject *code, int line, void *argument), void *argument);
/* Releases what a dead task's thread state holds besides its frames. The state itself is never deleted: frame objects
 * that survive still point into it, and deleting it crashed the creator on 3.11 to 3.13. */
void tc_abandon_state(PyThreadState *state);
/* The first chunk of a thread state's data stack is an mmap, a page fault and a munmap a task. So some are kept: lent
 * to a fresh state before its first frame, and taken back after its last. With the interpreter lock. */
void tc_lend_chunk(PyThreadState *state);
void tc_take_chunk(PyThreadState *state);
/* From 3.13 on a waiter for a lock, a queue's item or an event is an entry, on its own stack, in lists of the
 * interpreter: the lock or the item would be handed to a dead one. For a futex on the stack of a task that is stopped
 * in it: the address that it waits for, which is 0 where it is another kind of wait... */
uintptr_t tc_parked_for(uintptr_t futex);
/* ... and takes the entry out. False: it has been given what it waits for, or is not to be found; let it go on. */
int tc_unpark(uintptr_t futex);
/* After an asynchronous exception that was set and never rose: takes back the interpreter's note that there is one,
 * which 3.11 and 3.12 keep until some thread has had one. With it every thread leaves the fast path of the eval loop
 * for good, and on 3.11 a traced one goes round for ever. Keeps the exception that is set. */
void tc_settle_async(PyObject *exception);
/* True when the kernel's thread id belongs to a thread state. */
int tc_has_state(unsigned long native_id);
/* The exception that is set, normalized and with its traceback; the indicator is cleared. */
PyObject *tc_take_exception(void);

#endif
