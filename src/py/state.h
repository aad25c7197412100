/*
 * The module's state: every Python object that the C code keeps for itself. There is one struct for each instance of
 * the module; types get it from the `state` of their objects or from PyType_GetModuleState. XCPY_STATE_FIELDS is its
 * only list: traverse and clear are made from it.
 */
#ifndef XCPY_STATE_H
#define XCPY_STATE_H

#include "compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "xc_pool.h"

typedef struct xcpy_left xcpy_left;

#define XCPY_STATE_FIELDS(X)                                                                                           \
    X(DataFormatError) /* base of the next two */                                                                      \
    X(DumpError)                                                                                                       \
    X(LoadError)                                                                                                       \
    X(TruncatedError) /* LoadError and EOFError */                                                                     \
    X(RemoteError)                                                                                                     \
    X(TimeoutError) /* an OSError, as in execnet */                                                                    \
    X(GatewayDied)  /* EOFError and OSError: how the far end ended */                                                  \
    X(ChannelType)                                                                                                     \
    X(GatewayType)                                                                                                     \
    X(MemoryType)                                                                                                      \
    X(RegistrationType)                                                                                                \
    X(SendingType)                                                                                                     \
    X(no_endmarker) /* stands for "no endmarker wanted" */

enum { XCPY_STRINGS_BITS = 9, XCPY_STRINGS = 1 << XCPY_STRINGS_BITS };

typedef struct xcpy_state {
#define XCPY_STATE_DECLARE(name) PyObject *name;
    XCPY_STATE_FIELDS(XCPY_STATE_DECLARE)
#undef XCPY_STATE_DECLARE
#ifdef Py_GIL_DISABLED
    xc_pool strings; /* arrays of XCPY_STRINGS */
#else
    PyObject *strings[XCPY_STRINGS]; /* short ASCII strings that were loaded, by hash; see load_str.h */
#endif
    xcpy_left *left; /* shared with links: see warn.c */
    /* See main_thread.c. Known if main_thread_forks is the process's fork count, plus one. */
    atomic_ulong main_thread;
    atomic_uint main_thread_forks;
    _Atomic(int64_t) longest_sleep; /* 0: not known yet */
} xcpy_state;

/* The state for `type`, which is one of our types or a subclass of one; NULL with SystemError. */
xcpy_state *xcpy_state_of(PyTypeObject *type);

#endif
