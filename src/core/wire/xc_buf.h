/*
 * Bytes that grow. Used for what is being written: encoded payloads, outboxes, the tail of a stderr.
 * Invariant: data[start..end) are the bytes; cap is what is allocated; a zeroed xc_buf is an empty one.
 */
#ifndef XC_BUF_H
#define XC_BUF_H

#include "xc_base.h"

typedef struct {
    unsigned char *data; /* owned */
    size_t start;        /* the bytes before it were taken */
    size_t end;
    size_t cap;
} xc_buf;

void xc_buf_fini(xc_buf *buf); /* frees; the buffer is empty and usable afterwards */

static inline size_t
xc_buf_size(const xc_buf *buf)
{
    return buf->end - buf->start;
}

/* The first byte; NULL when nothing was ever allocated. */
static inline const unsigned char *
xc_buf_head(const xc_buf *buf)
{
    return buf->data == NULL ? NULL : buf->data + buf->start;
}

/* A new buffer of `cap` bytes, with `head` bytes in it that are written later. XC_NOMEM: it is an empty one. */
xc_status xc_buf_begin(xc_buf *buf, size_t cap, size_t head);

xc_status xc_buf_grow(xc_buf *buf, size_t n); /* of xc_buf_room */

/* Makes room for n more bytes behind `end`: the memory grows by half at least, or the bytes move to the front. XC_NOMEM
 * leaves the buffer as it was. */
static inline xc_status
xc_buf_room(xc_buf *buf, size_t n)
{
    XC_ASSERT(buf->start <= buf->end && buf->end <= buf->cap);
    return n <= buf->cap - buf->end ? XC_OK : xc_buf_grow(buf, n);
}

xc_status xc_buf_add(xc_buf *buf, const void *bytes, size_t n);

/* Drops n bytes from the front; n is at most the size. An emptied buffer of more than 64 KiB gives its memory back. */
void xc_buf_take(xc_buf *buf, size_t n);

#endif
