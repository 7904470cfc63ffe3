/* Text where neither the C library's nor the interpreter's functions may be called. */
#ifndef TC_RAWTEXT_H
#define TC_RAWTEXT_H

#include <stddef.h>

struct tc_text {
    size_t size;
    char data[640]; /* what does not fit is cut off */
};

void tc_add(struct tc_text *text, const char *more);
void tc_add_number(struct tc_text *text, unsigned long number);

/* A number, and past it; decimal, or hexadecimal after 0x. */
unsigned long tc_number_at(const char **at);

#endif
