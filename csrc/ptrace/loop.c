/* What the tracer does at each stop.
 *
 * Stops at the entry of each system call (PTRACE_SYSCALL) tell a call as it is made, so one that fails, or that makes a
 * task which cannot be followed (CLONE_UNTRACED), is seen too. The price is two stops for each system call of the
 * program; the events alone would cost nothing there, but need each machine's registers.
 */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "calls.h"
#include "sys.h"

#define SYSCALL_STOP (SIGTRAP | 0x80)
/* Results of an interrupted call that the kernel will make again: ERESTARTSYS and its kin, never seen by a program. */
#define FIRST_RESTART 512

static long ptrace_call(long request, pid_t tid, uintptr_t address, uintptr_t data)
{
    return TC_SYS(SYS_ptrace, request, tid, address, data);
}

static void kill_all(struct tp_tracer *t)
{
    t->ending = 1;
    for (size_t i = 0; i < t->tasks.size; i++)
        if (t->tasks.places[i].tid && t->tasks.places[i].state == TP_LIVE)
            TC_SYS(SYS_tkill, t->tasks.places[i].tid, SIGKILL);
}

static void tell(struct tp_tracer *t, const struct tp_record *record)
{
    if (!t->ending && tp_write(t->fd, record) < 0) kill_all(t); /* EPIPE: nobody reads any more */
}

void tp_tell_failure(struct tp_tracer *t, const char *step, int error)
{
    struct tp_record record = {.kind = TP_FAILED, .value = error};
    strncpy(record.word, step, sizeof record.word - 1);
    tell(t, &record);
}

static void tell_end(struct tp_tracer *t, pid_t tid, int status)
{
    struct tp_record record = {.kind = TP_END, .tid = tid, .value = status};
    int error;
    enum tc_step step = tid == t->program ? tc_report_failed(t->report, &error) : TC_STEP_NONE;
    if (step) tp_tell_failure(t, tc_step_name(step), error);
    tell(t, &record);
}

/* What goes wrong in the loop itself ends the trace: half of the truth would look like all of it. */
static void give_up(struct tp_tracer *t, const char *step, int error)
{
    if (!t->ending) tp_tell_failure(t, step, error);
    kill_all(t);
}

/* ---- stops ------------------------------------------------------------------------------------------------------ */

static void at_syscall(struct tp_tracer *t, struct tp_task *task)
{
    struct ptrace_syscall_info info;
    if (ptrace_call(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, (uintptr_t)&info) < 0) return; /* killed */
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        tp_read_call(task->tid, &info, &task->call);
        task->told = 0;
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        int again = info.exit.is_error && info.exit.rval <= -FIRST_RESTART;
        if (task->call.which && !task->told && !again) {
            struct tp_record record = {.kind = TP_CALL, .tid = task->tid, .call = task->call};
            if (info.exit.is_error)
                record.value = (int32_t)-info.exit.rval;
            else
                record.peer = (int32_t)info.exit.rval;
            tell(t, &record);
        }
        task->call.which = TP_NO_CALL;
    }
}

static void at_birth(struct tp_tracer *t, struct tp_task *task)
{
    unsigned long child;
    if (ptrace_call(PTRACE_GETEVENTMSG, task->tid, 0, (uintptr_t)&child) < 0) return;
    if (!task->call.which) {
        give_up(t, "ptrace", EPROTO);
        return;
    }
    struct tp_record record = {
        .kind = TP_CALL, .tid = task->tid, .peer = (int32_t)child, .followed = 1, .call = task->call};
    task->told = 1;
    tell(t, &record);
    struct tp_task *new = tp_find(&t->tasks, (pid_t)child);
    if (new && new->state == TP_DEAD) {
        tell_end(t, new->tid, new->status);
        tp_drop(&t->tasks, new->tid);
    } else if ((new = tp_put(&t->tasks, (pid_t)child, TP_LIVE)))
        new->born = 1;
    else
        give_up(t, "mmap", ENOMEM);
}

static void read_name(pid_t tid, char *name, size_t size)
{
    char path[] = "/proc/0000000000/comm", *at = path + sizeof "/proc/0000000000" - 1;
    do *--at = (char)('0' + tid % 10);
    while (tid /= 10);
    memmove(path + sizeof "/proc/" - 1, at, strlen(at) + 1);
    long fd = TC_SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    long length = TC_SYS(SYS_read, fd, name, size);
    if (length > 0 && name[length - 1] == '\n') name[length - 1] = 0;
    TC_SYS(SYS_close, fd);
}

