/*
 * xc_preamble.c: any SIZE bytes in one call, and any number that were kept before, of which there is room for 12.
 *
 * What is passed over ends where the first marker begins, or where one may have begun at the end. All of that is kept,
 * in order; of too much, as much as there is room for. Without memory nothing is kept.
 *
 * CUT: what a call has to do comes to the same if the bytes are cut in two anywhere: so they may come in any number of
 * reads.
 */
#include <string.h>

#include "proof.h"

#define XC_PREAMBLE_MAX real_max
#include "xc_preamble.h"
#undef XC_PREAMBLE_MAX
#define XC_PREAMBLE_MAX ((size_t)12)
#define memchr          first_of
#define memcmp          differ
static void *first_of(const void *from, int byte, size_t n);
static int differ(const void *from, const void *marker, size_t n);
#include "xc_preamble.c"

static unsigned char bytes[SIZE];
static size_t alike[SIZE]; /* so many of the bytes that stand there are the marker's first ones */

static void *
first_of(const void *from, int byte, size_t n)
{
    size_t at = __CPROVER_POINTER_OFFSET(from);
    PROVE(__CPROVER_same_object(from, bytes) && at <= SIZE && n <= SIZE - at);
    for (size_t i = 0; i < SIZE; i++) {
        if (i >= at && i - at < n && bytes[i] == byte) {
            return bytes + i;
        }
    }
    return NULL;
}

static int
differ(const void *from, const void *marker, size_t n)
{
    size_t at = __CPROVER_POINTER_OFFSET(from);
    PROVE(__CPROVER_same_object(from, bytes) && at <= SIZE && n <= SIZE - at);
    return alike[at] < n;
}

static size_t before; /* so many bytes are kept already */
static xc_buf kept;   /* only its size is used, */
static size_t place;  /* and whether it has the right byte at one place, any one */
static bool has, no_memory;

xc_status
xc_buf_add(xc_buf *buf, const void *part, size_t n)
{
    PROVE(buf == &kept && __CPROVER_same_object(part, bytes));
    if (no_memory) {
        return XC_NOMEM;
    }
    if (place >= kept.end && place - kept.end < n) {
        has = __CPROVER_POINTER_OFFSET(part) == kept.end - before;
    }
    kept.end += n;
    return XC_OK;
}

typedef struct {
    xc_status rc;
    size_t used; /* where the call ends */
    size_t size; /* of what is kept */
} result;

/* What has to come of the bytes begin..end, if `size` are kept. */
static result
expected(size_t begin, size_t end, size_t size)
{
    size_t front = end;
    for (size_t i = SIZE; i-- > 0;) {
        size_t there = end - i < XC_MARKER_SIZE ? end - i : XC_MARKER_SIZE;
        front = i >= begin && i < end && alike[i] >= there ? i : front;
    }
    if (front - begin > XC_PREAMBLE_MAX - size) {
        return (result){XC_BAD, front, XC_PREAMBLE_MAX};
    }
    size += front - begin;
    return end - front < XC_MARKER_SIZE ? (result){XC_AGAIN, front, size}
                                        : (result){XC_OK, front + XC_MARKER_SIZE, size};
}

int
main(void)
{
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = nondet_byte();
    }
    for (size_t i = 0; i < SIZE; i++) {
        for (size_t k = 0; k < XC_MARKER_SIZE && i + k < SIZE && alike[i] == k; k++) {
            alike[i] += bytes[i + k] == "\0execnet_c\0"[k];
        }
    }
    before = nondet_size();
    ASSUME(before <= XC_PREAMBLE_MAX);
#ifdef CUT
    size_t from = nondet_size(), cut = nondet_size();
    ASSUME(from <= cut && cut <= SIZE);
    result once = expected(from, SIZE, before), first = expected(from, cut, before);
    result second = first.rc == XC_AGAIN ? expected(first.used, SIZE, first.size) : first;
    PROVE(second.rc == once.rc && second.size == once.size && (second.used == once.used || second.rc == XC_BAD));
#else
    xc_err err;
    size_t used = nondet_size();
    place = nondet_size();
    no_memory = nondet_bool();
    kept.end = before;
    result whole = expected(0, SIZE, before);
    xc_status rc = xc_preamble_skip(&kept, bytes, SIZE, &used, &err);
    bool fails = no_memory && whole.size > before;
    PROVE(rc == (fails && whole.rc != XC_BAD ? XC_NOMEM : whole.rc));
    PROVE(rc == XC_NOMEM || used == whole.used);
    PROVE(kept.end == (fails ? before : whole.size));
    PROVE(has == (place >= before && place < kept.end));
#endif
    return 0;
}
