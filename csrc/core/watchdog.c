/* The watchdog: names a wait that will never end, after a death that could not be made safe.
 *
 * A task that dies at a bad instruction leaves the interpreter lock's mutex or malloc's taken, and whoever needs it
 * next hangs. The host of the dead, which nobody will use again, stays for a while and looks once a second at the
 * threads of this process. One that is in the same futex wait without a limit for some seconds, at an address that
 * belongs to the interpreter's own state or is the lock of an arena that was lost, is reported on descriptor 2, with
 * the dead task and its Python stack. (The interpreter waits for its lock with a limit, in a loop; so do the hosts.
 * Nothing else of its own state is waited for that long.) No start pays for it.
 *
 * System calls only: the host's TLS is the dead's, and malloc may hang. The stack is read by a short-lived task, since
 * memory may be wrong: it may crash. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "arenas.h"
#include "futexes.h"
#include "interp.h"
#include "rawtext.h"
#include "shared.h"
#include "sys.h"
#include "watchdog.h"

enum { NOBODY, WATCHING, QUIT };
enum { MOST_DEATHS = 8, MOST_WAITS = 64, LIFE = 60 };

static _Atomic uint32_t word;
static pid_t watcher;
static struct tc_task *dead[MOST_DEATHS]; /* a reference each */
static _Atomic uint32_t dead_lock;
static _Atomic int deaths, told;
static int patience = 10; /* seconds; 0: no watchdog */
static uintptr_t runtime_low, runtime_high;
static void (*dump_traceback)(int fd, PyThreadState *state); /* not to be had from 3.13 on */

void tc_watchdog_init(void)
{
    const char *set = getenv("TASKCLONE_WATCHDOG");
    if (set && *set) patience = atoi(set);
    if (tc_runtime_range(&runtime_low, &runtime_high)) runtime_low = runtime_high = 0;
    *(void **)&dump_traceback = dlsym(RTLD_DEFAULT, "_Py_DumpTraceback"); /* faulthandler's: no lock, no malloc */
}

/* ---- what the threads wait for ---------------------------------------------------------------------------------- */

struct wait {
    pid_t tid;
    uintptr_t address;
    int looks;
};

static int is_ours(uintptr_t address)
{
    return (address >= runtime_low && address < runtime_high) || tc_is_lost_mutex(address);
}

/* Counts for each thread in how many looks it was in the same wait. The one that has been for too long, or NULL. */
static struct wait *look(struct wait *waits)
{
    struct wait now[MOST_WAITS] = {0}, *late = NULL;
    int count = 0;
    char entries[2048];
    int fd = (int)TC_SYS(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return NULL;
    for (long n; (n = TC_SYS(SYS_getdents64, fd, entries, sizeof entries)) > 0;)
        for (long at = 0; at < n;) {
            struct {
                uint64_t inode, offset;
                unsigned short length;
                unsigned char type;
                char name[];
            } *entry = (void *)(entries + at);
            at += entry->length;
            const char *name = entry->name;
            pid_t tid = (pid_t)tc_number_at(&name); /* 0: "." */
            uintptr_t address = tid ? tc_endless_wait(tid) : 0;
            if (address && is_ours(address) && count < MOST_WAITS) now[count++] = (struct wait){tid, address, 1};
        }
    TC_SYS(SYS_close, fd);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < MOST_WAITS && waits[j].tid; j++)
            if (waits[j].tid == now[i].tid && waits[j].address == now[i].address) now[i].looks = waits[j].looks + 1;
    memcpy(waits, now, sizeof now);
    for (int i = 0; i < count; i++)
        if (waits[i].looks > patience) late = &waits[i];
    return late;
}

/* ---- the report ------------------------------------------------------------------------------------------------- */

static void add_name(struct tc_text *text, PyObject *name)
{
    if (name && PyUnicode_Check(name) && PyUnicode_IS_COMPACT_ASCII(name))
        tc_add(text, (const char *)PyUnicode_1BYTE_DATA(name));
    else
        tc_add(text, "?");
}

static void tell_frame(PyCodeObject *code, int line, void *unused)
{
    struct tc_text text = {0};
    (void)unused;
    tc_add(&text, "  File \""), add_name(&text, code->co_filename), tc_add(&text, "\", line ");
    tc_add_number(&text, line > 0 ? (unsigned long)line : 0), tc_add(&text, " in "), add_name(&text, code->co_name);
    tc_add(&text, "\n");
    TC_SYS(SYS_write, 2, text.data, text.size);
}

/* In a task of its own: the frames may be wrong. */
static void dump(void *argument)
{
    struct tc_task *task = argument;
    if (!task->dead) return;
    if (dump_traceback)
        dump_traceback(2, task->dead);
    else
        tc_each_frame(task->dead, tell_frame, NULL);
}

