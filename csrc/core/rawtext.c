#include "rawtext.h"

void tc_add(struct tc_text *text, const char *more)
{
    while (*more && text->size < sizeof text->data) text->data[text->size++] = *more++;
}

void tc_add_number(struct tc_text *text, unsigned long number)
{
    char digits[24];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do *--at = (char)('0' + number % 10);
    while (number /= 10);
    tc_add(text, at);
}

unsigned long tc_number_at(const char **at)
{
    unsigned long value = 0;
    while (**at == ' ') ++*at;
    unsigned base = (*at)[0] == '0' && (*at)[1] == 'x' ? 16 : 10;
    if (base == 16) *at += 2;
    for (;; ++*at) {
        char c = **at;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 99;
        if (digit >= base) return value;
        value = value * base + digit;
    }
}
