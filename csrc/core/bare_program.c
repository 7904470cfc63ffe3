/* bare_program KIND COUNT SECONDS HEAP_MB...
 *
 * The loop of bare_loop.h as a program: no interpreter in the process, so a fork of it copies what a C program's does.
 * It writes to its heap until it is HEAP_MB megabytes, measures, and goes on to the next, larger HEAP_MB. Each point is
 * one line of JSON on stdout; the line is written after the point's loop, never in it. Whoever starts the program has
 * pinned it and forbidden huge pages (both are kept by execve). taskclone.bench.worker is the only caller. */
#include <err.h>
#include <inttypes.h>
#include <stdlib.h>

#include "bare_loop.h"

static void write_megabytes(long megabytes)
{
    if (megabytes == 0) return;
    size_t size = (size_t)megabytes << 20, page = (size_t)sysconf(_SC_PAGESIZE);
    char *piece = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece == MAP_FAILED) err(1, "mmap of %ld MB of heap", megabytes);
    madvise(piece, size, MADV_NOHUGEPAGE); /* fails where the kernel has no huge pages to forbid */
    for (size_t at = 0; at < size; at += page) piece[at] = 1;
}

/* What a line "NAME  123 kB" of a /proc file says, or -1. */
static long kilobytes(const char *path, const char *name)
{
    char line[256];
    long kb = -1;
    size_t length = strlen(name);
    FILE *file = fopen(path, "re");
    while (file && kb < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, name, length) == 0) kb = strtol(line + length, NULL, 10);
    if (file) fclose(file);
    return kb;
}

static void print_values(const char *name, const uint64_t *values, size_t count)
{
    printf(", \"%s\": [", name);
    for (size_t i = 0; i < count; i++) printf("%s%" PRIu64, i ? "," : "", values[i]);
    putchar(']');
}

static void run_point(struct bare *b, long heap_mb, double seconds)
{
    b->done = 0;
    long vmpte = kilobytes("/proc/self/status", "VmPTE:"), vmrss = kilobytes("/proc/self/status", "VmRSS:");
    long huge = kilobytes("/proc/self/smaps_rollup", "AnonHugePages:");
    int r = bare_open(b, seconds);
    while (r == 0 && b->done < b->count && now_ns() < b->deadline) r = run_chunk(b);
    bare_close(b);
    if (r) {
        char text[160];
        bare_explain(b, -r, text, sizeof text);
        errx(1, "%s", text);
    }
    printf("{\"event\": \"point\", \"heap_mb\": %ld, ", heap_mb);
    printf("\"vmpte_kb\": %ld, \"vmrss_kb\": %ld, \"huge_kb\": %ld", vmpte, vmrss, huge);
    print_values("start_ns", b->start_ns, b->done);
    print_values("total_ns", b->total_ns, b->done);
    puts("}");
    if (fflush(stdout)) err(1, "stdout");
}

int main(int argc, char **argv)
{
    if (argc < 5) errx(2, "usage: bare_program KIND COUNT SECONDS HEAP_MB...");
    struct bare b = {.kind = find_kind(argv[1]), .count = strtoul(argv[2], NULL, 10)};
    double seconds = strtod(argv[3], NULL);
    if (!b.kind) errx(2, "no bare kind '%s'", argv[1]);
    if (!b.count || !(seconds > 0)) errx(2, "COUNT and SECONDS must be positive");

    b.start_ns = calloc(b.count, sizeof(uint64_t));
    b.total_ns = calloc(b.count, sizeof(uint64_t));
    if (!b.start_ns || !b.total_ns) err(1, "calloc");
    long have = 0;
    for (int i = 4; i < argc; i++) {
        long heap_mb = strtol(argv[i], NULL, 10);
        if (heap_mb < have) errx(2, "HEAP_MB must grow");
        write_megabytes(heap_mb - have);
        have = heap_mb;
        run_point(&b, heap_mb, seconds);
    }
    free(b.start_ns);
    free(b.total_ns);
    return 0;
}
