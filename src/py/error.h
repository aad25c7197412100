/*
 * From the core's errors to Python exceptions, and the exception classes themselves.
 */
#ifndef XCPY_ERROR_H
#define XCPY_ERROR_H

#include "state.h"
#include "xc_base.h"

/* Creates the exception classes, in `state` and as attributes of `module`. 0 or -1. */
int xcpy_error_setup(PyObject *module, xcpy_state *state);

/* Raises what *err says and returns NULL. XC_SYS: OSError with errno; XC_NOMEM: MemoryError; XC_BAD, XC_LIMIT:
 * DataFormatError; XC_FORKED: OSError; XC_EOF, XC_SILENT, XC_CLOSED: EOFError. */
PyObject *xcpy_raise(xcpy_state *state, const xc_err *err);

/* The RemoteError for what the far end closed a channel with: what execnet_c.common.errors.told() gave, a text, or
 * (also NULL) what cannot be read. `item` is taken. New reference or NULL. */
PyObject *xcpy_remote_error_of(xcpy_state *state, PyObject *item);

/* Takes the exception that is set now away; new reference to it, to be the cause of a clearer one. */
PyObject *xcpy_take_cause(void);

/* `raise type(text) from cause`. `text` and `cause` are taken, either may be NULL: no cause; or no memory for the text,
 * in which case the exception set by making it stays. */
void xcpy_raise_from(PyObject *type, PyObject *text, PyObject *cause);

#endif
