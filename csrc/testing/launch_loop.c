/* launch_loop [--cpu N] fork|thread HEAP_MB COUNT
 *
 * The experiment of the article in plain C, to hold the benchmark against: a process with HEAP_MB megabytes of written
 * heap in 4 KiB pages starts COUNT processes or threads that do nothing, one after the other. Printed are the median
 * and the mean of the launch time (from the call until it is back in the creator) in nanoseconds:
 *
 *     fork heap_mb=2 count=10000 median_ns=33612 mean_ns=35120
 *
 * It shares no code with taskclone's own benchmark, so that a mistake in one shows as a difference.
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double elapsed_ns(struct timespec from, struct timespec to)
{
    return (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
}

static void *nothing(void *unused) { return unused; }

static double one_process(void)
{
    struct timespec called, back;
    clock_gettime(CLOCK_MONOTONIC, &called);
    pid_t child = fork();
    if (child == 0) _exit(0);
    clock_gettime(CLOCK_MONOTONIC, &back);
    if (child < 0) err(1, "fork");
    if (waitpid(child, NULL, 0) != child) err(1, "waitpid");
    return elapsed_ns(called, back);
}

static double one_thread(void)
{
    struct timespec called, back;
    pthread_t thread;
    clock_gettime(CLOCK_MONOTONIC, &called);
    int failed = pthread_create(&thread, NULL, nothing, NULL);
    clock_gettime(CLOCK_MONOTONIC, &back);
    if (failed) errx(1, "pthread_create: %s", strerror(failed));
    pthread_join(thread, NULL);
    return elapsed_ns(called, back);
}

static void write_heap(size_t megabytes)
{
    size_t size = megabytes << 20, page = (size_t)sysconf(_SC_PAGESIZE);
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)) warn("huge pages stay allowed: prctl");
    if (size == 0) return;
    char *heap = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heap == MAP_FAILED) err(1, "mmap of %zu MB", megabytes);
    if (madvise(heap, size, MADV_NOHUGEPAGE)) warn("huge pages stay allowed: madvise");
    for (size_t at = 0; at < size; at += page) heap[at] = 1;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static long number(const char *text, long least)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < least) errx(2, "not a number of at least %ld: '%s'", least, text);
    return value;
}

static void pin(long cpu)
{
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET((size_t)cpu, &only);
    if (sched_setaffinity(0, sizeof only, &only)) err(1, "cannot pin to CPU %ld", cpu);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--cpu") == 0) {
        pin(number(argv[2], 0));
        argv += 2;
        argc -= 2;
    }
    if (argc != 4) errx(2, "usage: launch_loop [--cpu N] fork|thread HEAP_MB COUNT");
    int threads = strcmp(argv[1], "thread") == 0;
    if (!threads && strcmp(argv[1], "fork") != 0) errx(2, "fork or thread, not '%s'", argv[1]);
    long megabytes = number(argv[2], 0), count = number(argv[3], 1);

    double *took = calloc((size_t)count, sizeof *took), sum = 0;
    if (!took) err(1, "calloc");
    write_heap((size_t)megabytes);
    for (long i = 0; i < count; i++) {
        took[i] = threads ? one_thread() : one_process();
        sum += took[i];
    }
    qsort(took, (size_t)count, sizeof *took, ascending);
    double median = (took[(count - 1) / 2] + took[count / 2]) / 2;
    printf("%s heap_mb=%ld count=%ld median_ns=%.0f mean_ns=%.0f\n", argv[1], megabytes, count, median,
           sum / (double)count);
    free(took);
    return 0;
}
