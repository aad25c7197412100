/*
 * A worker's stderr: the methods for the type Gateway.
 */
#ifndef XCPY_STDERR_H
#define XCPY_STDERR_H

#include "compat.h"

/* _lend, _listen, _stderr. */
extern PyMethodDef xcpy_stderr_methods[];

#endif
