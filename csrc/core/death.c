/* After an abnormal death.
 *
 * On the host, system calls only, but for one call: if the dead task held the interpreter lock, the host gives it up,
 * on the dead's thread state, which is current on this TLS. Everything else (the Python stack, what can be released) is
 * done by the thread that looks at the task later, with a lock and an arena of its own.
 *
 * The one thing that must be known at once is whether the dead left malloc's lock locked: a probe finds it out, a
 * short-lived task on the same TLS that calls malloc. If it hangs, it is killed, and the arena is counted as lost.
 */
#include "shared.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arenas.h"
#include "fallback.h"
#include "futexes.h"
#include "interp.h"
#include "sys.h"

/* ---- where code lies -------------------------------------------------------------------------------------------- */

enum { LIBC = 1, PYTHON = 2, MAX_TEXTS = 16 };
static struct text {
    uintptr_t low, high;
    int kind;
} texts[MAX_TEXTS];
static int text_count;

struct marks {
    uintptr_t address;
    int kind;
};

static int note_object(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    const struct marks *marks = argument;
    int kind = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + part->p_vaddr, high = low + part->p_memsz;
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        for (const struct marks *mark = marks; mark->kind; mark++)
            if (mark->address >= low && mark->address < high) kind |= mark->kind;
    }
    for (int i = 0; kind && i < info->dlpi_phnum && text_count < MAX_TEXTS; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X))
            texts[text_count++] = (struct text){low, low + part->p_memsz, kind};
    }
    return 0;
}

static int malloc_limit;
int tc_malloc_limit(void) { return malloc_limit; }

/* Once: every start asks for it, and the C library reads /sys for it. */
static int find_malloc_limit(void)
{
    /* glibc has 8 arenas a core, then threads share them; a quarter may be lost before shared starts are refused. */
    long arenas = 8 * sysconf(_SC_NPROCESSORS_ONLN);
    const char *set = getenv("MALLOC_ARENA_MAX");
    if (set && atol(set) > 0 && atol(set) < arenas) arenas = atol(set);
    return arenas >= 8 ? (int)(arenas / 4) : 1;
}

int tc_death_init(void)
{
    /* By an address in each, not by name: Python may be the main program, malloc may be somebody else's. */
    void *loader = dlsym(RTLD_DEFAULT, "__tls_get_addr"), *allocator = dlsym(RTLD_DEFAULT, "malloc");
    const struct marks marks[] = {
        {(uintptr_t)dlsym(RTLD_DEFAULT, "raise"), LIBC},
        {(uintptr_t)allocator, LIBC},
        {loader ? (uintptr_t)loader : 1, LIBC},
        {(uintptr_t)&PyEval_SaveThread, PYTHON},
        {(uintptr_t)&tc_death_init, PYTHON},
        {0, 0},
    };
    dl_iterate_phdr(note_object, (void *)marks);
    malloc_limit = find_malloc_limit();
    return 0;
}

int tc_in_libc(uintptr_t pc, int or_python)
{
    for (int i = 0; i < text_count; i++)
        if (pc >= texts[i].low && pc < texts[i].high && (or_python || (texts[i].kind & LIBC))) return 1;
    return 0;
}

/* ---- the probe -------------------------------------------------------------------------------------------------- */

struct probe {
    struct tc_spec spec;
    struct tc_report report;
    void (*body)(void *);
    void *argument;
    _Atomic uint32_t passed;
};

static void probe_main(void *argument)
{
    struct probe *probe = argument;
    static const struct tc_step_row steps[] = {
        {TC_STEP_CLEAR_HANDLERS, tc_step_clear_handlers},
        {TC_STEP_PARENT_DEATH, tc_step_parent_death},
        {TC_STEP_ALTSTACK, tc_step_altstack},
        {TC_STEP_FATAL_HANDLERS, tc_step_fatal_handlers},
        {TC_STEP_SIGMASK, tc_step_sigmask},
        {TC_STEP_NONE, NULL},
    };
    if (!tc_run_steps(&probe->spec, steps)) {
        probe->body(probe->argument);
        atomic_store(&probe->passed, 1);
    }
    tc_exit_task(0);
}

