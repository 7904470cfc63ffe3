/* What the tracer tells its creator: records of one size, each written to a pipe by one write. */
#ifndef TP_RECORDS_H
#define TP_RECORDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/sched.h>

enum tp_kind {
    TP_FAILED, /* nothing is traced, or no longer: `word` is the step, `value` the errno */
    TP_EXEC, /* `tid` runs another program, `word` is its short name; `peer`: the id of the thread that called execve */
    TP_CALL, /* a clone-like system call: has made `peer`, or has failed with errno `value` */
    TP_END   /* `tid` has ended with wait status `value` */
};

enum tp_clone_like { TP_NO_CALL, TP_FORK, TP_VFORK, TP_CLONE, TP_CLONE3 };

/* A call as it was made. The other three are told in clone3's words, as the kernel itself does. */
struct tp_call {
    enum tp_clone_like which;
    int32_t unread;         /* errno: the structure could not be read, and `args` is zero */
    uint64_t size;          /* clone3's second argument; else 0 */
    struct clone_args args; /* its first bytes, and zeros */
};

struct tp_record {
    enum tp_kind kind;
    int32_t tid, peer, value;
    uint32_t followed; /* TP_CALL: the new task is traced as well */
    struct tp_call call;
    char word[16];
};

/* One write, whole: 0, or -errno (EPIPE: nobody reads any more). */
int tp_write(int fd, const struct tp_record *record);

/* parse(bytes) -> list of tuples, one a record, by kind:
 *     ("failed", step, errno)
 *     ("exec", tid, former tid, short name)
 *     ("call", tid, system call, child or 0, errno or 0, followed, unread, size, the 11 fields of struct clone_args)
 *     ("end", tid, wait status)
 * ValueError when the bytes are not whole records. */
PyObject *tp_parse(PyObject *module, PyObject *bytes);

#endif
