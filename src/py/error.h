/*
 * From the core's errors to Python exceptions, and the exception classes themselves.
 */
#ifndef XCPY_ERROR_H
#define XCPY_ERROR_H

#include "../core/xc_base.h"
#include "state.h"

/* Creates the exception classes, in `state` and as attributes of `module`. 0 or -1. */
int xcpy_error_setup(PyObject *module, xcpy_state *state);

/* Raises what *err says and returns NULL. XC_SYS: OSError with errno; XC_NOMEM: MemoryError; XC_BAD, XC_LIMIT:
 * DataFormatError; XC_FORKED: OSError; XC_EOF, XC_CLOSED: EOFError. */
PyObject *xcpy_raise(xcpy_state *state, const xc_err *err);

#endif
