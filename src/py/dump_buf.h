/*
 * The memory into which dump.c and dump_value.c write. Inline, because it is used for each item. The head of dump.c
 * says what room() is for.
 */
#ifndef XCPY_DUMP_BUF_H
#define XCPY_DUMP_BUF_H

#include "dumper.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

#include <string.h>

enum {
    SLACK = 16, /* bytes; SETITEM and the next index need 6 */
    MAX_I4 = 0x7fffffff,
};

/* The slow part of room(): 0, or -1 with MemoryError. */
int xcpy_dump_grow(xcpy_dumper *d, size_t n);

static inline void
put_double(unsigned char *p, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    xc_put_u64(p, bits);
}

static inline void
use_buf(xcpy_dumper *d)
{
    d->p = d->out->buf.data + d->out->buf.end;
    d->end = d->out->buf.data + d->out->buf.cap;
}

static inline void
leave_buf(xcpy_dumper *d)
{
    d->out->buf.end = (size_t)(d->p - d->out->buf.data);
}

static inline int
room(xcpy_dumper *d, size_t n)
{
    if ((size_t)(d->end - d->p) >= n + SLACK) {
        return 0;
    }
    return xcpy_dump_grow(d, n);
}

static inline void
put_op(xcpy_dumper *d, xc_op op)
{
    *d->p++ = (unsigned char)op;
}

static inline void
put_op_i4(xcpy_dumper *d, xc_op op, uint32_t n)
{
    unsigned char *p = d->p;
    p[0] = (unsigned char)op;
    xc_put_u32(p + 1, n);
    d->p = p + 5;
}

/* memcpy for what is mostly a word: without a call, and without touching a byte behind `n` on either side. */
static inline void
copy_short(unsigned char *to, const unsigned char *from, size_t n)
{
    if (n >= 8 && n <= 16) {
        uint64_t head, tail;
        memcpy(&head, from, 8);
        memcpy(&tail, from + n - 8, 8);
        memcpy(to, &head, 8);
        memcpy(to + n - 8, &tail, 8);
    }
    else if (n >= 4 && n < 8) {
        uint32_t head, tail;
        memcpy(&head, from, 4);
        memcpy(&tail, from + n - 4, 4);
        memcpy(to, &head, 4);
        memcpy(to + n - 4, &tail, 4);
    }
    else if (n < 4) {
        if (n > 0) {
            to[0] = from[0];
            to[n / 2] = from[n / 2];
            to[n - 1] = from[n - 1];
        }
    }
    else {
        memcpy(to, from, n);
    }
}

#endif
