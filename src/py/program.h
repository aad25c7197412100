/*
 * The program to start, from arguments that Python code gives.
 */
#ifndef XCPY_PROGRAM_H
#define XCPY_PROGRAM_H

#include "compat.h"
#include "xc_program.h"

/* A sequence of str or bytes as a program. Owned by the caller; NULL with an exception. */
xc_program *xcpy_make_program(PyObject *args);

#endif
