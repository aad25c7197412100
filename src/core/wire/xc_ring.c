/*
 * Moving bytes through a ring, waking and being woken.
 *
 * Invariant: what this side relies on (size, addresses, its own index) is in its own memory. From the shared memory it
 * takes only the other end's index, which it reads once for each step and checks, and flags of which a wrong value
 * costs at most a needless system call.
 *
 * Waking depends on this order: one side stores its index, then loads the other end's `sleeps`; the other side stores
 * `sleeps`, then loads the first one's index. All four are sequentially consistent; anything weaker lets both sides
 * miss each other.
 */
#include "xc_ring.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

enum {
    STEP = 64 * 1024, /* after so many bytes the other side is told, so that both copy at the same time */
    PAUSES = 40,      /* between two checks of the clock and the CPU */
};

/* --- waking ----------------------------------------------------------------------------------------------------- */

/* Counted from 1. 0: not known; then spinning is worth it. */
static unsigned
this_cpu(void)
{
#if defined(__linux__)
    return (unsigned)sched_getcpu() + 1;
#else
    return 0;
#endif
}

static void
show_cpu(xc_ring *ring)
{
    atomic_store_explicit(&ring->mine->cpu, this_cpu(), memory_order_relaxed);
}

/* Wakes the other end if it sleeps, because something has changed. Only that end sets its `sleeps`; a value that is
 * none of these wakes nobody. */
static void
wake_other(xc_ring *ring)
{
    unsigned who = atomic_load(&ring->other->sleeps);
    if (who == XC_RING_AWAKE || !atomic_compare_exchange_strong(&ring->other->sleeps, &who, XC_RING_AWAKE)) {
        return;
    }
    if (who == XC_RING_THREAD) {
        xc_wake_at(&ring->other->sleeps); /* or the thread would sleep on, for up to a second */
    }
    else if (who == XC_RING_PUMP && ring->notify_fd >= 0 && xc_fd_ours(ring->notify_fd)) {
        /* Full: it has been notified already. Broken: nobody is there. */
        ssize_t ignored = write(ring->notify_fd, "", 1);
        (void)ignored;
    }
}

/* Shows the other side what has been copied so far. A writer that waits for room is only woken when a quarter of the
 * ring is free: the reader goes on until nothing is left, and then all of the ring is free. */
static void
publish(xc_ring *ring)
{
    show_cpu(ring);
    atomic_store(&ring->mine->at, ring->at);
    if (ring->writes || ring->size - (ring->seen - ring->at) >= ring->size / 4) {
        wake_other(ring); /* the other end may sleep for just this */
    }
}

void
xc_ring_close(xc_ring *ring)
{
    atomic_store(&ring->mine->closed, 1);
    wake_other(ring); /* nothing else would ever wake it */
}

/* --- moving bytes ----------------------------------------------------------------------------------------------- */

/* Bytes that can be moved now, judging by the other end's index as last read. */
static size_t
known(const xc_ring *ring)
{
    return (size_t)(ring->writes ? ring->size - (ring->at - ring->seen) : ring->seen - ring->at);
}

/* Reads and checks the other end's index. */
static xc_status
see(xc_ring *ring, xc_err *err)
{
    uint64_t other = atomic_load_explicit(&ring->other->at, memory_order_acquire);
    uint64_t between = ring->writes ? ring->at - other : other - ring->at;
    if (between > ring->size) {
        return xc_failf(err, XC_BAD, ring->writes ? "write to the ring" : "read from the ring",
                        "the other side is at %llu, and this one at %llu of a ring of %zu bytes",
                        (unsigned long long)other, (unsigned long long)ring->at, ring->size);
    }
    ring->seen = other;
    return XC_OK;
}

/* Copies to or from the parts as much as known() allows. */
static size_t
move(xc_ring *ring, const struct iovec *parts, int n)
{
    size_t room = known(ring), moved = 0, told = 0;
    size_t step = ring->size / 4 < STEP ? ring->size / 4 : STEP;
    for (int i = 0; i < n && room > 0; i++) {
        unsigned char *part = parts[i].iov_base;
        for (size_t left = parts[i].iov_len, k; left > 0 && room > 0; left -= k, room -= k, part += k) {
            unsigned char *here = ring->data + (ring->at & (ring->size - 1));
            k = step - (moved - told);
            k = k < left ? k : left;
            k = k < room ? k : room;
            if (ring->writes) {
                memcpy(here, part, k);
            }
            else {
                memcpy(part, here, k);
            }
            ring->at += k;
            moved += k;
            if (moved - told == step) {
                publish(ring);
                told = moved;
            }
        }
    }
    if (told != moved) {
        publish(ring);
    }
    return moved;
}

static size_t
sum_of(const struct iovec *parts, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += parts[i].iov_len;
    }
    return sum;
}

