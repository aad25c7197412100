/*
 * What the core leaves behind on threads without the GIL, until a thread with it comes by: errors with which channels
 * were closed that nobody holds any more, and bytes objects lent to a read that never came to its end.
 */
#ifndef XCPY_WARN_H
#define XCPY_WARN_H

#include <stdatomic.h>

#include "state.h"
#include "xc_queue.h"

struct xcpy_left {
    _Atomic(xc_msg *) orphans;
    _Atomic(xc_msg *) spaces;
    atomic_size_t waiting;  /* bytes of orphans that are not printed yet */
    atomic_size_t left_out; /* more orphans, that were too many */
    atomic_bool due;        /* somebody should come by: there are spaces, or orphans that nobody else prints */
    atomic_bool ended;      /* the module is gone: nobody comes by any more */
    bool is_main;           /* const: of the main interpreter, which can be called from any thread */
    xcpy_left *next;        /* const: in warn.c's list of all */
};

/* The two hooks of xc_link_opts; arg: the interpreter's xcpy_left. Any thread. The main interpreter soon writes the
 * error to sys.stderr, as execnet does; another one with the next use of a gateway. */
void xcpy_orphan_error(void *arg, xc_msg *msg);
void xcpy_drop_space_later(void *arg, xc_msg *msg);

/* GIL held: frees the bytes objects, prints the errors. */
void xcpy_clear_due(xcpy_state *state);

/* The same; costs nothing when there are none. */
static inline void
xcpy_clear_left(xcpy_state *state)
{
    if (atomic_load_explicit(&state->left->due, memory_order_relaxed)) {
        xcpy_clear_due(state);
    }
}

/* For the module's own begin, -1 with an exception, and end. */
int xcpy_left_setup(xcpy_state *state);
void xcpy_left_end(xcpy_state *state);

/* Module function: _print_orphans(). */
extern PyMethodDef xcpy_warn_methods[];

#endif
