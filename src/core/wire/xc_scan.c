/*
 * Walks a payload without building objects. Of the stack machine it keeps only the height of the stack: that is enough
 * to know that no opcode finds too few objects and that one object is left at the end.
 *
 * Invariant: `at` never passes `size`, and no operand is read before it is known to lie within the payload.
 */
#include "xc_scan.h"

#include <string.h>

#include "xc_bytes.h"
#include "xc_opcodes.h"
#include "xc_pickle.h"

static const char STEP[] = "payload";

/* What stands behind an opcode's byte, and what the opcode does to the stack. */
typedef enum {
    UNKNOWN = 0,
    ATOM_0,  /* no operand; one object more */
    ATOM_4,  /* i4; one object more */
    ATOM_8,  /* eight bytes; one object more */
    ATOM_16, /* sixteen bytes; one object more */
    TEXT,    /* i4 n, n bytes; one object more */
    HUGE,    /* i8 n, n bytes; one object more */
    LIST,    /* i4 n >= 0; one object more */
    GATHER,  /* i4 n; n objects become one */
    ASSIGN,  /* three objects become one */
    STOP,
    ID,      /* ATOM_4 that is a channel id */
    PICKLED, /* see xc_pickle.h; STOP follows */
} shape;

static const unsigned char SHAPES[256] = {
    [XC_OP_TUPLE] = GATHER, [XC_OP_SET] = GATHER,      [XC_OP_FROZENSET] = GATHER, [XC_OP_BYTES] = TEXT,
    [XC_OP_STR] = TEXT,     [XC_OP_PY2STR] = TEXT,     [XC_OP_UNICODE] = TEXT,     [XC_OP_LONGINT] = TEXT,
    [XC_OP_NONE] = ATOM_0,  [XC_OP_LONGLONG] = TEXT,   [XC_OP_TRUE] = ATOM_0,      [XC_OP_FALSE] = ATOM_0,
    [XC_OP_INT] = ATOM_4,   [XC_OP_NEWDICT] = ATOM_0,  [XC_OP_LONG] = ATOM_4,      [XC_OP_FLOAT] = ATOM_8,
    [XC_OP_CHANNEL] = ID,   [XC_OP_COMPLEX] = ATOM_16, [XC_OP_NEWLIST] = LIST,     [XC_OP_SETITEM] = ASSIGN,
    [XC_OP_STOP] = STOP,    [XC_OP_HUGE_BYTES] = HUGE, [XC_OP_HUGE_STR] = HUGE,    [XC_OP_PICKLE] = PICKLED,
};

/* Bytes of the operand's fixed part. */
static const unsigned char FIXED[] = {
    [UNKNOWN] = 0, [ATOM_0] = 0, [ATOM_4] = 4, [ATOM_8] = 8, [ATOM_16] = 16, [TEXT] = 4,    [HUGE] = 8,
    [LIST] = 4,    [GATHER] = 4, [ASSIGN] = 0, [STOP] = 0,   [ID] = 4,       [PICKLED] = 0,
};

static xc_status
bad(xc_err *err, const char *what, size_t at)
{
    return xc_failf(err, XC_BAD, STEP, "%s at offset %zu", what, at);
}

/* Applies one opcode to the stack's height; `number` is its i4 or i8, `rest` the number of bytes behind its fixed part.
 */
static xc_status
apply(shape kind, uint64_t number, size_t rest, size_t *height, size_t at, xc_err *err)
{
    bool negative = number > 0x7fffffff;
    switch (kind) {
    case TEXT:
        if (negative) {
            return bad(err, "negative length", at);
        }
        /* fall through */
    case HUGE:
        if (number > rest) {
            return bad(err, "length beyond the end", at);
        }
        break;
    case LIST:
        if (negative) {
            return bad(err, "negative length", at);
        }
        break;
    case GATHER:
        if (negative) {
            return bad(err, "negative length", at);
        }
        if (number > *height) {
            return bad(err, "too few objects on the stack", at);
        }
        *height -= number;
        break;
    case ASSIGN:
        if (*height < 3) {
            return bad(err, "too few objects on the stack", at);
        }
        *height -= 3;
        break;
    case UNKNOWN:
        return bad(err, "unknown opcode", at);
    default:
        break;
    }
    *height += 1;
    return XC_OK;
}

