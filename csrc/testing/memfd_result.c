/* memfd_result [--cpu N] MEGABYTES COUNT
 *
 * The floor for a large result that comes back from copied memory: a process that has an array of that size forks, the
 * child writes the array to a memfd, and the parent waits for it and maps what was written. Printed is the time of
 * each of COUNT rounds in nanoseconds, from before the fork until the mapping is there (and not the unmapping).
 * Like numpy, it asks for huge pages for its array.
 */
#define _GNU_SOURCE
#include <err.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *make_array(size_t size)
{
    char *array = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (array == MAP_FAILED) err(1, "mmap of %zu bytes", size);
    if (madvise(array, size, MADV_HUGEPAGE)) warn("no huge pages: madvise");
    memset(array, 1, size);
    return array;
}

static _Noreturn void child(int fd, const char *array, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = pwrite(fd, array + at, size - at, (off_t)at);
        if (n <= 0) _exit(1);
        at += (size_t)n;
    }
    _exit(0);
}

static double one_round(const char *array, size_t size)
{
    struct timespec from, to;
    int status;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int fd = memfd_create("result", MFD_CLOEXEC);
    if (fd < 0) err(1, "memfd_create");
    pid_t pid = fork();
    if (pid == 0) child(fd, array, size);
    if (pid < 0) err(1, "fork");
    if (waitpid(pid, &status, 0) != pid || status) errx(1, "the child failed");
    char *result = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (result == MAP_FAILED) err(1, "mmap of the result");
    close(fd);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (result[0] != 1 || result[size - 1] != 1) errx(1, "not what was written");
    munmap(result, size);
    return (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
}

static void pin(int cpu)
{
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET((size_t)cpu, &only);
    if (sched_setaffinity(0, sizeof only, &only)) err(1, "cannot pin to CPU %d", cpu);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--cpu") == 0) {
        pin(atoi(argv[2]));
        argv += 2;
        argc -= 2;
    }
    if (argc != 3 || atol(argv[1]) < 1 || atol(argv[2]) < 1) errx(2, "usage: memfd_result [--cpu N] MEGABYTES COUNT");
    size_t size = (size_t)atol(argv[1]) << 20;
    const char *array = make_array(size);
    for (long i = atol(argv[2]); i > 0; i--) printf("%.0f\n", one_round(array, size));
    return 0;
}
