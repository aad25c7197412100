/* One ring: what goes in comes out, each end has its result, nobody sleeps past what he waits for. */
#include "ring_rig.h"

#if XC_HAS_RING

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

/* ---- bytes ---- */

static unsigned char bytes[64 * 1024], heard[64 * 1024];

static void
empty_and_full(void)
{
    pair two = open_pair(PAGE);
    size_t n = 99;
    fill_bytes(bytes, PAGE + 1, 0);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 1, &n, NULL), XC_AGAIN);
    CHECK_INT(n, 0);
    CHECK_RC(write_one(&two.a.out, bytes, 0, &n), XC_OK);
    CHECK_INT(n, 0);
    CHECK_RC(write_one(&two.a.out, bytes, PAGE + 1, &n), XC_OK);
    CHECK_INT(n, PAGE);
    CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_AGAIN);
    CHECK_INT(n, 0);
    CHECK_RC(write_one(&two.a.out, bytes, 0, &n), XC_OK);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 1, &n, NULL), XC_OK);
    CHECK(n == 1 && heard[0] == byte_at(0));
    CHECK_RC(write_one(&two.a.out, bytes + PAGE, 5, &n), XC_OK);
    CHECK_INT(n, 1);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 2 * PAGE, &n, NULL), XC_OK);
    CHECK_INT(n, PAGE);
    check_bytes(heard, n, 1);
    CHECK_RC(xc_ring_read(&two.a.in, heard, 1, &n, NULL), XC_AGAIN); /* the other direction is another ring */
    close_pair(&two);
}

/* Every size up to one more than a ring, at every place of it in turn, cut into parts anyhow. */
static void
every_size_at_any_place(void)
{
    pair two = open_pair(PAGE);
    uint64_t place = 0;
    unsigned seed = 3;
    for (size_t size = 1; size <= PAGE + 1; size += size < 70 ? 1 : (size_t)rand_r(&seed) % 50) {
        size_t first = (size_t)rand_r(&seed) % (size + 1), put, got;
        struct iovec from[4] = {{bytes, 0}, {bytes, first}, {bytes, 0}, {bytes + first, size - first}};
        struct iovec to[2] = {{heard, first / 2}, {heard + first / 2, sizeof heard - first / 2}};
        fill_bytes(bytes, size, place);
        CHECK_RC(xc_ring_write(&two.b.out, from, 4, &put, NULL), XC_OK);
        CHECK_INT(put, size < PAGE ? size : PAGE);
        CHECK_RC(xc_ring_read_two(&two.a.in, to, &got, NULL), XC_OK);
        CHECK_INT(got, put);
        check_bytes(heard, got, place);
        place += got;
    }
    CHECK(place > 20 * PAGE);
    close_pair(&two);
}

static void
two_places(void)
{
    pair two = open_pair(PAGE);
    unsigned char first[4] = "....", second[4] = "....";
    struct iovec parts[2] = {{first, 3}, {second, 2}};
    size_t n = 99;
    CHECK_RC(xc_ring_read_two(&two.b.in, parts, &n, NULL), XC_AGAIN);
    CHECK_INT(n, 0);
    CHECK_RC(write_one(&two.a.out, "ab", 2, &n), XC_OK);
    CHECK_RC(xc_ring_read_two(&two.b.in, parts, &n, NULL), XC_OK);
    CHECK(n == 2 && memcmp(first, "ab..", 4) == 0 && memcmp(second, "....", 4) == 0);
    CHECK_RC(write_one(&two.a.out, "cdefgh", 6, &n), XC_OK);
    CHECK_RC(xc_ring_read_two(&two.b.in, parts, &n, NULL), XC_OK);
    CHECK(n == 5 && memcmp(first, "cde.", 4) == 0 && memcmp(second, "fg..", 4) == 0);
    close_pair(&two);
}

/* ---- ends ---- */

static void
a_closed_writer_is_heard_to_the_end(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    xc_err err;
    CHECK_RC(write_one(&two.a.out, "abc", 3, &n), XC_OK);
    xc_ring_close(&two.a.out);
    xc_ring_close(&two.a.out);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 2, &n, NULL), XC_OK);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 2, &n, NULL), XC_OK);
    CHECK(n == 1 && heard[0] == 'c');
    for (int i = 0; i < 2; i++) {
        CHECK_RC(xc_ring_read(&two.b.in, heard, 2, &n, &err), XC_EOF);
        CHECK(n == 0 && err.code == XC_EOF && err.step[0] != '\0');
    }
    CHECK_RC(xc_ring_sleep_nogil(&two.b.in, xc_bell_mine(), XC_FOREVER), XC_OK);
    CHECK_RC(write_one(&two.b.out, "d", 1, &n), XC_OK); /* the other direction lives on */
    CHECK_RC(xc_ring_read(&two.a.in, heard, 2, &n, NULL), XC_OK);
    close_pair(&two);
}

