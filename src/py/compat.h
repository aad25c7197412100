/* What differs between CPython 3.10 and 3.13, in one place. */
#ifndef XCPY_COMPAT_H
#define XCPY_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#if PY_VERSION_HEX < 0x030a0000
#error "execnet_c needs CPython 3.10 or newer"
#endif

#endif
