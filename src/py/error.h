/*
 * From the core's errors to Python exceptions, and the exception classes themselves.
 */
#ifndef XCPY_ERROR_H
#define XCPY_ERROR_H

#include "state.h"
#include "xc_base.h"

/* Creates the exception classes, in `state` and as attributes of `module`. 0 or -1. */
int xcpy_error_setup(PyObject *module, xcpy_state *state);

/* Raises *err and returns NULL. XC_SYS: OSError with errno; XC_NOMEM: MemoryError; XC_BAD, XC_LIMIT: DataFormatError;
 * XC_FORKED: OSError; XC_EOF, XC_SILENT, XC_CLOSED: EOFError. */
PyObject *xcpy_raise(xcpy_state *state, const xc_err *err);

/* The RemoteError for the item with which the far end closed a channel. `item` is taken: a tuple of
 * execnet_c.common.errors.told(), a text, or (also NULL) something that cannot be read. New reference or NULL. */
PyObject *xcpy_remote_error_of(xcpy_state *state, PyObject *item);

/* Clears the exception that is set and returns it: the cause of a clearer one. New reference. */
PyObject *xcpy_take_cause(void);

/* Raises `error`, which is taken; NULL: the exception that is set stays. */
void xcpy_raise_object(PyObject *error);

/* `raise type(text) from cause`. Takes `text` and `cause`. cause == NULL: no cause. text == NULL: there was no memory
 * for it, and the exception about that stays set. */
void xcpy_raise_from(PyObject *type, PyObject *text, PyObject *cause);

#endif