static void
nobody_reads_any_more(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    xc_err err;
    CHECK_RC(write_one(&two.a.out, "abc", 3, &n), XC_OK);
    xc_ring_close(&two.b.in);
    CHECK_RC(xc_ring_write(&two.a.out, &(struct iovec){bytes, 3}, 1, &n, &err), XC_EOF);
    CHECK(n == 0 && err.code == XC_EOF && err.step[0] != '\0');
    CHECK_RC(xc_ring_sleep_nogil(&two.a.out, xc_bell_mine(), XC_FOREVER), XC_OK);
    CHECK(!xc_ring_arm(&two.a.out));
    close_pair(&two);
}

/* ---- what a hostile far end may write ---- */

static void
nonsense_is_refused(void)
{
    const uint64_t far[] = {PAGE + 1, PAGE + 2, 2 * PAGE, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        pair two = open_pair(PAGE);
        size_t n;
        xc_err err;
        atomic_store(&two.a.in.other->at, far[i]); /* it says that it has written so much */
        CHECK_RC(xc_ring_read(&two.a.in, heard, 10, &n, &err), XC_BAD);
        CHECK(n == 0 && err.code == XC_BAD && strstr(err.detail, "the other side") != NULL);
        CHECK_RC(xc_ring_sleep_nogil(&two.a.in, xc_bell_mine(), XC_FOREVER), XC_OK);
        CHECK(!xc_ring_arm(&two.a.in));
        CHECK_RC(write_one(&two.a.out, bytes, 10, &n), XC_OK);
        atomic_store(&two.a.out.other->at, 10 + (far[i] - PAGE)); /* that it has read more than there was */
        CHECK_RC(xc_ring_write(&two.a.out, &(struct iovec){bytes, PAGE}, 1, &n, &err), XC_BAD);
        CHECK(n == 0 && err.code == XC_BAD && strstr(err.detail, "the other side") != NULL);
        close_pair(&two);
    }
}

/* It steps back, or spoils what is ours: each side goes by its own memory. */
static void
what_is_ours_is_not_read_back(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    for (uint64_t place = 0; place < 10 * PAGE; place += 100) {
        fill_bytes(bytes, 100, place);
        atomic_store(&two.a.out.mine->at, UINT64_MAX - place);
        atomic_store(&two.a.out.mine->sleeps, 77);
        atomic_store(&two.b.in.mine->cpu, UINT_MAX);
        CHECK_RC(write_one(&two.a.out, bytes, 100, &n), XC_OK);
        atomic_store(&two.b.in.mine->sleeps, 1000); /* of no kind that we know: nobody is woken */
        atomic_store(&two.b.in.mine->closed, 0);
        CHECK_RC(xc_ring_read(&two.b.in, heard, 200, &n, NULL), XC_OK);
        CHECK_INT(n, 100);
        check_bytes(heard, n, place);
    }
    uint64_t at = two.a.in.at;
    CHECK_RC(write_one(&two.b.out, bytes, 50, &n), XC_OK);
    CHECK_RC(xc_ring_read(&two.a.in, heard, 50, &n, NULL), XC_OK);
    atomic_store(&two.b.out.mine->at, at + 20);
    CHECK_RC(xc_ring_read(&two.a.in, heard, 50, &n, NULL), XC_BAD);
    close_pair(&two);
}

/* ---- the hint ---- */

static void
where_the_other_side_runs(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    cpu_set_t all, one;
    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK(xc_ring_worth_spinning(&two.b.in)); /* it has not run yet: it may anywhere */
    CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_OK);
    CHECK(!xc_ring_worth_spinning(&two.b.in));
    CHECK(xc_ring_spin(&two.b.in, 0));
    CHECK_RC(xc_ring_read(&two.b.in, heard, 1, &n, NULL), XC_OK);
    CHECK(!xc_ring_worth_spinning(&two.a.out));
    CHECK(!xc_ring_spin(&two.b.in, 3600 * XC_S)); /* useless, so at once */
    atomic_store(&two.a.out.mine->cpu, UINT_MAX);
    CHECK(xc_ring_worth_spinning(&two.b.in));
    CHECK(!xc_ring_spin(&two.b.in, 1000));
    CHECK_INT(atomic_load(&two.b.in.mine->cpu), sched_getcpu() + 1); /* who spins says where */
    CHECK_INT(sched_setaffinity(0, sizeof all, &all), 0);
    close_pair(&two);
}

