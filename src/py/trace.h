/* Python's way to the core's trace: see ../core/wire/xc_trace.h. */
#ifndef XCPY_TRACE_H
#define XCPY_TRACE_H

#include "compat.h"

/* Module functions: _trace_to(fd), _trace(text). */
extern PyMethodDef xcpy_trace_methods[];

#endif