/* The operand at payload[at], and what follows it. */
static xc_status
check_pickle(const unsigned char *payload, size_t size, size_t at, size_t height, xc_err *err)
{
    xc_pickle pickle;
    if (height != 1) {
        return bad(err, "a pickle without its channels", at - 1);
    }
    if (!xc_pickle_read(payload, size, at, &pickle)) {
        return bad(err, "length beyond the end", at - 1);
    }
    return pickle.end < size && payload[pickle.end] == XC_OP_STOP ? XC_OK
                                                                  : bad(err, "no STOP behind a pickle", pickle.end);
}

xc_status
xc_scan(const unsigned char *payload, size_t size, xc_scan_id on_id, void *arg, xc_err *err)
{
    size_t at = 0, height = 0;
    while (at < size) {
        size_t op_at = at;
        shape kind = SHAPES[payload[at++]];
        if (kind == STOP) {
            return height == 1 ? XC_OK : bad(err, "STOP without exactly one object", op_at);
        }
        if (kind == PICKLED) {
            return check_pickle(payload, size, at, height, err);
        }
        if (FIXED[kind] > size - at) {
            return bad(err, "operand cut short", op_at);
        }
        uint64_t number = FIXED[kind] == 4 ? xc_get_u32(payload + at) : kind == HUGE ? xc_get_u64(payload + at) : 0;
        at += FIXED[kind];
        xc_status rc = apply(kind, number, size - at, &height, op_at, err);
        if (rc != XC_OK) {
            return rc;
        }
        if (kind == TEXT || kind == HUGE) {
            at += (size_t)number;
        }
        if (kind == ID && on_id != NULL && !on_id(arg, (uint32_t)number)) {
            return xc_fail(err, XC_NOMEM, 0, STEP);
        }
    }
    return bad(err, "no STOP", size);
}

bool
xc_sieve_next(xc_sieve *sieve, const unsigned char *part, size_t size, xc_scan_id on_id, void *arg)
{
    size_t at = 0;
    while (at < size && !sieve->over) {
        if (sieve->skip > 0) {
            size_t n = sieve->skip < size - at ? (size_t)sieve->skip : size - at;
            sieve->skip -= n;
            at += n;
            continue;
        }
        sieve->op[sieve->n++] = part[at++];
        shape kind = SHAPES[sieve->op[0]];
        if (sieve->n <= FIXED[kind]) {
            continue;
        }
        sieve->n = 0;
        sieve->over = kind == STOP || kind == UNKNOWN || kind == PICKLED;
        sieve->skip = kind == TEXT ? xc_get_u32(sieve->op + 1) : kind == HUGE ? xc_get_u64(sieve->op + 1) : 0;
        if (kind == ID && !on_id(arg, xc_get_u32(sieve->op + 1))) {
            return false;
        }
    }
    return true;
}

bool
xc_scan_may_carry_ids(const unsigned char *payload, size_t size)
{
    /* A pickle without channels may have a lot of memory behind it. */
    static const unsigned char none[] = {XC_OP_TUPLE, 0, 0, 0, 0, XC_OP_PICKLE};
    if (size >= sizeof none && memcmp(payload, none, sizeof none) == 0) {
        return false;
    }
    return size > 0 && memchr(payload, XC_OP_CHANNEL, size) != NULL;
}

size_t
xc_scan_bytes_head(const unsigned char *front, uint64_t size)
{
    bool negative = size > 0x7fffffff + UINT64_C(6); /* that is no length */
    if (size >= 6 && !negative && front[0] == XC_OP_BYTES && xc_get_u32(front + 1) == size - 6) {
        return 5;
    }
    return size >= 10 && front[0] == XC_OP_HUGE_BYTES && xc_get_u64(front + 1) == size - 10 ? 9 : 0;
}

size_t
xc_scan_bytes(const unsigned char *payload, size_t size)
{
    return size > 0 && payload[size - 1] == XC_OP_STOP ? xc_scan_bytes_head(payload, size) : 0;
}
