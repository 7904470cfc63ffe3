#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "child.h"
#include "sys.h"
#include "wait.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9 */
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum { TOKEN = 7 };

/* ---- children that end at once ----------------------------------------------------------------------------------- */

static void leave(void *code) { tc_exit_task((int)(intptr_t)code); }

static void name_host(void *unused)
{
    (void)unused; /* in a UTS namespace of its own */
    tc_exit_task((int)-TC_SYS(SYS_sethostname, "x", 1));
}

static _Alignas(64) char stack[16 << 10]; /* of one child at a time: the interpreter lock is held */

/* By clone(2), with memory of its own; nobody is told of its end. The id or -errno. */
static long start(uint64_t flags, int *pidfd, void (*body)(void *), void *argument)
{
    struct tc_clone_words words = {.parent_tid = (uint64_t)(uintptr_t)pidfd};
    uint64_t mask;
    tc_block_signals(&mask);
    long id = tc_clone(flags, stack + sizeof stack, &words, body, argument);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    return id;
}

/* Its exit code. */
static int reap(long id)
{
    struct tc_status status = {0};
    while (tc_waitid(P_PID, (int)id, WEXITED | __WALL, &status) == -EINTR) {
    }
    return status.value;
}

/* ---- single calls: 0, or -errno ---------------------------------------------------------------------------------- */

/* On a pidfd from birth: pidfd_open may be filtered where all else is there. */
static long on_child(long (*ask)(int pidfd))
{
    int pidfd = -1;
    long id = start(CLONE_PIDFD, &pidfd, leave, (void *)(intptr_t)TOKEN);
    if (id < 0) return id;
    long answer = ask(pidfd);
    reap(id);
    TC_SYS(SYS_close, pidfd);
    return answer;
}

static long wait_for_pidfd(int pidfd)
{
    struct tc_status status = {0};
    long err;
    do err = tc_waitid(P_PIDFD, pidfd, WEXITED | __WALL, &status);
    while (err == -EINTR);
    return err;
}

static long exit_info(int pidfd)
{
    struct tc_status status = {0};
    long err = wait_for_pidfd(pidfd);
    if (err) return err;
    tc_status_of_reaped(pidfd, &status);
    return status.source == TC_STATUS_PIDFD && status.value == TOKEN ? 0 : -ENODATA;
}

static long probe_clone3(void)
{
    long answer = TC_SYS(SYS_clone3, NULL, 0);
    return answer == -EINVAL ? 0 : answer;
}

static long open_pidfd(long id, unsigned flags)
{
    long pidfd = TC_SYS(SYS_pidfd_open, id, flags);
    if (pidfd >= 0) TC_SYS(SYS_close, pidfd);
    return pidfd < 0 ? pidfd : 0;
}

static long probe_pidfd(void) { return open_pidfd(TC_SYS(SYS_getpid), 0); }
static long probe_thread(void) { return open_pidfd(TC_SYS(SYS_gettid), PIDFD_THREAD); }
static long probe_wait(void) { return on_child(wait_for_pidfd); }
static long probe_info(void) { return on_child(tc_pidfd_ask); }
static long probe_exit_info(void) { return on_child(exit_info); }

static long probe_kcmp(void)
{
    long self = TC_SYS(SYS_getpid);
    return TC_SYS(SYS_kcmp, self, self, KCMP_VM, 0, 0);
}

static long probe_close_range(void) { return TC_SYS(SYS_close_range, UINT_MAX, UINT_MAX, 0); }

static long probe_tid_address(void)
{
    int *place = NULL;
    return TC_SYS(SYS_prctl, PR_GET_TID_ADDRESS, &place);
}

PyObject *tc_probe(PyObject *module, PyObject *name)
{
    static const struct {
        const char *name;
        long (*probe)(void);
    } probes[] = {
        {"clone3", probe_clone3},
        {"close_range", probe_close_range},
        {"kcmp", probe_kcmp},
        {"pidfd_exit_info", probe_exit_info},
        {"pidfd_get_info", probe_info},
        {"pidfd_open", probe_pidfd},
        {"pidfd_thread", probe_thread},
        {"pidfd_wait", probe_wait},
        {"tid_address", probe_tid_address},
    };
    (void)module;
    const char *asked = PyUnicode_AsUTF8(name);
    if (!asked) return NULL;
    for (unsigned i = 0; i < sizeof probes / sizeof *probes; i++)
        if (!strcmp(probes[i].name, asked)) return PyLong_FromLong(-probes[i].probe());
    return PyErr_Format(PyExc_ValueError, "no probe %R", name);
}

/* ---- flags --------------------------------------------------------------------------------------------------------
 */

/* The set with something in it that the kernel refuses when it is through with the flags: the place for a pidfd
 * (EFAULT) or, where a pidfd does not go with them, the descriptor of a group (EBADF). No task comes of it but where
 * the kernel has no groups: that one ends at once. */
static long refused(uint64_t flags, int by_clone3)
{
    int group = by_clone3 && (flags & (CLONE_THREAD | CLONE_INTO_CGROUP));
    _Atomic uint32_t alive = 1;
    struct clone_args args = {
        .flags = flags | (group ? CLONE_INTO_CGROUP : CLONE_PIDFD),
        .parent_tid = (uint64_t)(uintptr_t)&alive, /* PIDFD and PARENT_SETTID want different places */
        .cgroup = INT_MAX,                         /* above every limit of descriptors */
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof stack,
    };
    if (!by_clone3) return start(args.flags, NULL, leave, NULL);
    if (flags & CLONE_THREAD) args.flags |= CLONE_CHILD_CLEARTID;
    args.child_tid = (uint64_t)(uintptr_t)&alive;
    uint64_t mask;
    tc_block_signals(&mask);
    long id = tc_clone3(&args, sizeof args, leave, NULL);
    TC_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    while (id > 0 && flags & CLONE_THREAD && atomic_load(&alive)) tc_futex_wait(&alive, 1, NULL);
    if (id > 0 && !(flags & CLONE_THREAD)) reap(id);
    return id;
}

PyObject *tc_probe_flags(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long flags;
    int by_clone3;
    if (!PyArg_ParseTuple(args, "Kp:probe_flags", &flags, &by_clone3)) return NULL;
    long answer = refused(flags, by_clone3);
    return PyLong_FromLong(answer > 0 || answer == -EFAULT || answer == -EBADF ? 0 : -answer);
}

PyObject *tc_probe_user_namespace(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    long id = start(CLONE_NEWUSER | CLONE_NEWUTS, NULL, name_host, NULL);
    return id < 0 ? Py_BuildValue("(ll)", -id, 0L) : Py_BuildValue("(ii)", 0, reap(id));
}
