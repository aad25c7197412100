/*
 * Cuts a long message into the frames that it travels in (see xc_frame.h). Its payload is not copied.
 *
 * The last byte travels alone: until then the message can be given up, and a frame that small is written in one go.
 */
#ifndef XC_CUT_H
#define XC_CUT_H

#include <sys/uio.h>

#include "xc_frame.h"

typedef struct {
    xc_long_frame message; /* its `size`: the bytes that are in no frame yet */
    struct iovec *rest;    /* borrowed: where those bytes begin */
    struct iovec tail;     /* if iov_len > 0: what remains of *rest, whose front is in a frame */
    bool announced;        /* the LONG frame was handed out */
    unsigned char head[XC_HEADER_SIZE + XC_LONG_SIZE + XC_HEADER_SIZE];
} xc_cut;

/* The payload is `parts`, message->size bytes in all. `parts` is borrowed, and changed while frames are handed out and
 * written; so is the element in front of it, parts[-1]. */
void xc_cut_begin(xc_cut *cut, const xc_long_frame *message, struct iovec *parts);

/* The next frames of the message with that number, to be written when the earlier ones are out or copied. Returns the
 * number of parts; 0: all was handed out. The caller may change the parts; they are borrowed until the next call. */
int xc_cut_next(xc_cut *cut, uint32_t number, struct iovec **parts);

#endif
