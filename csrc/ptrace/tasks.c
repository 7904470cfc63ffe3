#include "tasks.h"

#include <sys/mman.h>

#include "sys.h"

enum { FIRST_SIZE = 64 };

static size_t home_of(const struct tp_tasks *tasks, pid_t tid)
{
    return ((uint32_t)tid * 2654435761u >> 8) & (tasks->size - 1);
}

/* Its place, or the free one where it would go. */
static struct tp_task *place_of(const struct tp_tasks *tasks, pid_t tid)
{
    size_t at = home_of(tasks, tid);
    while (tasks->places[at].tid && tasks->places[at].tid != tid) at = (at + 1) & (tasks->size - 1);
    return &tasks->places[at];
}

struct tp_task *tp_find(const struct tp_tasks *tasks, pid_t tid)
{
    struct tp_task *place = tasks->size ? place_of(tasks, tid) : NULL;
    return place && place->tid ? place : NULL;
}

static void *allocate(size_t size)
{
    long memory = TC_SYS(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory < 0 && memory > -4096 ? NULL : (void *)memory;
}

static int grow(struct tp_tasks *tasks)
{
    struct tp_tasks larger = *tasks;
    larger.size = tasks->size ? 2 * tasks->size : FIRST_SIZE;
    larger.places = allocate(larger.size * sizeof *larger.places);
    if (!larger.places) return 0;
    for (size_t i = 0; i < tasks->size; i++)
        if (tasks->places[i].tid) *place_of(&larger, tasks->places[i].tid) = tasks->places[i];
    if (tasks->size) TC_SYS(SYS_munmap, tasks->places, tasks->size * sizeof *tasks->places);
    *tasks = larger;
    return 1;
}

int tp_put_stopped(struct tp_tasks *tasks, struct tp_stopped stopped)
{
    if (tasks->stopped_count == tasks->stopped_size) {
        size_t size = tasks->stopped_size ? 2 * tasks->stopped_size : FIRST_SIZE;
        struct tp_stopped *larger = allocate(size * sizeof *larger);
        if (!larger) return 0;
        for (size_t i = 0; i < tasks->stopped_count; i++) larger[i] = tasks->stopped[i];
        if (tasks->stopped_size) TC_SYS(SYS_munmap, tasks->stopped, tasks->stopped_size * sizeof *larger);
        tasks->stopped = larger;
        tasks->stopped_size = size;
    }
    tasks->stopped[tasks->stopped_count++] = stopped;
    return 1;
}

struct tp_task *tp_put(struct tp_tasks *tasks, pid_t tid, enum tp_state state)
{
    struct tp_task *task = tp_find(tasks, tid);
    if (!task) {
        if (tasks->used * 2 >= tasks->size && !grow(tasks)) return NULL;
        task = place_of(tasks, tid);
        *task = (struct tp_task){.tid = tid};
        tasks->used++;
    }
    tasks->alive += (state == TP_LIVE) - (task->state == TP_LIVE);
    task->state = (int)state;
    return task;
}

void tp_drop(struct tp_tasks *tasks, pid_t tid)
{
    struct tp_task *task = tp_find(tasks, tid);
    if (!task) return;
    tasks->used--;
    tasks->alive -= task->state == TP_LIVE;
    /* Those behind it move up, so that no search stops at a hole before it finds its own. */
    size_t hole = (size_t)(task - tasks->places), mask = tasks->size - 1;
    for (size_t at = (hole + 1) & mask; tasks->places[at].tid; at = (at + 1) & mask) {
        size_t home = home_of(tasks, tasks->places[at].tid);
        if (((at - home) & mask) < ((at - hole) & mask)) continue; /* its home lies behind the hole */
        tasks->places[hole] = tasks->places[at];
        hole = at;
    }
    tasks->places[hole].tid = 0;
}
