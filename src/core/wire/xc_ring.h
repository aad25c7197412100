/*
 * The other kind of stream: a ring in memory that two processes on one machine share, one for each direction. Reading
 * and writing never block, and make a system call only to wake somebody. How the memory is come by: xc_region.h.
 *
 * Sleeping. Who finds nothing (no room) puts the word beside its index up, checks once more, and sleeps. Who has moved
 * its index reads the other side's word and, finding it up, takes it down and wakes who put it up. All four are in
 * one order that both sides see, so one of the two notices the other. The word says who is to be woken:
 *   - a thread, asleep at the word itself with a futex (xc_ring_sleep_nogil). Its own bell, a deadline and a signal
 *     end that sleep too; the other side's death does by way of the bell;
 *   - or the side's I/O thread (xc_ring_arm), which has one epoll for everything: it is notified by a byte in the pipe
 *     (or socket) that the connection was born on, which it watches all the time for the sake of the hang-up.
 * So a link needs no fd for its rings.
 *
 * Why so: a round trip asleep takes, in us, between two idle CPUs, on one, and with both busy:
 *
 *     futex                       75-117     7-10    15-27
 *     poll, a bell and an eventfd 92-105     7-8     18-35
 *     poll, a bell and a pipe     102-116    7-9     21-35
 *     futex_waitv                 95-99      7-9     29-34     (unknown to older systems)
 *
 * The futex is no slower than the rest. One eventfd cannot serve a reader, a writer and the I/O thread, as who empties
 * it takes away the others' news, so there would be four of them a link; and a hostile far end can make a write to an
 * eventfd that it shares block.
 *
 * What the far end writes into the memory is hostile: its index is read once for each step and checked; its other words
 * are only compared. It can make a read or write fail with XC_BAD, make a sleeper wake for nothing or sleep on for a
 * second when its bell is rung, and spoil its own data.
 */
#ifndef XC_RING_H
#define XC_RING_H

#include <sys/uio.h>

#include "xc_sync.h"

/* What one end of a ring shows to the other: shared memory. */
typedef struct {
    _Alignas(128) _Atomic uint64_t at; /* bytes written (read) so far */
    atomic_uint cpu;                   /* where it last ran; counted from 1 */
    _Alignas(128) atomic_uint sleeps;  /* XC_RING_...; the other end takes it down */
    atomic_uint closed;
} xc_ring_end;

enum { XC_RING_AWAKE, XC_RING_THREAD, XC_RING_PUMP };

/* One direction as one side sees it: the end that writes or the one that reads. */
typedef struct {
    xc_ring_end *mine;   /* borrowed from the region */
    xc_ring_end *other;  /* borrowed; written by a stranger */
    unsigned char *data; /* borrowed; 2 * size addresses for `size` bytes */
    size_t size;
    bool writes;
    int notify_fd; /* borrowed: a byte written to it notifies the far end's I/O thread; -1: nothing does. Set it before
                      use */
    uint64_t at;   /* the role's: our index; the shared one is a copy for the other side */
    uint64_t seen; /* the role's: the other end's index as it was last checked */
} xc_ring;

/* Reads at most n bytes, n > 0. XC_OK: *got > 0. XC_AGAIN: nothing there. XC_EOF: the other end was closed, and all was
 * read. XC_BAD: the other side's index is nonsense. */
xc_status xc_ring_read(xc_ring *in, void *into, size_t n, size_t *got, xc_err *err);
/* The same into two places, the second one after the first is full. */
xc_status xc_ring_read_two(xc_ring *in, const struct iovec parts[2], size_t *got, xc_err *err);

/* Writes what goes in. XC_OK: *put > 0, perhaps less than all (0 only if all parts are empty). XC_AGAIN: full, *put ==
 * 0. XC_EOF: nobody reads any more. XC_BAD as above. */
xc_status xc_ring_write(xc_ring *out, const struct iovec *parts, int n, size_t *put, xc_err *err);

/* Nothing more will be written (read) at this end; the other side learns it when it has read all (at its next write).
 * Idempotent, any thread. */
void xc_ring_close(xc_ring *ring);

/* Bytes in the ring, by what both ends show: any thread. Not more than its size, whatever the far end says. */
size_t xc_ring_filled(const xc_ring *ring);

/* --- waiting, after XC_AGAIN; the role is needed for all of these ---------------------------------------------- */

/* False: the other side last ran on the CPU that we are on, so it does not run while we spin. */
bool xc_ring_worth_spinning(const xc_ring *ring);

/* Looks again and again for at most `ns`, as long as that is worth it. True: something has changed, try again. Does not
 * sleep: for some microseconds it may be called with the GIL held. */
bool xc_ring_spin(xc_ring *ring, int64_t ns);

/*
 * Sleeps until something has changed at the ring, the bell (the thread's own) rings, or the deadline passes. XC_OK:
 * check again, it may be for nothing. XC_TIMEOUT, XC_INTR as with xc_bell_sleep_nogil. A dead far end changes nothing
 * any more: whoever learns of its death rings the bell. The thread leaves the list where its bell can be found before
 * the region is closed.
 */
xc_status xc_ring_sleep_nogil(xc_ring *ring, xc_bell *bell, int64_t until);

/* From now on, and once, the far end notifies our I/O thread when something changes. False: something has changed by
 * now, nothing will come. A writer that is full is notified when a good part of the ring is free. */
bool xc_ring_arm(xc_ring *ring);
/* Takes that back; a notification that is on its way still comes. Not needed before sleeping. */
void xc_ring_disarm(xc_ring *ring);

#endif