/* The caller is now the leader of its group, under the leader's id; the ends of the other threads have come before,
 * but that of a leader who was not the caller never comes. */
static void at_exec(struct tp_tracer *t, struct tp_task *task)
{
    unsigned long former;
    pid_t tid = task->tid;
    if (ptrace_call(PTRACE_GETEVENTMSG, tid, 0, (uintptr_t)&former) < 0) return;
    struct tp_record record = {.kind = TP_EXEC, .tid = tid, .peer = (int32_t)former};
    read_name(tid, record.word, sizeof record.word);
    task->call.which = TP_NO_CALL;
    if ((pid_t)former != tid) tp_drop(&t->tasks, (pid_t)former);
    tell(t, &record);
}

static int stops_a_group(int sig) { return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU; }

static void at_stop(struct tp_tracer *t, pid_t tid, int status)
{
    struct tp_task *task = tp_put(&t->tasks, tid, TP_LIVE); /* a new task's first stop may come before its birth */
    if (!task) give_up(t, "mmap", ENOMEM);
    if (t->ending) {
        TC_SYS(SYS_tkill, tid, SIGKILL); /* it leaves the stop by itself */
        return;
    }
    struct tp_stopped next = {tid, PTRACE_SYSCALL, 0};
    int sig = WSTOPSIG(status);
    switch (status >> 16) {
    case 0:
        if (sig == SYSCALL_STOP)
            at_syscall(t, task);
        else
            next.sig = sig; /* on its way to the task: there it goes */
        break;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
        at_birth(t, task);
        break;
    case PTRACE_EVENT_EXEC:
        at_exec(t, task);
        break;
    case PTRACE_EVENT_STOP:
        if (stops_a_group(sig)) next.how = PTRACE_LISTEN; /* it stays stopped, until SIGCONT */
        break;
    }
    if (!tp_put_stopped(&t->tasks, next)) give_up(t, "mmap", ENOMEM);
}

static void let_go_on(struct tp_tracer *t)
{
    for (size_t i = 0; i < t->tasks.stopped_count; i++) {
        const struct tp_stopped *next = &t->tasks.stopped[i];
        /* ESRCH: it was killed meanwhile; its end will be told. */
        long err = ptrace_call(next->how, next->tid, 0, (uintptr_t)next->sig);
        if (err < 0 && err != -ESRCH) give_up(t, "ptrace", (int)-err);
    }
    t->tasks.stopped_count = 0;
}

/* An end is told after the birth, so it may have to wait for that. One that is never told of: an orphan that was never
 * traced, or one whose end was told before its parent died and left it to us. */
static void at_end(struct tp_tracer *t, pid_t tid, int status)
{
    struct tp_task *task = tp_find(&t->tasks, tid);
    if (task && task->born) {
        tell_end(t, tid, status);
        tp_drop(&t->tasks, tid);
    } else if ((task = tp_put(&t->tasks, tid, TP_DEAD)))
        task->status = status;
    else
        give_up(t, "mmap", ENOMEM);
}

/* Until nothing is traced any more. What was never traced (CLONE_UNTRACED) is not waited for.
 * wait4 looks for stops always in the same order, so tasks that stop often would keep it from those further down. That
 * is why nobody goes on until all that have stopped are seen to. */
void tp_loop(struct tp_tracer *t)
{
    while (t->tasks.alive) {
        if (tp_end_asked && !t->ending) kill_all(t);
        int status;
        /* No rusage: the kernel would sum it up over all threads of the group, at each stop. */
        long tid = TC_SYS(SYS_wait4, -1, &status, __WALL | (t->tasks.stopped_count ? WNOHANG : 0), 0);
        if (tid == -EINTR) continue;
        if (tid < 0) {
            if (tid != -ECHILD) give_up(t, "wait4", (int)-tid);
            return;
        }
        if (!tid)
            let_go_on(t);
        else if (WIFSTOPPED(status))
            at_stop(t, (pid_t)tid, status);
        else
            at_end(t, (pid_t)tid, status);
    }
}
