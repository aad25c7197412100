/*
 * Rings whose far end is bad: one that writes nonsense all the time, and one that is killed at any moment.
 */
#include "ring_rig.h"

#if XC_HAS_RING

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>

/* ---- a hostile far end ---- */

/* Every word that it can reach, all the time: near to right, or anything. */
static void
write_nonsense(xc_region *far)
{
    unsigned seed = (unsigned)getpid();
    xc_ring_end *words[4] = {far->in.mine, far->in.other, far->out.mine, far->out.other};
    for (;;) {
        xc_ring_end *word = words[(size_t)rand_r(&seed) % 4];
        uint64_t at = atomic_load(&word->at);
        switch (rand_r(&seed) % 8) {
        case 0:
            atomic_store(&word->at, (uint64_t)rand_r(&seed) << 33 | (unsigned)rand_r(&seed));
            break;
        case 1:
            atomic_store(&word->at, at - (unsigned)rand_r(&seed) % 100);
            break;
        case 2:
            atomic_store(&word->sleeps, (unsigned)rand_r(&seed) % 4);
            break;
        case 3:
            atomic_store(&word->cpu, (unsigned)rand_r(&seed));
            break;
        case 4:
            atomic_store(&word->closed, rand_r(&seed) % 64 == 0);
            break;
        case 5:
            (void)syscall(SYS_futex, &word->sleeps, FUTEX_REQUEUE, 0, (void *)INT_MAX, &words[0]->closed, 0);
            break;
        case 6:
            memset(far->out.data, rand_r(&seed), far->out.size);
            break;
        default:
            atomic_store(&word->at, at + (unsigned)rand_r(&seed) % 100);
        }
    }
}

static void
only_expected(xc_status rc, size_t moved, size_t most)
{
    CHECK(rc == XC_OK || rc == XC_AGAIN || rc == XC_EOF || rc == XC_BAD);
    CHECK(rc == XC_OK ? moved <= most : moved == 0);
}

/* Whatever it does, each call returns, moves no more than it may, and has one of its results. */
static void
survives_nonsense(void)
{
    unsigned seed = 1;
    unsigned char *fence = malloc(3 * PAGE);
    CHECK(fence != NULL);
    for (int i = 0; i < 6; i++) {
        xc_region near;
        CHECK_RC(xc_region_create(PAGE, &near, NULL), XC_OK);
        pid_t pid = fork_side(&near, write_nonsense);
        int64_t until = xc_after(60 * XC_MS);
        while (xc_now() < until) {
            size_t n = 1 + (size_t)rand_r(&seed) % PAGE, moved = 0;
            memset(fence, 0xee, 3 * PAGE);
            xc_status rc = xc_ring_read(&near.in, fence + PAGE, n, &moved, NULL);
            only_expected(rc, moved, n);
            CHECK(fence[PAGE - 1] == 0xee && fence[PAGE + moved] == 0xee);
            rc = write_one(&near.out, fence, n, &moved);
            only_expected(rc, moved, n);
            (void)xc_ring_spin(&near.in, 1000);
            rc = xc_ring_sleep_nogil(&near.in, xc_bell_mine(), xc_after(XC_MS));
            CHECK(rc == XC_OK || rc == XC_TIMEOUT);
            if (xc_ring_arm(&near.out)) {
                xc_ring_disarm(&near.out);
            }
        }
        CHECK_INT(kill(pid, SIGKILL), 0);
        join_side(pid, SIGKILL);
        xc_region_close(&near);
    }
    free(fence);
}

/* ---- kill -9 ---- */

