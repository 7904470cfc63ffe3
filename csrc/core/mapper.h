/* The creator's side of maps that a task may not write itself. */
#ifndef TC_MAPPER_H
#define TC_MAPPER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct tc_mailbox;

int tc_mapper_ready(PyObject *module);
/* Converter for "O&": a Mapper or None; fills a struct tc_mailbox *, which stays the property of the object. */
int tc_mailbox_from(PyObject *object, void *result);

#endif
