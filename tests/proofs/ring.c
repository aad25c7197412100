/*
 * xc_ring.c: one side of a ring. At each of its accesses to the shared memory the other side may do all that it may do.
 * One call, from every state that can be before a call: what holds then holds after any number of calls.
 *
 * HOSTILE: whatever is read from the shared memory is any value. No byte outside of the ring and of the caller's
 * buffers is touched, and no call moves more than it was asked for.
 *
 * Else the other side keeps the promise that this side makes: a writer writes where there is room, then moves its index
 * over it; a reader moves its index over what was written. This side keeps it, too: so both do together, and what is
 * read is what was written. And a call tells the truth: of how much it moved, a full or empty ring, and the end.
 *
 * Bytes are not copied. One place of the stream is chosen, any one, and it is known whether its byte stands in the
 * ring.
 */
#include <stdatomic.h>

#include "proof.h"

#ifndef SIZE
#define SIZE 4096
#endif

#ifdef HOSTILE
#define PARTS 2
#else
#define PARTS 1
#endif

static void other_side(void), look(void);
static void *copy(void *to, const void *from, size_t n);

#ifdef HOSTILE
#define LOAD(place) ((void)*(place), (__typeof__(*(place)))nondet_u64())
#else
#define LOAD(place) (other_side(), *(place))
#endif
#define STORE(place, value) ((void)(*(place) = (value)), look())
#undef atomic_load
#undef atomic_store
#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_compare_exchange_strong
#define atomic_load(place)                         LOAD(place)
#define atomic_store(place, value)                 STORE(place, value)
#define atomic_load_explicit(place, order)         LOAD(place)
#define atomic_store_explicit(place, value, order) STORE(place, value)
#define atomic_compare_exchange_strong(place, expected, value)                                                         \
    (LOAD(place) == *(expected) ? (*(place) = (value), true) : false)
#define memcpy copy
#define _Atomic
#include "xc_ring.c"
#undef memcpy

static xc_ring_end writer, reader; /* the shared memory, */
static unsigned char data[1];      /* the ring's bytes, of which only the address is used, */
static unsigned char bytes[1];     /* and the caller's, too */
static xc_ring ring;
static uint64_t begin; /* the ring's index before the call */
static size_t asked;   /* bytes that the caller's parts have */
static size_t copied;
static uint64_t chosen;      /* a place of the stream, */
static bool stands, arrived; /* whether its byte stands in the ring, and has come to where the caller wants it */

/* A place is in a range of the stream, whose indices may wrap around. */
static bool
within(uint64_t place, uint64_t from, uint64_t to)
{
    return place - from < to - from;
}

/* What the two ends promise each other. */
static bool
promise(void)
{
    return writer.at - reader.at <= SIZE && (stands || !within(chosen, reader.at, writer.at));
}

static void
other_side(void)
{
#ifndef HOSTILE
    uint64_t step = nondet_byte() % (2 * SIZE), filled = writer.at - reader.at;
    if (ring.other->closed) {
        return;
    }
    ASSUME(step <= (ring.writes ? filled : SIZE - filled));
    if (!ring.writes && !within(chosen, reader.at, writer.at)) {
        stands = within(chosen, writer.at, writer.at + step) || nondet_bool();
    }
    ring.other->at += step;
    ring.other->sleeps = nondet_u32();
    ring.other->closed = nondet_bool();
#endif
}

/* The other side may look at any time: it matters after each change. */
static void
look(void)
{
#ifndef HOSTILE
    PROVE(promise());
#endif
}

static void *
copy(void *to, const void *from, size_t n)
{
    const unsigned char *here = ring.writes ? to : from, *part = ring.writes ? from : to;
    size_t slot = __CPROVER_POINTER_OFFSET(here), offset = __CPROVER_POINTER_OFFSET(part);
    PROVE(__CPROVER_same_object(here, data) && __CPROVER_same_object(part, bytes));
    PROVE(n > 0 && slot < SIZE && n <= SIZE); /* so it ends before 2 * SIZE */
    PROVE(offset == copied && n <= asked - copied);
    other_side();
    size_t i = (size_t)(chosen - slot) & (SIZE - 1); /* the chosen byte's slot is that of byte i, */
    bool is_chosen = offset + i == chosen - begin;   /* and this is that byte */
    if (i < n) {
        arrived = is_chosen && stands;
        stands = ring.writes ? is_chosen : stands;
    }
    copied += n;
    look();
    return to;
}