/* Both directions at once until it is killed. */
static void
stream_for_ever(xc_region *far)
{
    unsigned seed = (unsigned)getpid();
    unsigned char *buffer = malloc(2 * far->in.size + 4);
    uint64_t read = 0, written = 0;
    CHECK(buffer != NULL);
    for (;;) {
        size_t n = 1 + random_size(&seed, far->in.size), moved;
        xc_status got = xc_ring_read(&far->in, buffer, n, &moved, NULL);
        CHECK(got == XC_OK || got == XC_AGAIN);
        check_bytes(buffer, moved, read);
        read += moved;
        fill_bytes(buffer, n, written);
        xc_status put = write_one(&far->out, buffer, n, &moved);
        CHECK(put == XC_OK || put == XC_AGAIN);
        written += moved;
        if (got == XC_AGAIN && put == XC_AGAIN) {
            (void)xc_ring_sleep_nogil(rand_r(&seed) % 2 ? &far->in : &far->out, xc_bell_mine(), xc_after(XC_MS));
        }
    }
}

/* Who learns of the death: rings those who may sleep for what does not come any more. */
typedef struct {
    pid_t pid;
    int64_t kill_at;
    xc_bell *bell; /* of a thread that outlives this one */
    atomic_bool gone;
} reaper;

static void *
kill_and_tell(void *arg)
{
    reaper *self = arg;
    while (xc_now() < self->kill_at) {
        sched_yield();
    }
    CHECK_INT(kill(self->pid, SIGKILL), 0);
    join_side(self->pid, SIGKILL);
    atomic_store(&self->gone, true);
    xc_bell_ring(self->bell);
    return NULL;
}

/* Reads what there is and checks it. How much that was. */
static size_t
drain(xc_ring *in, unsigned char *buffer, size_t n, uint64_t *place)
{
    size_t got;
    xc_status rc = xc_ring_read(in, buffer, n, &got, NULL);
    CHECK(rc == XC_OK || rc == XC_AGAIN);
    check_bytes(buffer, got, *place);
    *place += got;
    return got;
}

/* Sleeps for ever at either end, and yet comes back. What the dead wrote is whole, and what is written to it harms
 * nobody. */
static void
outlive_one(size_t size, unsigned *seed, unsigned char *buffer)
{
    xc_region near;
    pthread_t thread;
    uint64_t read = 0, written = 0;
    CHECK_RC(xc_region_create(size, &near, NULL), XC_OK);
    reaper death = {.pid = fork_side(&near, stream_for_ever), .bell = xc_bell_mine()};
    xc_region_close_fd(&near);
    death.kill_at = xc_after((int64_t)rand_r(seed) % (8 * XC_MS));
    CHECK_INT(pthread_create(&thread, NULL, kill_and_tell, &death), 0);
    for (bool gone = false; !gone;) {
        size_t put, n = 1 + random_size(seed, size);
        gone = atomic_load(&death.gone); /* before the poll: what it wrote is there by then */
        size_t got = drain(&near.in, buffer, n, &read);
        fill_bytes(buffer, n, written);
        xc_status rc = write_one(&near.out, buffer, n, &put);
        CHECK(rc == XC_OK || rc == XC_AGAIN);
        written += put;
        if (!gone && got == 0 && rc == XC_AGAIN) {
            rc = xc_ring_sleep_nogil(rand_r(seed) % 2 == 0 ? &near.in : &near.out, xc_bell_mine(), XC_FOREVER);
            CHECK_RC(rc, XC_OK);
        }
    }
    CHECK_INT(pthread_join(thread, NULL), 0);
    while (drain(&near.in, buffer, size, &read) > 0) {
    }
    xc_bell_clear(xc_bell_mine());
    CHECK_RC(xc_ring_sleep_nogil(&near.in, xc_bell_mine(), 0), XC_TIMEOUT);
    xc_region_close(&near);
}

static void
survives_kill(void)
{
    unsigned seed = 4;
    unsigned char *buffer = malloc(2 * (size_t)XC_RING_SIZE + 4);
    CHECK(buffer != NULL);
    for (int i = 0; i < 60; i++) {
        outlive_one(i % 3 == 0 ? (size_t)XC_RING_SIZE : PAGE, &seed, buffer);
    }
    free(buffer);
}

int
main(void)
{
    check_io_begin("ring_hostile", 60);
    if (!CHECK_TSAN) { /* which knows nothing of what other processes do to our memory */
        RUN_IO(survives_nonsense);
        RUN_IO(survives_kill);
    }
    return check_end();
}

#endif
