#include "futexes.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "rawtext.h"
#include "sys.h"

uintptr_t tc_endless_wait(pid_t tid)
{
    struct tc_text path = {0};
    tc_add(&path, "/proc/"), tc_add_number(&path, (unsigned long)tid), tc_add(&path, "/syscall");
    path.data[path.size] = 0;
    int fd = (int)TC_SYS(SYS_openat, AT_FDCWD, path.data, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char line[256];
    long n = TC_SYS(SYS_read, fd, line, sizeof line - 1);
    TC_SYS(SYS_close, fd);
    if (n <= 0 || line[0] < '0' || line[0] > '9') return 0; /* "running" */
    line[n] = 0;
    const char *at = line;
    if (tc_number_at(&at) != SYS_futex) return 0;
    uintptr_t address = tc_number_at(&at);
    unsigned long operation = tc_number_at(&at) & FUTEX_CMD_MASK;
    tc_number_at(&at); /* the value */
    int endless = tc_number_at(&at) == 0;
    return endless && (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET) ? address : 0;
}