int
sched_getcpu(void)
{
    return (int)nondet_u32();
}

bool
xc_fd_ours(int fd)
{
    return nondet_bool();
}

void
xc_wake_at(atomic_uint *word)
{
    PROVE(word == &ring.other->sleeps);
}

ssize_t
write(int fd, const void *text, size_t n)
{
    PROVE(fd == ring.notify_fd && fd >= 0 && n == 1);
    return (ssize_t)nondet_u64();
}

/* HOSTILE: any; else one near to 0, in front of it and behind it. */
static uint64_t
any_index(void)
{
#ifdef HOSTILE
    return nondet_u64();
#else
    return (uint64_t)(nondet_byte() % 16) - 8;
#endif
}

int
main(void)
{
    xc_err err;
    size_t moved = 0, lengths[2] = {nondet_size(), nondet_size()};
    const size_t step = SIZE / 4 < STEP ? SIZE / 4 : STEP;
    ASSUME(PARTS == 1 ? lengths[0] <= 2 * step && lengths[1] == 0 : lengths[0] <= step && lengths[1] <= step);
    struct iovec parts[2] = {{bytes, lengths[0]}, {bytes + lengths[0], lengths[1]}};
    asked = lengths[0] + lengths[1];
    begin = any_index();
    chosen = any_index();
    stands = nondet_bool();
    ring = (xc_ring){
        .mine = WRITES ? &writer : &reader,
        .other = WRITES ? &reader : &writer,
        .data = data,
        .size = SIZE,
        .writes = WRITES,
        .notify_fd = (int)nondet_u32(),
        .at = begin,
        .seen = any_index(),
    };
    ASSUME(known(&ring) <= SIZE);
    uint64_t there = any_index();
    bool was_closed = nondet_bool();
    ring.mine->at = begin;
    ring.other->at = there;
    ring.other->closed = was_closed;
    size_t possible = WRITES ? SIZE - (size_t)(begin - there) : (size_t)(there - begin);
#ifndef HOSTILE
    ASSUME(promise() && known(&ring) <= possible); /* what was seen is not newer than what is there */
#endif
#if WRITES
    xc_status rc = xc_ring_write(&ring, parts, PARTS, &moved, &err);
#else
    ASSUME(asked > 0);
    xc_status rc = read_parts(&ring, parts, PARTS, &moved, &err);
#endif
    PROVE(moved == copied && moved <= asked && moved <= SIZE && ring.at == begin + moved);
    PROVE(rc == XC_OK ? moved > 0 || asked == 0 : moved == 0);
    PROVE(known(&ring) <= SIZE);
    PROVE(ring.size == SIZE && ring.data == data);
    PROVE(rc == XC_OK || rc == XC_AGAIN || rc == XC_EOF || rc == XC_BAD);
#ifdef HOSTILE
    PROVE(xc_ring_filled(&ring) <= SIZE);
#else
    PROVE(ring.mine->at == ring.at && promise());
    PROVE(known(&ring) <= (WRITES ? SIZE - (ring.at - ring.other->at) : ring.other->at - ring.at));
    if (rc == XC_OK) {
        PROVE(moved >= (asked < possible ? asked : possible));
    }
    if (rc == XC_AGAIN) {
        PROVE(possible == 0 && !was_closed);
    }
    if (rc == XC_EOF) {
        PROVE(ring.other->closed && (WRITES || ring.at == ring.other->at));
    }
    PROVE(rc != XC_BAD);
    PROVE(WRITES || !within(chosen, begin, begin + moved) || arrived);
#endif
    return 0;
}
