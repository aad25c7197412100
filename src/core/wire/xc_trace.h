/*
 * Lines about what happens, for people who look for a cause: frames, processes, ends of connections. While it is off it
 * costs one read of a flag. A line never waits: if it cannot be written at once, it is lost.
 */
#ifndef XC_TRACE_H
#define XC_TRACE_H

#include <stdatomic.h>

#include "xc_frame.h"

extern atomic_bool xc_trace_on;

static inline bool
xc_tracing(void)
{
    return atomic_load_explicit(&xc_trace_on, memory_order_relaxed);
}

/* From now on lines go to the file behind `fd`, also those of forked children. `fd` stays the caller's; a copy is kept.
 * -1: no more lines. One thread at a time. XC_SYS: nothing was changed. */
xc_status xc_trace_to(int fd, xc_err *err);

/* One line: "[pid] ", what the format makes, a newline. Longer lines are cut off; each control character becomes a
 * question mark. Any thread, with any lock held. */
void xc_trace(const char *format, ...) XC_PRINTF(1, 2);

/* `verb` is "sent" or "received". */
void xc_trace_frame(const char *verb, uint8_t code, uint32_t chan, size_t size);

#endif
