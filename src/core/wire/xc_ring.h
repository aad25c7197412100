/*
 * The other kind of stream: a ring in memory that two processes on one machine share, one for each direction. Reading
 * and writing never block, and make a system call only to wake somebody. xc_region.h makes the memory.
 *
 * Sleeping. A side that finds nothing (no room) sets its flag `sleeps`, checks once more, and sleeps. A side that has
 * moved its index reads the other side's flag; if it is set, it clears it and wakes the sleeper. Both sides see these
 * four accesses in one order, so one of the two notices the other. The flag says whom to wake:
 * - A thread, asleep at the flag itself with a futex (xc_ring_sleep_nogil). Its own bell, a deadline and a signal end
 *   that sleep, too; if the other side dies, somebody rings the bell.
 * - The pump (xc_ring_arm), which has one epoll for everything: it is notified by a byte in the pipe (or socket) with
 *   which the connection began. It watches that fd all the time, because its hang-up tells of the other side's death.
 *
 * So a link needs no fd for its rings.
 *
 * A futex, because a round trip in which both sides sleep takes, in us, between two idle CPUs, on one CPU, and with
 * both CPUs busy:
 *
 *     futex                       75-117     7-10    15-27
 *     poll, a bell and an eventfd 92-105     7-8     18-35
 *     poll, a bell and a pipe     102-116    7-9     21-35
 *     futex_waitv                 95-99      7-9     29-34     (unknown to older systems)
 *
 * The futex is as fast as the others. One eventfd could not serve a reader, a writer and the pump, because the first
 * that empties it takes the news from the others. So each link would need four of them, and a hostile far end can make
 * a write to a shared eventfd block.
 *
 * What the far end writes into the memory may be hostile. Its index is read once for each step and checked; its other
 * words are only compared. It can make a read or write fail with XC_BAD, wake a sleeper without a reason, make a
 * sleeper miss its bell for up to a second, and spoil its own data.
 */
#ifndef XC_RING_H
#define XC_RING_H

#include <sys/uio.h>

#include "xc_sync.h"

/* What one end of a ring shows to the other: shared memory. */
typedef struct {
    _Alignas(128) _Atomic uint64_t at; /* bytes written (read) so far */
    atomic_uint cpu;                   /* the CPU where this end last ran; counted from 1 */
    _Alignas(128) atomic_uint sleeps;  /* XC_RING_...; the other end sets it to AWAKE */
    atomic_uint closed;
} xc_ring_end;

enum { XC_RING_AWAKE, XC_RING_THREAD, XC_RING_PUMP };

/* One direction as one side sees it: the end that writes or the one that reads. */
typedef struct {
    xc_ring_end *mine;   /* borrowed from the region */
    xc_ring_end *other;  /* borrowed; the other process writes it: not to be trusted */
    unsigned char *data; /* borrowed; 2 * size addresses for `size` bytes */
    size_t size;
    bool writes;
    int notify_fd; /* borrowed: a byte written to it notifies the far end's pump; -1: nothing does. Set it before use */
    uint64_t at;   /* only for the role's owner: our index; mine->at is a copy for the other side */
    uint64_t seen; /* only for the role's owner: the other end's index as it was last checked */
} xc_ring;

/* Reads at most n bytes, n > 0. XC_OK: *got > 0. XC_AGAIN: nothing there. XC_EOF: the other end was closed, and all was
 * read. XC_BAD: the other side's index is nonsense. */
xc_status xc_ring_read(xc_ring *in, void *into, size_t n, size_t *got, xc_err *err);
/* The same into two places, the second one after the first is full. */
xc_status xc_ring_read_two(xc_ring *in, const struct iovec parts[2], size_t *got, xc_err *err);

/* Writes what there is room for. XC_OK: *put > 0, perhaps less than all (0 only if all parts are empty). XC_AGAIN:
 * full, *put == 0. XC_EOF: nobody reads any more. XC_BAD as above. */
xc_status xc_ring_write(xc_ring *out, const struct iovec *parts, int n, size_t *put, xc_err *err);

/* Ends this side's writing (reading). The other side learns it when it has read all (at its next write). Idempotent,
 * any thread. */
void xc_ring_close(xc_ring *ring);

/* Bytes in the ring, judging by what both ends show. Any thread. Never more than its size, whatever the far end
 * shows. */
size_t xc_ring_filled(const xc_ring *ring);

/* --- waiting, after XC_AGAIN; only for the role's owner ------------------------------------------------------ */

/* False: the other side last ran on the CPU that we are on, so it does not run while we spin. */
bool xc_ring_worth_spinning(const xc_ring *ring);

/* Looks again and again for at most `ns`, as long as spinning is worth it. True: something has changed, try again. Does
 * not sleep: for some microseconds it may be called with the GIL held. */
bool xc_ring_spin(xc_ring *ring, int64_t ns);

/*
 * Sleeps until something changes at the ring, the bell (the thread's own) rings, or the deadline passes. XC_OK: check
 * again; there may be no reason. XC_TIMEOUT, XC_INTR as with xc_bell_sleep_nogil. A dead far end changes nothing any
 * more: whoever learns of its death rings the bell. The thread takes its bell off the list where others find it before
 * the region is closed.
 */
xc_status xc_ring_sleep_nogil(xc_ring *ring, xc_bell *bell, int64_t until) XC_HOLDS_NONE;

/* The next change, and only that, makes the far end notify our pump. False: something has changed already, no
 * notification will come. A writer that waits for room is notified when a quarter of the ring is free. */
bool xc_ring_arm(xc_ring *ring);
/* Takes that back; a notification that is under way still comes. Not needed before sleeping. */
void xc_ring_disarm(xc_ring *ring);

#endif