/* Reads the index once more after `closed`: what was written before the ring was closed still counts. */
static xc_status
nothing_to_read(xc_ring *in, xc_err *err)
{
    if (atomic_load(&in->other->closed) == 0) {
        return XC_AGAIN;
    }
    xc_status rc = see(in, err);
    if (rc == XC_OK && known(in) == 0) {
        rc = xc_fail(err, XC_EOF, 0, "read from the ring");
    }
    return rc;
}

static xc_status
read_parts(xc_ring *in, const struct iovec *parts, int n, size_t *got, xc_err *err)
{
    XC_ASSERT(!in->writes && known(in) <= in->size); /* known() is more if two threads read */
    XC_ASSERT(sum_of(parts, n) > 0);
    xc_status rc = XC_OK;
    *got = 0;
    if (known(in) < sum_of(parts, n)) {
        rc = see(in, err);
    }
    if (rc == XC_OK && known(in) == 0) {
        rc = nothing_to_read(in, err);
    }
    if (rc == XC_OK) {
        *got = move(in, parts, n);
    }
    return rc;
}

xc_status
xc_ring_read(xc_ring *in, void *into, size_t n, size_t *got, xc_err *err)
{
    struct iovec part = {.iov_base = into, .iov_len = n};
    return read_parts(in, &part, 1, got, err);
}

xc_status
xc_ring_read_two(xc_ring *in, const struct iovec parts[2], size_t *got, xc_err *err)
{
    return read_parts(in, parts, 2, got, err);
}

xc_status
xc_ring_write(xc_ring *out, const struct iovec *parts, int n, size_t *put, xc_err *err)
{
    XC_ASSERT(out->writes && known(out) <= out->size);
    xc_status rc = XC_OK;
    size_t sum = sum_of(parts, n);
    *put = 0;
    if (atomic_load(&out->other->closed) != 0) {
        return xc_fail(err, XC_EOF, 0, "write to the ring");
    }
    if (known(out) < sum) {
        rc = see(out, err);
    }
    if (rc != XC_OK) {
        return rc;
    }
    *put = move(out, parts, n);
    return *put > 0 || sum == 0 ? XC_OK : XC_AGAIN;
}

size_t
xc_ring_filled(const xc_ring *ring)
{
    uint64_t mine = atomic_load_explicit(&ring->mine->at, memory_order_relaxed), other = atomic_load(&ring->other->at);
    uint64_t between = ring->writes ? mine - other : other - mine;
    return between < ring->size ? (size_t)between : ring->size;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

/* Worth another try: there are bytes, or room, or the ring was closed, or the other end's index is wrong. */
static bool
has_changed(const xc_ring *ring)
{
    uint64_t stuck_at = ring->writes ? ring->at - ring->size : ring->at;
    return atomic_load(&ring->other->at) != stuck_at || atomic_load(&ring->other->closed) != 0;
}

bool
xc_ring_worth_spinning(const xc_ring *ring)
{
    unsigned mine = this_cpu();
    return mine == 0 || atomic_load_explicit(&ring->other->cpu, memory_order_relaxed) != mine;
}

bool
xc_ring_spin(xc_ring *ring, int64_t ns)
{
    int64_t now = 0, until = 0; /* what comes at once comes before the clock is read */
    do {
        show_cpu(ring);
        if (!xc_ring_worth_spinning(ring)) {
            return has_changed(ring);
        }
        for (int i = 0; i < PAUSES; i++) {
            if (has_changed(ring)) {
                return true;
            }
            xc_pause();
        }
        now = xc_now();
        until = until == 0 ? now + ns : until;
    } while (now < until);
    return false;
}

/* Sets our `sleeps`. False: something has changed already, or meanwhile, and it is AWAKE. It is not shown for a moment
 * where something has changed already: the other end would notify us, which it must not while it has not moved. */
static bool
set_sleeping(xc_ring *ring, unsigned who)
{
    if (!has_changed(ring)) {
        atomic_store(&ring->mine->sleeps, who);
        if (!has_changed(ring)) {
            return true;
        }
    }
    atomic_store(&ring->mine->sleeps, XC_RING_AWAKE);
    return false;
}

xc_status
xc_ring_sleep_nogil(xc_ring *ring, xc_bell *bell, int64_t until)
{
    XC_ASSERT_NOGIL();
    if (!set_sleeping(ring, XC_RING_THREAD)) {
        return XC_OK;
    }
    xc_status rc = xc_bell_sleep_at_nogil(bell, &ring->mine->sleeps, XC_RING_THREAD, until);
    atomic_store(&ring->mine->sleeps, XC_RING_AWAKE);
    return rc;
}

bool
xc_ring_arm(xc_ring *ring)
{
    return set_sleeping(ring, XC_RING_PUMP);
}

void
xc_ring_disarm(xc_ring *ring)
{
    atomic_store(&ring->mine->sleeps, XC_RING_AWAKE);
}
