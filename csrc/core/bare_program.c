/* bare_program KIND COUNT SECONDS AXIS SIZE...
 *
 * The loop of bare_loop.h as a program: no interpreter in the process, so a fork of it copies what a C program's does.
 * It takes on SIZE of what AXIS names (bare_burden.h), measures, and goes on to the next, larger SIZE. Each point is
 * one line of JSON on stdout; the line is written after the point's loop, never in it. Whoever starts the program has
 * pinned it, and has forbidden huge pages unless they are what is measured (both are kept by execve).
 * taskclone.bench.worker is the only caller. */
#include <err.h>
#include <inttypes.h>
#include <stdlib.h>

#include "bare_burden.h"
#include "bare_loop.h"
#include "bare_rewrite.h"
#include "bare_switch.h"

static const struct kind *find_any_kind(const char *name)
{
    const struct kind *kind = FIND_KIND(kinds, name);
    if (!kind) kind = FIND_KIND(rewrite_kinds, name);
    if (!kind) kind = FIND_KIND(switch_kinds, name);
    if (!kind) errx(2, "no bare kind '%s'", name);
    return kind;
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
    printf("\"%s\": [", name);
    for (size_t i = 0; i < count; i++) printf("%s%" PRIu64, i ? "," : "", values[i]);
    putchar(']');
}

static void run_point(struct bare *b, double seconds)
{
    b->done = 0;
    long vmpte = kilobytes("/proc/self/status", "VmPTE:"), vmrss = kilobytes("/proc/self/status", "VmRSS:");
    long huge = kilobytes("/proc/self/smaps_rollup", "AnonHugePages:");
    int r = bare_open(b, seconds);
    if (r == 0) r = run_chunk(b); /* however little time there is: once */
    while (r == 0 && b->done < b->count && now_ns() < b->deadline) r = run_chunk(b);
    bare_close(b);
    if (r) {
        char text[160];
        bare_explain(b, -r, text, sizeof text);
        errx(1, "%s", text);
    }
    printf("{\"event\": \"point\", \"size\": %ld, ", b->burden->size);
    printf("\"vmpte_kb\": %ld, \"vmrss_kb\": %ld, \"huge_kb\": %ld, \"ns\": {", vmpte, vmrss, huge);
    for (int i = 0; i < times_of(b->kind); i++) {
        if (i) fputs(", ", stdout);
        print_values(b->kind->times[i], b->ns[i], b->done);
    }
    puts("}}");
    if (fflush(stdout)) err(1, "stdout");
}

int main(int argc, char **argv)
{
    if (argc < 6) errx(2, "usage: bare_program KIND COUNT SECONDS AXIS SIZE...");
    struct burden burden = {.size = 0};
    struct bare b = {.kind = find_any_kind(argv[1]), .count = strtoul(argv[2], NULL, 10), .burden = &burden};
    double seconds = strtod(argv[3], NULL);
    const struct axis *axis = find_axis(argv[4]);
    if (!b.count || !(seconds > 0)) errx(2, "COUNT and SECONDS must be positive");

    for (int i = 0; i < MOST_TIMES; i++)
        if (!(b.ns[i] = calloc(b.count, sizeof(uint64_t)))) err(1, "calloc");
    for (int i = 5; i < argc; i++) {
        grow_to(&burden, axis, strtol(argv[i], NULL, 10));
        run_point(&b, seconds);
    }
    for (int i = 0; i < MOST_TIMES; i++) free(b.ns[i]);
    return 0;
}
