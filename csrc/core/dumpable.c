/* One memory, one answer to PR_GET_DUMPABLE (prctl(2)): a task that changes its ids takes core dumps, debuggers and the
 * ownership of /proc/self from its creator too, and there it would stay so. It is put back when the last such task has
 * ended, and not earlier: until then it keeps others of the new id from tracing a task that holds the creator's memory.
 *
 * On hosts, too: raw system calls only. */
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>

#include "shared.h"
#include "sys.h"

int tc_dumpable(void) { return (int)TC_SYS(SYS_prctl, PR_GET_DUMPABLE); }

/* The line of /proc/PID/status with that name, its four ids; 0: it is not to be had. */
static int ids_of(pid_t pid, const char *name, char *ids, size_t size)
{
    char path[32] = "/proc/", text[1024], *end = path + strlen(path);
    char digits[12], *digit = digits + sizeof digits - 1;
    *digit = 0;
    do *--digit = (char)('0' + pid % 10);
    while (pid /= 10);
    while (*digit) *end++ = *digit++;
    memcpy(end, "/status", sizeof "/status");
    int fd = (int)TC_SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    long n = TC_SYS(SYS_read, fd, text, sizeof text - 1);
    TC_SYS(SYS_close, fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *line = strstr(text, name);
    if (!line) return 0;
    size_t i = 0;
    for (; i < size - 1 && line[i] && line[i] != '\n'; i++) ids[i] = line[i];
    ids[i] = 0;
    return 1;
}

static int has_other_ids(pid_t pid)
{
    char own[64], theirs[64];
    static const char *const names[] = {"\nUid:", "\nGid:"};
    for (int i = 0; i < 2; i++)
        if (ids_of((pid_t)TC_SYS(SYS_getpid), names[i] + 1, own, sizeof own) &&
            ids_of(pid, names[i] + 1, theirs, sizeof theirs) && strcmp(own, theirs) != 0)
            return 1;
    return 0;
}

void tc_keep_dumpable(struct tc_task *task)
{
    if (task->dumpable != 1 || tc_dumpable() == 1) return;
    pid_t pid = atomic_load(&task->pid);
    if (pid && has_other_ids(pid) && !tc_task_any(has_other_ids, task)) TC_SYS(SYS_prctl, PR_SET_DUMPABLE, 1);
}