/* ---- sleeping ---- */

static pthread_mutex_t list_mu = PTHREAD_MUTEX_INITIALIZER; /* of a list where bells can be found */

typedef struct {
    xc_ring *ring;
    xc_bell *bell; /* list_mu: NULL when it is not in the list */
    xc_status rc;
    int64_t until;
} sleeper;

static void *
sleep_once(void *arg)
{
    sleeper *self = arg;
    pthread_mutex_lock(&list_mu);
    self->bell = xc_bell_mine();
    pthread_mutex_unlock(&list_mu);
    self->rc = xc_ring_sleep_nogil(self->ring, xc_bell_mine(), self->until);
    pthread_mutex_lock(&list_mu);
    self->bell = NULL;
    pthread_mutex_unlock(&list_mu);
    return NULL;
}

static void
ring_sleeper(sleeper *self)
{
    pthread_mutex_lock(&list_mu);
    if (self->bell != NULL) {
        xc_bell_ring(self->bell);
    }
    pthread_mutex_unlock(&list_mu);
}

static pthread_t
start_sleeper(sleeper *self)
{
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, sleep_once, self), 0);
    AWAIT(atomic_load(&self->ring->mine->sleeps) == XC_RING_THREAD);
    check_pause_ms(2); /* so that it really sleeps, most of the time */
    return thread;
}

/* A sleeper checks again after a second even if nobody wakes it, so what comes sooner is a wake-up. A busy machine may
 * be slow about it, but not each time. */
static void
comes_at_once(sleeper *self, void (*wake)(sleeper *self))
{
    int64_t began, took = XC_S;
    size_t n;
    for (int i = 0; took > XC_S / 2; i++) {
        CHECK(i < 20);
        pthread_t thread = start_sleeper(self);
        began = xc_now();
        wake(self);
        CHECK_INT(atomic_load(&self->ring->mine->sleeps), XC_RING_AWAKE);
        CHECK_INT(pthread_join(thread, NULL), 0);
        CHECK_RC(self->rc, XC_OK);
        took = xc_now() - began;
        (void)xc_ring_read(self->ring, heard, 1, &n, NULL);
    }
}

static void
wake_by_writing(sleeper *self)
{
    size_t n;
    xc_ring out = far_end_of(self->ring);
    out.at = self->ring->at;
    CHECK_RC(write_one(&out, bytes, 1, &n), XC_OK);
}

static void
a_write_wakes_the_reader(void)
{
    pair two = open_pair(PAGE);
    sleeper self = {.ring = &two.b.in, .until = XC_FOREVER};
    comes_at_once(&self, wake_by_writing);
    close_pair(&two);
}

static void
closing_wakes_either_end(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    CHECK_RC(write_one(&two.b.out, bytes, PAGE, &n), XC_OK);
    sleeper reader = {.ring = &two.b.in, .until = XC_FOREVER}, writer = {.ring = &two.b.out, .until = XC_FOREVER};
    pthread_t first = start_sleeper(&reader), second = start_sleeper(&writer);
    xc_ring_close(&two.a.out);
    CHECK_INT(atomic_load(&two.b.in.mine->sleeps), XC_RING_AWAKE);
    xc_ring_close(&two.a.in);
    CHECK_INT(atomic_load(&two.b.out.mine->sleeps), XC_RING_AWAKE);
    CHECK_INT(pthread_join(first, NULL), 0);
    CHECK_INT(pthread_join(second, NULL), 0);
    CHECK_RC(reader.rc, XC_OK);
    CHECK_RC(writer.rc, XC_OK);
    close_pair(&two);
}

/* A quarter of it: a writer that got up for each byte would run for each byte. */
static void
room_wakes_the_writer(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    CHECK_RC(write_one(&two.a.out, bytes, PAGE, &n), XC_OK);
    sleeper self = {.ring = &two.a.out, .until = XC_FOREVER};
    pthread_t thread = start_sleeper(&self);
    CHECK_RC(xc_ring_read(&two.b.in, heard, PAGE / 4 - 1, &n, NULL), XC_OK);
    CHECK_INT(atomic_load(&two.a.out.mine->sleeps), XC_RING_THREAD);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 1, &n, NULL), XC_OK);
    CHECK_INT(atomic_load(&two.a.out.mine->sleeps), XC_RING_AWAKE);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_RC(self.rc, XC_OK);
    close_pair(&two);
}

