/* Runs in a child before its body: the contract of child.c holds. */
#include "idmap.h"

#include <errno.h>
#include <fcntl.h>

#include "sys.h"

static int write_file(const char *path, const char *text, size_t size)
{
    int fd = (int)TC_SYS(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fd;
    long n = TC_SYS(SYS_write, fd, text, size); /* in one piece, or the kernel refuses it */
    int closed = (int)TC_SYS(SYS_close, fd);
    return n < 0 ? (int)n : (size_t)n == size ? closed : -EIO;
}

int tc_step_setgroups(const struct tc_spec *spec)
{
    /* Who has no privilege outside may map a group only where groups cannot be dropped: a group may be there to deny.
     */
    return spec->gid_map ? write_file("/proc/self/setgroups", "deny", 4) : 0;
}
int tc_step_uid_map(const struct tc_spec *spec)
{
    return spec->uid_map ? write_file("/proc/self/uid_map", spec->uid_map, spec->uid_map_size) : 0;
}
int tc_step_gid_map(const struct tc_spec *spec)
{
    return spec->gid_map ? write_file("/proc/self/gid_map", spec->gid_map, spec->gid_map_size) : 0;
}

/* The number by which /proc knows the caller: the creator's for it too, whatever PID namespace the caller is in. */
static long number_in_proc(void)
{
    char text[16];
    long number = 0, n = TC_SYS(SYS_readlinkat, AT_FDCWD, "/proc/self", text, sizeof text);
    for (long i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return -EINVAL;
        number = number * 10 + (text[i] - '0');
    }
    return n < 0 ? n : number ? number : -ENOENT;
}

int tc_step_id_maps(const struct tc_spec *spec)
{
    static const struct timespec look = {0, 100000000};
    struct tc_mailbox *box = spec->mailbox;
    if (!box) return 0;
    long number = number_in_proc();
    if (number < 0) return (int)number;
    uint32_t nobody = 0;
    if (!atomic_compare_exchange_strong(&box->wanted, &nobody, (uint32_t)number)) return -ECANCELED; /* given up */
    int err = (int)tc_futex_wake(&box->wanted);
    if (err < 0) return err;
    uint32_t answer;
    while (!(answer = atomic_load(&box->answer))) {
        if (tc_creator_gone(spec)) return -ESRCH;
        tc_futex_wait(&box->answer, 0, &look);
    }
    return -(int)(answer - 1);
}
