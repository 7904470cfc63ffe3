/* Python's thread states, locks and lists are blocks of the raw domain. One in a lost arena that is freed later, by
 * whatever thread, hangs that thread in free(): so such blocks are left where they are.
 *
 * Which arena a block is in stands in glibc's own words (malloc/malloc.c and arena.c, since 2.3): the size before the
 * block has a bit for "not in the main arena" and one for "mapped by itself"; an arena but the main one lies in heaps,
 * each of which begins on a border of 64 MB with the address of its arena; an arena begins with its mutex. All of it is
 * read by the kernel, since another malloc, or a tunable (glibc.malloc.hugetlb), may have nothing there. */
#include "arenas.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <malloc.h>
#include <string.h>
#include <sys/uio.h>

#include "sys.h"

enum { MAPPED = 2, NOT_MAIN = 4, MOST = 64 };
static const uintptr_t heap_size = 64ul << 20;
static const uintptr_t begins_within = 4096; /* an arena comes right after the head of its first heap */

static struct {
    uintptr_t arena, mutex;
} lost[MOST];
static _Atomic int lost_count;
static PyMemAllocatorEx inner;

static uintptr_t word_at(uintptr_t address)
{
    uintptr_t word = 0;
    struct iovec here = {&word, sizeof word}, there = {(void *)address, sizeof word};
    long self = TC_SYS(SYS_getpid);
    return TC_SYS(SYS_process_vm_readv, self, &here, 1, &there, 1, 0) == sizeof word ? word : 0;
}

uintptr_t tc_arena_of(const void *block)
{
    uintptr_t size = word_at((uintptr_t)block - sizeof size);
    if (!size) return TC_UNKNOWN_ARENA;
    if (size & MAPPED) return TC_NO_ARENA;
    if (!(size & NOT_MAIN)) return TC_MAIN_ARENA;
    uintptr_t arena = word_at((uintptr_t)block & ~(heap_size - 1));
    return arena > heap_size && (arena & (heap_size - 1)) < begins_within ? arena : TC_UNKNOWN_ARENA;
}

static int is_lost(const void *block)
{
    uintptr_t arena = block ? tc_arena_of(block) : TC_NO_ARENA;
    for (int i = 0; arena != TC_NO_ARENA && i < atomic_load(&lost_count); i++)
        if (lost[i].arena == arena) return 1;
    return 0;
}

int tc_is_lost_mutex(uintptr_t address)
{
    for (int i = 0; i < atomic_load(&lost_count); i++)
        if (lost[i].mutex == address) return 1;
    return 0;
}

static void *raw_malloc(void *ctx, size_t size) { return inner.malloc(ctx, size); }
static void *raw_calloc(void *ctx, size_t n, size_t size) { return inner.calloc(ctx, n, size); }
static void raw_free(void *ctx, void *block)
{
    if (!is_lost(block)) inner.free(ctx, block);
}
static void *raw_realloc(void *ctx, void *block, size_t size)
{
    if (!is_lost(block)) return inner.realloc(ctx, block, size);
    size_t old = malloc_usable_size(block);
    void *copy = inner.malloc(ctx, size);
    if (copy) memcpy(copy, block, old < size ? old : size);
    return copy;
}

void tc_lose_arena(uintptr_t arena, uintptr_t mutex)
{
    static _Atomic uint32_t lock;
    tc_spin_lock(&lock);
    if (!inner.malloc) {
        PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &inner);
        /* The same context, so that a thread that reads half of each gets a pair that fits. */
        PyMemAllocatorEx outer = {inner.ctx, raw_malloc, raw_calloc, raw_realloc, raw_free};
        PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &outer);
    }
    int count = atomic_load(&lost_count);
    if (count < MOST) {
        lost[count].arena = arena;
        lost[count].mutex = mutex || arena <= TC_UNKNOWN_ARENA ? mutex : arena;
        atomic_store(&lost_count, count + 1);
    }
    tc_spin_unlock(&lock);
}
