/* The object for a copied task: a child, and a page that both sides map. */
#ifndef TC_COPIED_H
#define TC_COPIED_H

#include "children.h"
#include "rawfork.h"

/* The first page of the memfd, which both sides map. The payload begins in it and goes on in the file; behind it stand
 * the sizes of the large buffers, and these, each from a page's start. */
struct page {
    struct tc_handshake start;
    _Atomic uint32_t done; /* kind, code and payload are there */
    int32_t kind, code;
    uint64_t size;    /* of the payload */
    uint64_t buffers; /* how many */
    char payload[];
};
enum { TC_KIND_NONE = 3 }; /* outcome.NONE: the body returned None, and there is no payload */

struct copied {
    struct tc_child child;
    int fd;
    struct page *page;
    unsigned page_generation; /* in which it was mapped */
};

extern PyTypeObject *tc_copied_type;
int tc_copied_ready(PyObject *module);
struct copied *tc_copied_new(PyTypeObject *type, int daemon);
void tc_copied_keep(struct copied *self); /* once it is started */
extern PyObject *tc_nothing;              /* the outcome of a body that returned None */

#endif
