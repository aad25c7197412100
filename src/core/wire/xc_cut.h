/*
 * Cuts a long message into the frames that it travels in (see xc_frame.h). Nothing of it is copied.
 *
 * Its last byte travels alone: until then the message can be given up, and a frame that small is written in one go.
 */
#ifndef XC_CUT_H
#define XC_CUT_H

#include <sys/uio.h>

#include "xc_frame.h"

typedef struct {
    xc_long_frame message; /* its size: bytes that are in no frame yet */
    struct iovec *rest;    /* borrowed: where those bytes begin, but for what `tail` says */
    struct iovec tail;     /* what *rest was before a frame got its front; iov_len 0: *rest is whole */
    bool announced;        /* the LONG frame was handed out */
    unsigned char head[XC_HEADER_SIZE + XC_LONG_SIZE + XC_HEADER_SIZE];
} xc_cut;

/* The payload is `parts`, message->size bytes in all. `parts` is borrowed and changed as frames are handed out and
 * written; the element in front of it, parts[-1], is ours, too. */
void xc_cut_begin(xc_cut *cut, const xc_long_frame *message, struct iovec *parts);

/* The next bytes to be written for the message of that number, whole frames; those before are out, or copied. Returns
 * the number of parts; 0 when all was handed out. They may be changed, and are borrowed until the next call. */
int xc_cut_next(xc_cut *cut, uint32_t number, struct iovec **parts);

#endif
