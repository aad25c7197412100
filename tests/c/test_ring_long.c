/*
 * Rings under load: long streams of random sizes between threads and between processes, every way of waiting, several
 * users in turns, a far end that writes nonsense all the time, and one that is killed at any moment.
 */
#include "ring_rig.h"

#if XC_HAS_RING

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>

/* How an end waits. */
enum { SPINS, SLEEPS, CALLED, WAYS };

#define SPIN_NS (20 * INT64_C(1000))
#define BUFFER  (4 * (size_t)XC_RING_SIZE + 4)

/* Waits until another try is worth it. `fd` is where calls come, in place of an I/O thread's epoll. */
static void
wait_for(xc_ring *ring, int way, int fd)
{
    if (way == CALLED) {
        char dump[64];
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (xc_ring_arm(ring)) {
            CHECK(poll(&p, 1, -1) == 1 && read(fd, dump, sizeof dump) > 0);
        }
        return;
    }
    if (way == SPINS && xc_ring_spin(ring, SPIN_NS)) {
        return;
    }
    CHECK_RC(xc_ring_sleep_nogil(ring, xc_bell_mine(), XC_FOREVER), XC_OK);
}

static void
put_all(xc_ring *out, const void *from, size_t n, int way, int fd)
{
    struct iovec part = {.iov_base = (void *)from, .iov_len = n};
    while (part.iov_len > 0) {
        size_t put;
        xc_status rc = xc_ring_write(out, &part, 1, &put, NULL);
        if (rc == XC_AGAIN) {
            wait_for(out, way, fd);
            continue;
        }
        CHECK_RC(rc, XC_OK);
        part.iov_base = (char *)part.iov_base + put;
        part.iov_len -= put;
    }
}

static void
get_all(xc_ring *in, void *into, size_t n, int way, int fd)
{
    while (n > 0) {
        size_t got;
        xc_status rc = xc_ring_read(in, into, n, &got, NULL);
        if (rc == XC_AGAIN) {
            wait_for(in, way, fd);
            continue;
        }
        CHECK_RC(rc, XC_OK);
        into = (char *)into + got;
        n -= got;
    }
}

/* ---- streams between threads ---- */

/* One end of a stream of `total` bytes, moved in pieces of any size. */
typedef struct {
    xc_ring ring;
    size_t total;
    int way;
    int fd;
    unsigned seed;
} end;

static void *
run_end(void *arg)
{
    end *self = arg;
    unsigned char *buffer = malloc(2 * self->ring.size + 4);
    CHECK(buffer != NULL);
    for (size_t place = 0; place < self->total;) {
        size_t n = random_size(&self->seed, self->ring.size);
        n = n < self->total - place ? n : self->total - place;
        if (self->ring.writes) {
            fill_bytes(buffer, n, place);
            put_all(&self->ring, buffer, n, self->way, self->fd);
        }
        else {
            get_all(&self->ring, buffer, n, self->way, self->fd);
            check_bytes(buffer, n, place);
        }
        place += n;
    }
    free(buffer);
    return NULL;
}

