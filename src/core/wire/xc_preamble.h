/*
 * What a far end's stream may have before the marker: a login banner, a print in a start-up file. It is skipped, but
 * kept, because it often says why no far end came up. No lock in here: the caller's lock guards the buffer.
 */
#ifndef XC_PREAMBLE_H
#define XC_PREAMBLE_H

#include "xc_buf.h"
#include "xc_frame.h"

enum { XC_PREAMBLE_MAX = 64 * 1024 }; /* bytes that are kept; whatever sends more is no far end */

/*
 * Looks for the marker in the next `n` bytes. XC_OK: it ends at *used. XC_AGAIN: *used bytes are preamble and were
 * added to `kept`; those behind them may be the marker's start: pass them again with what follows. XC_BAD: the preamble
 * is longer than XC_PREAMBLE_MAX, `kept` is full. XC_NOMEM.
 */
xc_status xc_preamble_skip(xc_buf *kept, const unsigned char *bytes, size_t n, size_t *used, xc_err *err);

/* XC_BAD: more came than is kept. */
xc_status xc_preamble_too_much(xc_err *err);

/* The stream has ended: these bytes were the last of the preamble. Those for which `kept` has no room are left out. */
void xc_preamble_rest(xc_buf *kept, const unsigned char *bytes, size_t n);

#endif