static void
nobody_sleeps_on_what_is_there(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    CHECK_RC(xc_ring_sleep_nogil(&two.b.out, xc_bell_mine(), XC_FOREVER), XC_OK); /* there is room */
    CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_OK);
    CHECK_RC(xc_ring_sleep_nogil(&two.b.in, xc_bell_mine(), XC_FOREVER), XC_OK);
    CHECK_INT(atomic_load(&two.b.in.mine->sleeps), XC_RING_AWAKE);
    CHECK(!xc_ring_arm(&two.b.in));
    CHECK_INT(atomic_load(&two.b.in.mine->sleeps), XC_RING_AWAKE);
    close_pair(&two);
}

static void
the_bell_and_the_deadline(void)
{
    pair two = open_pair(PAGE);
    xc_bell *bell = xc_bell_mine();
    int64_t until = xc_after(20 * XC_MS);
    xc_bell_clear(bell);
    CHECK_RC(xc_ring_sleep_nogil(&two.b.in, bell, 0), XC_TIMEOUT);
    CHECK_RC(xc_ring_sleep_nogil(&two.b.in, bell, until), XC_TIMEOUT);
    CHECK(xc_now() >= until);
    xc_bell_ring(bell);
    CHECK_RC(xc_ring_sleep_nogil(&two.b.in, bell, XC_FOREVER), XC_OK);
    CHECK_RC(xc_ring_sleep_nogil(&two.b.in, bell, 0), XC_TIMEOUT);
    CHECK_RC(xc_bell_sleep_nogil(bell, -1, 0, 0), XC_TIMEOUT); /* no ring is left over for other sleeps */
    sleeper self = {.ring = &two.b.in, .until = XC_FOREVER};
    comes_at_once(&self, ring_sleeper);
    close_pair(&two);
}

/* A far end that keeps our sleepers from being woken: it moves them to another word, or writes ours back. */
static void
no_far_end_keeps_a_rung_sleeper_asleep(void)
{
    pair two = open_pair(PAGE);
    static atomic_uint elsewhere;
    atomic_uint *word = &two.b.in.mine->sleeps;
    sleeper self = {.ring = &two.b.in, .until = XC_FOREVER};
    pthread_t thread = start_sleeper(&self);
    CHECK(syscall(SYS_futex, word, FUTEX_CMP_REQUEUE, 0, (void *)INT_MAX, &elsewhere, XC_RING_THREAD) >= 0);
    atomic_store(word, XC_RING_AWAKE);
    ring_sleeper(&self);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_RC(self.rc, XC_OK);
    close_pair(&two);
}

static void
on_signal(int sig)
{
    (void)sig;
}

static void
a_signal_ends_a_sleep(void)
{
    pair two = open_pair(PAGE);
    for (int i = 0; i < 2; i++) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = i == 0 ? 0 : SA_RESTART}, old;
        CHECK_INT(sigaction(SIGUSR1, &action, &old), 0);
        sleeper self = {.ring = &two.b.in, .until = XC_FOREVER, .rc = XC_OK};
        for (int tries = 0; self.rc != XC_INTR && tries < 10; tries++) { /* it may hit before it sleeps */
            pthread_t thread = start_sleeper(&self);
            CHECK_INT(pthread_kill(thread, SIGUSR1), 0);
            CHECK_INT(pthread_join(thread, NULL), 0);
        }
        CHECK_RC(self.rc, XC_INTR);
        CHECK_INT(atomic_load(&two.b.in.mine->sleeps), XC_RING_AWAKE);
        CHECK_INT(sigaction(SIGUSR1, &old, NULL), 0);
    }
    close_pair(&two);
}

/* ---- notifying the pump ---- */

static int
notifications(int fd)
{
    char dump[100000];
    ssize_t n = read(fd, dump, sizeof dump);
    return n < 0 ? 0 : (int)n;
}

