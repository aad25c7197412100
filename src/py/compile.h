/* Source text to code, for tasks. */
#ifndef XCPY_COMPILE_H
#define XCPY_COMPILE_H

#include "compat.h"

/* Module function: _compile(source, file_name, mode). */
extern PyMethodDef xcpy_compile_methods[];

#endif
