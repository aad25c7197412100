/*
 * What the core leaves behind on threads without the GIL, until a thread with it comes by: errors with which channels
 * were closed that nobody holds any more, and bytes objects lent to a read that never came to its end.
 */
#ifndef XCPY_WARN_H
#define XCPY_WARN_H

#include "../core/xc_queue.h"
#include "state.h"

/* The two hooks of xc_link_opts. Any thread. The interpreter soon writes the error to sys.stderr, as execnet does. */
void xcpy_orphan_error(void *arg, xc_msg *msg);
void xcpy_drop_space_later(void *arg, xc_msg *msg);

/* GIL held: frees the bytes objects. Costs nothing when there are none. */
void xcpy_drop_spaces(void);

/* Module function: _print_orphans(). */
extern PyMethodDef xcpy_warn_methods[];

#endif
