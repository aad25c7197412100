/*
 * Rings under load: long streams of random sizes between threads and between processes, every way of waiting, several
 * users that take turns. Far ends that are bad: test_ring_hostile.c.
 */
#include "ring_rig.h"

#if XC_HAS_RING

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>

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

int
main(void)
{
    check_io_begin("ring_long", 60);
    RUN_IO(every_way_of_waiting);
    RUN_IO(large_streams);
    RUN_IO(many_users_in_turns);
    RUN_IO(asleep_in_every_round);
    if (!CHECK_TSAN) { /* which knows nothing of what other processes do to our memory */
        RUN_IO(a_process_sends_it_back);
    }
    return check_end();
}

#endif
