/*
 * What the core leaves behind on threads without the GIL, until a thread with it comes by: errors with which channels
 * were closed that nobody holds any more, and bytes objects lent to a read that never came to its end.
 */
#ifndef XCPY_WARN_H
#define XCPY_WARN_H

#include "../core/xc_queue.h"
#include "state.h"

/* The two hooks of xc_link_opts; arg: the interpreter's xcpy_left. Any thread. The main interpreter soon writes the
 * error to sys.stderr, as execnet does; another one with the next use of a gateway. */
void xcpy_orphan_error(void *arg, xc_msg *msg);
void xcpy_drop_space_later(void *arg, xc_msg *msg);

/* GIL held: frees the bytes objects, prints the errors. Costs nothing when there are none. */
void xcpy_clear_left(xcpy_state *state);

/* For the module's own begin, -1 with an exception, and end. */
int xcpy_left_setup(xcpy_state *state);
void xcpy_left_end(xcpy_state *state);

/* Module function: _print_orphans(). */
extern PyMethodDef xcpy_warn_methods[];

#endif