static const char *name_of(int sig)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},
                 {SIGFPE, "SIGFPE"},   {SIGILL, "SIGILL"},   {SIGTRAP, "SIGTRAP"}, {SIGSYS, "SIGSYS"},
                 {SIGQUIT, "SIGQUIT"}, {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"}};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == sig) return names[i].name;
    return "another signal";
}

static void tell(struct tc_host *host, const struct wait *wait)
{
    struct tc_text text = {0};
    int arena = tc_is_lost_mutex(wait->address);
    struct tc_task *task = NULL;
    tc_spin_lock(&dead_lock);
    for (int i = 0; i < MOST_DEATHS && dead[i]; i++)
        if (!arena || dead[i]->malloc_stuck) task = dead[i]; /* the last one is the likely one */
    tc_spin_unlock(&dead_lock);
    tc_add(&text, "taskclone: thread "), tc_add_number(&text, (unsigned long)wait->tid);
    tc_add(&text, arena ? " has waited for a lock of malloc for " : " has waited for the interpreter's own locks for ");
    tc_add_number(&text, (unsigned long)patience), tc_add(&text, " s, and nobody will open it: ");
    if (task) {
        int sig = atomic_load(&task->report.crashed) ? task->report.signal : task->status.value;
        tc_add(&text, "task "), tc_add_number(&text, (unsigned long)atomic_load(&task->pid));
        if (task->name[0]) tc_add(&text, " '"), tc_add(&text, task->name), tc_add(&text, "'");
        tc_add(&text, ", which shared this memory, died of "), tc_add(&text, name_of(sig));
        tc_add(&text, arena ? " inside malloc" : " while it took or gave back the interpreter lock");
        tc_add(&text, task->dead ? ". Its Python stack:\n" : ". Its Python stack is in its TaskDied.\n");
    }
    TC_SYS(SYS_write, 2, text.data, text.size);
    static const char unread[] = "  (it cannot be read)\n";
    if (task && task->dead && !tc_try(host, dump, task, 5000, NULL)) TC_SYS(SYS_write, 2, unread, sizeof unread - 1);
}

/* ---- its life --------------------------------------------------------------------------------------------------- */

static void watch(struct tc_host *host)
{
    static const struct timespec second = {1, 0};
    struct wait waits[MOST_WAITS] = {0};
    int seen = 0;
    for (int age = 0; atomic_load(&word) == WATCHING && age < LIFE; age++) {
        if (tc_futex_wait(&word, WATCHING, &second) != -ETIMEDOUT) continue;
        if (seen != atomic_load(&deaths)) seen = atomic_load(&deaths), age = 0;
        if (atomic_load(&tc_counters.malloc_deaths)) age = 0; /* it may be needed at any time */
        struct wait *late = look(waits);
        if (!late) continue;
        tell(host, late);
        atomic_store(&told, 1);
        break; /* one thing is said once */
    }
}

static void forget_deaths(void)
{
    tc_spin_lock(&dead_lock);
    for (int i = 0; i < MOST_DEATHS; i++) {
        if (dead[i]) tc_task_release(dead[i]);
        dead[i] = NULL;
    }
    tc_spin_unlock(&dead_lock);
}

void tc_watchdog(struct tc_host *host, struct tc_task *task)
{
    if (patience <= 0 || atomic_load(&told)) return;
    tc_spin_lock(&dead_lock);
    if (dead[MOST_DEATHS - 1]) {
        tc_task_release(dead[0]);
        memmove(dead, dead + 1, sizeof *dead * (MOST_DEATHS - 1));
        dead[MOST_DEATHS - 1] = NULL;
    }
    for (int i = 0; i < MOST_DEATHS; i++)
        if (!dead[i]) {
            atomic_fetch_add(&task->references, 1);
            dead[i] = task;
            break;
        }
    tc_spin_unlock(&dead_lock);
    atomic_fetch_add(&deaths, 1);
    uint32_t nobody = NOBODY;
    if (!atomic_compare_exchange_strong(&word, &nobody, WATCHING)) return;
    watcher = host->tid;
    watch(host);
    forget_deaths();
    atomic_store(&word, NOBODY);
}

pid_t tc_watchdog_quit(void)
{
    uint32_t watching = WATCHING;
    if (!atomic_compare_exchange_strong(&word, &watching, QUIT)) return 0;
    tc_futex_wake(&word);
    return watcher;
}

int tc_watchdog_there(void) { return atomic_load(&word) == WATCHING; }

void tc_watchdog_after_fork(void)
{
    memset(dead, 0, sizeof dead); /* records of the parent's: nobody frees them here */
    atomic_store(&dead_lock, 0);
    atomic_store(&word, NOBODY);
    atomic_store(&told, 0);
}