int tc_try(struct tc_host *host, void (*body)(void *), void *argument, int milliseconds, uintptr_t *hung_at)
{
    struct probe probe = {
        .spec = {.parent_death = SIGKILL,
                 .creator = (pid_t)TC_SYS(SYS_getpid),
                 .creator_pidfd = -1,
                 .altstack = host->altstack,
                 .altstack_size = host->altstack_size,
                 .report = &probe.report},
        .body = body,
        .argument = argument,
    };
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_CLEAR_SIGHAND,
        .stack = (uint64_t)(uintptr_t)host->top, /* above what the dead left on its stack */
        .stack_size = (uint64_t)(host->probe_top - host->top),
    };
    long pid = tc_start(&probe.spec, &args, probe_main, &probe);
    if (pid < 0) return 0;
    struct timespec pause = {0, 50000};
    struct tc_status status = {0};
    for (int i = 0; i < 20 * milliseconds; i++) {
        int err = tc_waitid(P_PID, (int)pid, WEXITED | WNOHANG | __WALL, &status);
        if (status.source || err == -ECHILD) return (int)atomic_load(&probe.passed);
        TC_SYS(SYS_nanosleep, &pause, 0);
    }
    if (hung_at) *hung_at = tc_endless_wait((pid_t)pid);
    TC_SYS(SYS_kill, pid, SIGKILL); /* not reaped yet: the id is still its own */
    while (tc_waitid(P_PID, (int)pid, WEXITED | __WALL, &status) == -EINTR) {
    }
    return 0;
}

static void use_malloc(void *works)
{
    void *volatile block = malloc(5000); /* past the thread cache, so it takes the arena's lock */
    free(block);
    *(int *)works = block != NULL;
}

/* ---- recovery --------------------------------------------------------------------------------------------------- */

static int may_hold_malloc(const struct tc_task *task)
{
    if (atomic_load(&task->known_place)) return 0;
    if (atomic_load(&task->report.crashed)) return tc_in_libc((uintptr_t)task->report.pc, 0);
    return task->status.source != TC_STATUS_WAIT || task->status.code != CLD_EXITED;
}

void tc_recover(struct tc_host *host, struct tc_task *task)
{
    PyThreadState *ts = PyGILState_GetThisThreadState();
    tc_current = NULL;
    task->dead = ts;
    /* The dead held the interpreter lock, so the host, whose TLS says the same, holds it now. */
    if (ts && tc_current_state() == ts) PyEval_SaveThread();
    int works = 0;
    uintptr_t mutex = 0;
    if (may_hold_malloc(task) && !(tc_try(host, use_malloc, &works, 1000, &mutex) && works)) {
        task->malloc_stuck = 1;
        atomic_fetch_add(&tc_counters.malloc_deaths, 1);
        tc_lose_arena(host->arena, mutex);
    }
}

static PyObject *damage_hook;

PyObject *tc_set_damage_hook(PyObject *module, PyObject *hook)
{
    (void)module;
    Py_XSETREF(damage_hook, Py_NewRef(hook));
    Py_RETURN_NONE;
}

static void examine(struct tc_task *task)
{
    PyObject *damage =
        !damage_hook ? NULL
                     : PyObject_CallFunction(damage_hook, "kIi", task->ident, task->report.threads, task->malloc_stuck);
    if (damage && PyTuple_CheckExact(damage))
        task->damage = damage;
    else
        Py_XDECREF(damage);
    if (PyErr_Occurred()) PyErr_WriteUnraisable(damage_hook);
}

/* Another thread is at it, without the interpreter lock now and then. Not for ever: it may be a task that died. */
static void await_examination(struct tc_task *task)
{
    struct timespec look = {0, 50000000};
    Py_BEGIN_ALLOW_THREADS;
    for (int i = 0; i < 60 && atomic_load(&task->examined) == 1; i++) tc_futex_wait(&task->examined, 1, &look);
    Py_END_ALLOW_THREADS;
}

void tc_post_mortem(struct tc_task *task)
{
    PyThreadState *ts = task->dead;
    if (!ts) {
        if (atomic_load(&task->examined) == 1) await_examination(task);
        return;
    }
    task->dead = NULL; /* first: the reading may give the lock away, and another thread come here */
    task->ts = NULL;
    atomic_store(&task->examined, 1);
    atomic_fetch_add(&tc_counters.abandoned, 1);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    task->stack = tc_state_stack(ts);
    if (!task->stack) PyErr_WriteUnraisable(NULL);
    if (!task->malloc_stuck) tc_abandon_state(ts);
    if (task->interrupted) tc_settle_async(task->cancel);
    examine(task);
    PyErr_Restore(type, value, traceback);
    atomic_store(&task->examined, 2);
    tc_futex_wake(&task->examined);
}
