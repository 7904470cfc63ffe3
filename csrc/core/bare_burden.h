/* What a measuring process carries, so that one can see what a start costs because of it: touched heap in pages of
 * 4 KiB or in huge ones, mappings, open descriptors. It only grows. taskclone.bench.axes is the same for a worker
 * with an interpreter in it, and says what each axis means. */
#ifndef TC_BARE_BURDEN_H
#define TC_BARE_BURDEN_H

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MOST_PIECES 64
#define HUGE_SIZE ((size_t)2 << 20)

struct burden {
    long size; /* on the axis */
    struct {
        char *start;
        size_t size;
    } pieces[MOST_PIECES]; /* of the heap */
    int piece_count;
};

static inline size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static char *map_pages(size_t size)
{
    char *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) err(1, "mmap of %zu bytes", size);
    return start;
}

/* One byte in every page of the heap. */
static void write_heap(const struct burden *burden)
{
    size_t page = page_size();
    for (int i = 0; i < burden->piece_count; i++)
        for (size_t at = 0; at < burden->pieces[i].size; at += page) ((volatile char *)burden->pieces[i].start)[at]++;
}

static void grow_heap(struct burden *burden, long more, int huge)
{
    if (burden->piece_count == MOST_PIECES) errx(2, "more than %d heaps", MOST_PIECES);
    size_t size = (size_t)more << 20;
    char *start = map_pages(huge ? size + HUGE_SIZE : size);
    if (huge) start += -(uintptr_t)start % HUGE_SIZE;
    /* Fails where the kernel has no huge pages; AnonHugePages tells whether they were given. */
    madvise(start, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    struct burden added = {.pieces = {{start, size}}, .piece_count = 1};
    write_heap(&added);
    burden->pieces[burden->piece_count++] = added.pieces[0];
}

static void grow_small_heap(struct burden *burden, long more) { grow_heap(burden, more, 0); }
static void grow_huge_heap(struct burden *burden, long more) { grow_heap(burden, more, 1); }

/* Mappings of one touched page each, a hole after each so that they stay apart. */
static void grow_mappings(struct burden *burden, long more)
{
    (void)burden;
    size_t page = page_size();
    char *start = map_pages((size_t)more * 2 * page);
    for (long i = 0; i < more; i++) {
        char *at = start + (size_t)i * 2 * page;
        if (munmap(at + page, page)) err(1, "munmap after %ld mappings", i);
        *at = 1;
    }
}

static void grow_descriptors(struct burden *burden, long more)
{
    (void)burden;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) err(1, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit)) err(1, "setrlimit");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (long i = 1; null >= 0 && i < more; i++)
        if (dup(null) < 0) err(1, "dup after %ld descriptors", i);
    if (null < 0) err(1, "/dev/null");
}

/* The kinds that have a partner look at the size themselves. */
static void grow_cpus(struct burden *burden, long more) { (void)burden, (void)more; }

static const struct axis {
    const char *name;
    void (*grow)(struct burden *burden, long more);
} axes[] = {
    {"heap", grow_small_heap},         {"huge", grow_huge_heap}, {"mappings", grow_mappings},
    {"descriptors", grow_descriptors}, {"cpus", grow_cpus},
};

static const struct axis *find_axis(const char *name)
{
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++)
        if (strcmp(axes[i].name, name) == 0) return &axes[i];
    errx(2, "no axis '%s'", name);
}

static void grow_to(struct burden *burden, const struct axis *axis, long size)
{
    if (size < burden->size) errx(2, "sizes must grow");
    if (size > burden->size) axis->grow(burden, size - burden->size);
    burden->size = size;
}

#endif