static void
armed_rings_notify_once(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    int to_b[2], to_a[2];
    CHECK(pipe2(to_b, O_NONBLOCK) == 0 && pipe2(to_a, O_NONBLOCK) == 0);
    two.a.out.notify_fd = two.a.in.notify_fd = to_b[1];
    two.b.out.notify_fd = two.b.in.notify_fd = to_a[1];
    CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_OK);
    CHECK_INT(notifications(to_b[0]), 0);
    CHECK(!xc_ring_arm(&two.b.in)); /* it is there already */
    CHECK_RC(xc_ring_read(&two.b.in, heard, 1, &n, NULL), XC_OK);
    CHECK(xc_ring_arm(&two.b.in));
    CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_OK);
    CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_OK);
    CHECK_INT(notifications(to_b[0]), 1);
    CHECK_RC(xc_ring_read(&two.b.in, heard, 9, &n, NULL), XC_OK);
    CHECK(xc_ring_arm(&two.b.in));
    xc_ring_disarm(&two.b.in);
    CHECK_RC(write_one(&two.a.out, bytes, PAGE, &n), XC_OK);
    CHECK_INT(notifications(to_b[0]), 0);
    CHECK(xc_ring_arm(&two.a.out)); /* full */
    CHECK_RC(xc_ring_read(&two.b.in, heard, PAGE / 4 - 1, &n, NULL), XC_OK);
    CHECK_INT(notifications(to_a[0]), 0);
    CHECK_RC(xc_ring_read(&two.b.in, heard, PAGE, &n, NULL), XC_OK);
    CHECK_INT(notifications(to_a[0]), 1);
    CHECK(xc_ring_arm(&two.b.in));
    xc_ring_close(&two.a.out);
    CHECK_INT(notifications(to_b[0]), 1);
    close_pair(&two);
    for (int i = 0; i < 2; i++) {
        close(to_a[i]);
        close(to_b[i]);
    }
}

static atomic_bool looks;

/* True: the flag that the other end would see was up. */
static void *
look_at_flag(void *ring)
{
    bool seen = false;
    while (atomic_load(&looks)) {
        seen = seen || atomic_load(&((xc_ring *)ring)->mine->sleeps) != XC_RING_AWAKE;
    }
    return seen ? ring : NULL;
}

/* Who asks to be notified though there is room does not show that: the other end would notify for nothing. While a link
 * moves, that may be before it has moved itself. */
static void
a_ring_with_room_is_never_shown_as_armed(void)
{
    pair two = open_pair(PAGE);
    pthread_t thread;
    void *seen;
    atomic_store(&looks, true);
    CHECK_INT(pthread_create(&thread, NULL, look_at_flag, &two.a.out), 0);
    for (int i = 0; i < 1000000; i++) {
        CHECK(!xc_ring_arm(&two.a.out));
    }
    atomic_store(&looks, false);
    CHECK_INT(pthread_join(thread, &seen), 0);
    CHECK(seen == NULL);
    close_pair(&two);
}

/* A pipe that takes nothing, and one that nobody has at the other end, hold nobody up. */
static void
a_notification_never_blocks(void)
{
    pair two = open_pair(PAGE);
    size_t n;
    int ends[2];
    CHECK_INT(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], bytes, sizeof bytes) > 0) {
    }
    two.a.out.notify_fd = ends[1];
    for (int i = 0; i < 3; i++) {
        CHECK(xc_ring_arm(&two.b.in));
        CHECK_RC(write_one(&two.a.out, bytes, 1, &n), XC_OK);
        CHECK_RC(xc_ring_read(&two.b.in, heard, 1, &n, NULL), XC_OK);
        if (i == 0) {
            close(ends[0]);
        }
    }
    close(ends[1]);
    close_pair(&two);
}

int
main(void)
{
    check_io_begin("ring", 60);
    RUN_IO(empty_and_full);
    RUN_IO(every_size_at_any_place);
    RUN_IO(two_places);
    RUN_IO(a_closed_writer_is_heard_to_the_end);
    RUN_IO(nobody_reads_any_more);
    RUN_IO(nonsense_is_refused);
    RUN_IO(what_is_ours_is_not_read_back);
    RUN_IO(where_the_other_side_runs);
    RUN_IO(a_write_wakes_the_reader);
    RUN_IO(closing_wakes_either_end);
    RUN_IO(room_wakes_the_writer);
    RUN_IO(nobody_sleeps_on_what_is_there);
    RUN_IO(the_bell_and_the_deadline);
    RUN_IO(no_far_end_keeps_a_rung_sleeper_asleep);
    RUN_IO(a_signal_ends_a_sleep);
    RUN_IO(armed_rings_notify_once);
    RUN_IO(a_notification_never_blocks);
    RUN_IO(a_ring_with_room_is_never_shown_as_armed);
    return check_end();
}

#endif
