/* What the parts of the program `steps` share. */
#ifndef TC_STEPS_H
#define TC_STEPS_H

#include <stdio.h>
#include <sys/types.h>

#include "child.h"

struct command {
    const char *name; /* NULL: no more */
    void (*run)(char **argv);
};
extern const struct command signal_commands[];

extern FILE *out;
extern struct tc_report *report; /* in memory that children share */
extern struct tc_signals *signals;
extern _Atomic uint32_t *bell;

struct tc_spec blank(void);
void say(const char *key, long value);
void say_status(void); /* what the kernel says of this process */
void say_report(void);
void say_end(pid_t child); /* waits for it */

#endif
