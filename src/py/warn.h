/*
 * What the core must leave on threads without the GIL until a thread with the GIL handles it: errors with which
 * channels were closed that nobody holds any more, and bytes objects lent to a read that was never completed.
 */
#ifndef XCPY_WARN_H
#define XCPY_WARN_H

#include "state.h"
#include "xc_queue.h"

#include <stdatomic.h>

struct xcpy_left {
    _Atomic(xc_msg *) orphans;
    _Atomic(xc_msg *) spaces;
    atomic_size_t waiting;  /* bytes of orphans that are not printed yet */
    atomic_size_t left_out; /* number of further orphans, dropped because there were too many */
    atomic_bool due;        /* a thread with the GIL must come: there are spaces, or orphans that nobody else prints */
    atomic_bool ended;      /* the module is gone, so nobody handles this any more */
    bool is_main;           /* const: of the main interpreter, for which any thread can request a call */
    xcpy_left *next;        /* const: in the list `all` of warn.c */
};

/* The two hooks of xc_link_opts; arg: the interpreter's xcpy_left. Any thread. The main interpreter writes the error to
 * sys.stderr soon, as execnet does; another one when a gateway is used next. */
void xcpy_orphan_error(void *arg, xc_msg *msg);
void xcpy_drop_space_later(void *arg, xc_msg *msg);

/* With the GIL held: frees the bytes objects, prints the errors. */
void xcpy_clear_due(xcpy_state *state);

/* The same; costs nothing if there are none. */
static inline void
xcpy_clear_left(xcpy_state *state)
{
    if (atomic_load_explicit(&state->left->due, memory_order_relaxed)) {
        xcpy_clear_due(state);
    }
}

/* Called when the module is made (-1 with an exception) and when it is freed. */
int xcpy_left_setup(xcpy_state *state);
void xcpy_left_end(xcpy_state *state);

/* Module function: _print_orphans(). */
extern PyMethodDef xcpy_warn_methods[];

#endif
