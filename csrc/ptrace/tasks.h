/* The traced tasks by thread id: a hash table in memory of its own, because the tracer must not call malloc (tracer.c).
 */
#ifndef TP_TASKS_H
#define TP_TASKS_H

#include <stddef.h>
#include <sys/types.h>

#include "records.h"

enum tp_state {
    TP_LIVE = 1, /* traced, and its end has not been seen */
    TP_DEAD      /* its end came before the news of its birth; or it was never traced */
};

struct tp_task {
    pid_t tid;           /* 0: a free place */
    int state;           /* enum tp_state */
    int born;            /* the news of its birth has come: it may be forgotten when it ends */
    int status;          /* TP_DEAD: its wait status */
    int told;            /* the call below has been written as a record */
    struct tp_call call; /* the clone-like call that it is in; which is TP_NO_CALL for none */
};

struct tp_stopped {
    pid_t tid;
    int how, sig; /* the ptrace request that lets it go on, and the signal that it gets */
};

struct tp_tasks {
    struct tp_task *places;
    size_t size;        /* a power of two */
    size_t used, alive; /* both kinds; TP_LIVE ones */
    struct tp_stopped *stopped;
    size_t stopped_count, stopped_size;
};

/* NULL when it is not there. */
struct tp_task *tp_find(const struct tp_tasks *tasks, pid_t tid);
/* Puts it there in this state, or changes the state of the one that is. NULL: no memory. Moves the others. */
struct tp_task *tp_put(struct tp_tasks *tasks, pid_t tid, enum tp_state state);
void tp_drop(struct tp_tasks *tasks, pid_t tid);
/* 0: no memory. */
int tp_put_stopped(struct tp_tasks *tasks, struct tp_stopped stopped);

#endif