/* Both directions at once, from both sides, each end waiting in its own way. */
static void
stream_both_ways(size_t ring, size_t total, int write_way, int read_way, bool same_addresses)
{
    pair two = open_pair(ring);
    int pipes[4][2];
    pthread_t threads[4];
    xc_ring rings[4] = {two.a.out, two.b.in, two.b.out, two.a.in};
    end ends[4];
    if (same_addresses) {
        rings[1] = far_end_of(&rings[0]);
        rings[3] = far_end_of(&rings[2]);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK), 0);
    }
    for (int i = 0; i < 4; i++) {
        rings[i].notify_fd = pipes[i ^ 1][1];
        ends[i] = (end){.ring = rings[i],
                        .total = total,
                        .way = rings[i].writes ? write_way : read_way,
                        .fd = pipes[i][0],
                        .seed = (unsigned)i + 1};
        CHECK_INT(pthread_create(&threads[i], NULL, run_end, &ends[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_INT(ends[i].ring.at, total);
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
    close_pair(&two);
}

static void
every_way_of_waiting(void)
{
    for (int ways = 0; ways < WAYS * WAYS; ways++) {
        stream_both_ways(PAGE, 60 * PAGE, ways / WAYS, ways % WAYS, ways % 2 == 0);
    }
}

static void
large_streams(void)
{
    stream_both_ways(XC_RING_SIZE, CHECK_TSAN ? 3 * XC_RING_SIZE : 8 * XC_RING_SIZE, SPINS, SPINS, true);
    stream_both_ways(XC_RING_SIZE, CHECK_TSAN ? 3 * XC_RING_SIZE : 8 * XC_RING_SIZE, SLEEPS, SLEEPS, false);
}

/* ---- turns ---- */

enum { USERS = 3, RECORDS = 300 };

typedef struct {
    size_t size;
    unsigned user, number;
} record;

typedef struct {
    xc_ring ring;
    pthread_mutex_t turn;
    atomic_uint users;
    record last[USERS]; /* turn: of the readers' */
    unsigned left;      /* turn: records that nobody has read */
} shared_end;

static void *
write_records(void *arg)
{
    shared_end *self = arg;
    unsigned char body[3000];
    unsigned user = atomic_fetch_add(&self->users, 1), seed = user + 5;
    for (unsigned i = 0; i < RECORDS; i++) {
        record head = {.size = (size_t)rand_r(&seed) % sizeof body, .user = user, .number = i};
        fill_bytes(body, head.size, head.size * user + i);
        pthread_mutex_lock(&self->turn);
        put_all(&self->ring, &head, sizeof head, i % 2 == 0 ? SPINS : SLEEPS, -1);
        put_all(&self->ring, body, head.size, SLEEPS, -1);
        pthread_mutex_unlock(&self->turn);
    }
    return NULL;
}

static void *
read_records(void *arg)
{
    shared_end *self = arg;
    unsigned char body[3000];
    for (bool more = true; more;) {
        pthread_mutex_lock(&self->turn);
        more = self->left > 0;
        if (more) {
            record head;
            self->left--;
            get_all(&self->ring, &head, sizeof head, SLEEPS, -1);
            CHECK(head.user < USERS && head.size < sizeof body);
            CHECK_INT(head.number, self->last[head.user].number);
            self->last[head.user].number++;
            get_all(&self->ring, body, head.size, SPINS, -1);
            check_bytes(body, head.size, head.size * head.user + head.number);
        }
        pthread_mutex_unlock(&self->turn);
    }
    return NULL;
}

/* What a ring keeps for its user goes from one thread to the next with the turn. */
static void
many_users_in_turns(void)
{
    pair two = open_pair(PAGE);
    pthread_t threads[2 * USERS];
    shared_end writers = {.ring = two.a.out, .turn = PTHREAD_MUTEX_INITIALIZER};
    shared_end readers = {.turn = PTHREAD_MUTEX_INITIALIZER, .left = USERS * RECORDS};
    readers.ring = far_end_of(&writers.ring);
    for (int i = 0; i < 2 * USERS; i++) {
        CHECK_INT(i % 2 == 0 ? pthread_create(&threads[i], NULL, write_records, &writers)
                             : pthread_create(&threads[i], NULL, read_records, &readers),
                  0);
    }
    for (int i = 0; i < 2 * USERS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < USERS; i++) {
        CHECK_INT(readers.last[i].number, RECORDS);
    }
    close_pair(&two);
}

/* ---- nobody sleeps past his news ---- */

typedef struct {
    xc_ring in, out;
    int trips, way, fd;
    bool first;
} player;

static void *
play(void *arg)
{
    player *self = arg;
    for (int i = 0; i < self->trips; i++) {
        int ball = i;
        if (self->first) {
            put_all(&self->out, &ball, sizeof ball, SLEEPS, -1);
        }
        get_all(&self->in, &ball, sizeof ball, self->way, self->fd);
        CHECK_INT(ball, i);
        if (!self->first) {
            put_all(&self->out, &ball, sizeof ball, SLEEPS, -1);
        }
    }
    return NULL;
}

/* A wake-up that is missed costs the second after which a sleeper checks anyway: one in a hundred, and the time is up.
 */
static void
ping_pong(int way)
{
    pair two = open_pair(PAGE);
    pthread_t other;
    int to_b[2], to_a[2];
    CHECK(pipe2(to_b, O_NONBLOCK) == 0 && pipe2(to_a, O_NONBLOCK) == 0);
    two.a.out.notify_fd = to_b[1];
    two.b.out.notify_fd = to_a[1];
    player a = {.in = two.a.in, .out = two.a.out, .trips = 6000, .way = way, .fd = to_a[0], .first = true};
    player b = {.in = far_end_of(&two.a.out), .out = far_end_of(&two.a.in), .trips = 6000, .way = way, .fd = to_b[0]};
    b.out.notify_fd = two.b.out.notify_fd;
    CHECK_INT(pthread_create(&other, NULL, play, &b), 0);
    (void)play(&a);
    CHECK_INT(pthread_join(other, NULL), 0);
    for (int i = 0; i < 2; i++) {
        close(to_a[i]);
        close(to_b[i]);
    }
    close_pair(&two);
}

static void
asleep_in_every_round(void)
{
    ping_pong(SLEEPS);
    ping_pong(CALLED);
}

/* ---- processes ---- */

/* A forked child at the other side, by the fd alone, as a program that was started with it. */
static pid_t
fork_side(xc_region *near, void (*body)(xc_region *far))
{
    int fd = dup(near->fd);
    CHECK(fd >= 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        xc_region far;
        check_die_with_parent();
        CHECK_RC(xc_region_attach(fd, &far, NULL), XC_OK);
        body(&far);
        xc_region_close(&far);
        _exit(0);
    }
    close(fd);
    return pid;
}

static void
join_side(pid_t pid, int want)
{
    int status = -1;
    while (waitpid(pid, &status, 0) != pid) {
        CHECK_INT(errno, EINTR);
    }
    CHECK_INT(status, want);
}

/* Sends back what comes, until nothing more does. */
static void
echo(xc_region *far)
{
    unsigned char *buffer = malloc(BUFFER);
    unsigned seed = 9;
    size_t got;
    xc_status rc;
    CHECK(buffer != NULL);
    while ((rc = xc_ring_read(&far->in, buffer, 1 + (size_t)rand_r(&seed) % BUFFER, &got, NULL)) != XC_EOF) {
        if (rc == XC_AGAIN) {
            wait_for(&far->in, rand_r(&seed) % 2 == 0 ? SPINS : SLEEPS, -1);
            continue;
        }
        CHECK_RC(rc, XC_OK);
        put_all(&far->out, buffer, got, SPINS, -1);
    }
    free(buffer);
    xc_ring_close(&far->out);
}

static void *
read_echo(void *arg)
{
    end *self = arg;
    (void)run_end(self);
    size_t got;
    xc_status rc;
    while ((rc = xc_ring_read(&self->ring, &(char){0}, 1, &got, NULL)) == XC_AGAIN) {
        wait_for(&self->ring, SLEEPS, -1);
    }
    CHECK_RC(rc, XC_EOF);
    return NULL;
}

static void
a_process_sends_it_back(void)
{
    size_t sizes[] = {PAGE, XC_RING_SIZE};
    for (int i = 0; i < 2; i++) {
        xc_region near;
        pthread_t reader;
        size_t total = sizes[i] * (i == 0 ? 200 : 12);
        CHECK_RC(xc_region_create(sizes[i], &near, NULL), XC_OK);
        pid_t pid = fork_side(&near, echo);
        xc_region_close_fd(&near);
        end writes = {.ring = near.out, .total = total, .way = SPINS, .seed = 1};
        end reads = {.ring = near.in, .total = total, .way = SPINS, .seed = 2};
        CHECK_INT(pthread_create(&reader, NULL, read_echo, &reads), 0);
        (void)run_end(&writes);
        xc_ring_close(&near.out);
        CHECK_INT(pthread_join(reader, NULL), 0);
        join_side(pid, 0);
        xc_region_close(&near);
    }
}

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
    check_io_begin("ring_long", 60);
    signal(SIGPIPE, SIG_IGN);
    RUN_IO(every_way_of_waiting);
    RUN_IO(large_streams);
    RUN_IO(many_users_in_turns);
    RUN_IO(asleep_in_every_round);
    if (!CHECK_TSAN) { /* which knows nothing of what other processes do to our memory */
        RUN_IO(a_process_sends_it_back);
        RUN_IO(survives_nonsense);
        RUN_IO(survives_kill);
    }
    return check_end();
}

#else

static void
no_rings_here(void)
{
    CHECK_INT(XC_HAS_RING, 0);
}

int
main(void)
{
    check_io_begin("ring_long", 60);
    RUN_IO(no_rings_here);
    return check_end();
}

#endif
