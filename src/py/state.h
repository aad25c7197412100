/*
 * The module's state: every Python object that the C code keeps for itself. One struct a module instance; types reach
 * it through their instances' `state` pointer or PyType_GetModuleState. XCPY_STATE_FIELDS is the one list of it:
 * traverse and clear are made from it.
 */
#ifndef XCPY_STATE_H
#define XCPY_STATE_H

#include "compat.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct xcpy_left xcpy_left;

#define XCPY_STATE_FIELDS(X)                                                                                           \
    X(DataFormatError) /* base of the next two */                                                                      \
    X(DumpError)                                                                                                       \
    X(LoadError)                                                                                                       \
    X(TruncatedError) /* LoadError and EOFError */                                                                     \
    X(RemoteError)                                                                                                     \
    X(TimeoutError) /* an OSError, as execnet's */                                                                     \
    X(GatewayDied)  /* EOFError and OSError: how the far end ended */                                                  \
    X(ChannelType)                                                                                                     \
    X(GatewayType)                                                                                                     \
    X(RegistrationType)                                                                                                \
    X(no_endmarker) /* the object that stands for "no endmarker wanted" */

enum { XCPY_STRINGS_BITS = 9, XCPY_STRINGS = 1 << XCPY_STRINGS_BITS };

typedef struct xcpy_state {
#define XCPY_STATE_DECLARE(name) PyObject *name;
    XCPY_STATE_FIELDS(XCPY_STATE_DECLARE)
#undef XCPY_STATE_DECLARE
    PyObject
        *strings[XCPY_STRINGS]; /* short ASCII strings that were loaded, by a hash of their bytes; see load_str.h */
    xcpy_left *left;            /* shared with links: see warn.c */
    /* See main_thread.c; as it was when the process had been forked so many times. */
    unsigned long main_thread;
    uint32_t main_thread_forks;
    bool main_thread_known;
    int64_t longest_sleep; /* 0: not asked for yet */
} xcpy_state;

/* The state that `type`, one of ours or a subclass of one, belongs to; NULL with SystemError. */
xcpy_state *xcpy_state_of(PyTypeObject *type);

#endif
