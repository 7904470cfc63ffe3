/* What the tracer does at each stop. */
#ifndef TP_LOOP_H
#define TP_LOOP_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

#include "report.h"
#include "tasks.h"

struct tp_tracer {
    int fd;
    int ending; /* all that is traced is killed */
    pid_t program;
    struct tc_report *report; /* of the program's setup */
    struct tp_tasks tasks;
};

/* Set by a signal: everything is to be killed. */
extern volatile sig_atomic_t tp_end_asked;

/* Until nothing is traced any more. */
void tp_loop(struct tp_tracer *t);

/* The record of a step that failed. */
void tp_tell_failure(struct tp_tracer *t, const char *step, int error);

#endif
