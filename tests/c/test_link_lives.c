/*
 * The lives of links: given up at any moment, over a socket, over a fork, made without memory.
 */
#include <sys/socket.h>
#include <sys/wait.h>

#include "link_rig.h"

enum { PROGRAM_SECONDS = 60 };

/* Given up at any moment: before, while and after something arrives, with a half frame, with an end. */
static void
released_at_any_moment(void)
{
    for (int round = 0; round < 60; round++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire stream = {NULL, 0, 0};
        wire_add_pattern(&stream, chan->id, 50, 0);
        wire_add_pattern(&stream, chan->id, 100000, 1);
        write_all(it.to, stream.data, stream.n * (size_t)(round % 4) / 3);
        if (round % 3 == 0) {
            (void)wait_for(&it, XC_WAIT_CLOSE, chan, xc_after(XC_MS / 10));
        }
        if (round % 7 == 0) {
            rig_hang_up(&it);
        }
        if (round % 5 == 0) {
            xc_link_goodbye(it.link);
        }
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
        wire_free(&stream);
    }
}

static rig
open_socket(void)
{
    int ends[2];
    xc_err err;
    xc_link_opts opts = rig_opts(false);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    rig it = {.to = ends[1], .from = dup(ends[1])};
    it.link = xc_link_new(&opts, ends[0], ends[0], &err);
    CHECK(it.link != NULL);
    return it;
}

/* One socket both ways. */
static void
over_a_socket(void)
{
    rig it = open_socket();
    xc_chan *chan = new_chan(&it);
    send_int(&it, chan->id, 1);
    AWAIT(is_ready(&it, XC_WAIT_ITEM, chan)); /* the pump watches it for reading ... */
    expect_int(&it, chan, 1);
    CHECK_RC(xc_link_post(it.link, XC_DATA, chan->id, "LQ", 2), XC_OK); /* ... and for writing */
    expect_frame(it.from, XC_DATA, chan->id, "LQ", 2);
    send_int(&it, chan->id, 2);
    expect_int(&it, chan, 2);
    xc_link_goodbye(it.link);
    expect_frame(it.from, XC_TERMINATE, 0, NULL, 0);
    expect_end(it.from);
    CHECK_INT(shutdown(it.to, SHUT_WR), 0);
    await_fin(&it);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void *
flood(void *to)
{
    static const unsigned char item[XC_HEADER_SIZE] = {XC_DATA, 0, 0, 1, 1}; /* for a channel that is not there */
    while (write(*(int *)to, item, sizeof item) > 0) {
    }
    return NULL;
}

/* A socket is hung up: what has arrived is still read, and who sends without end does not keep the link alive. */
static void
hung_up(void)
{
    pthread_t thread;
    rig it = open_socket();
    xc_chan *chan = new_chan(&it);
    send_int(&it, chan->id, 1);
    xc_link_hang_up(it.link);
    expect_int(&it, chan, 1);
    await_fin(&it);
    expect_end(it.from);
    xc_link_hang_up(it.link); /* once more does nothing */
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);

    it = open_socket();
    CHECK_INT(pthread_create(&thread, NULL, flood, &it.to), 0);
    chan = new_chan(&it);
    (void)wait_for(&it, XC_WAIT_CLOSE, chan, xc_after(20 * XC_MS));
    xc_link_hang_up(it.link);
    await_fin(&it);
    CHECK_INT(pthread_join(thread, NULL), 0);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static rig shared;

/* The child may ask whose it is, and let go; the parent's fds are not in it. */
static void
child_of_a_link(void)
{
    CHECK(xc_link_forked(shared.link));
    CHECK(fcntl(shared.link->incoming.in, F_GETFD) < 0 && fcntl(shared.link->outgoing.out, F_GETFD) < 0);
    xc_link_release(shared.link);
    if (!CHECK_TSAN) { /* it does not let a child of a program with threads start threads */
        rig own = rig_open(false);
        xc_chan *chan = new_chan(&own);
        send_int(&own, chan->id, 3);
        expect_int(&own, chan, 3);
        xc_link_drop_chan(own.link, chan);
        rig_close(&own);
    }
}

static void
over_a_fork(void)
{
    shared = rig_open(false);
    xc_chan *chan = new_chan(&shared);
    send_int(&shared, chan->id, 1);
    expect_int(&shared, chan, 1);
    CHECK_INT(check_in_child(child_of_a_link), 0);
    CHECK(!xc_link_forked(shared.link));
    send_int(&shared, chan->id, 2);
    expect_int(&shared, chan, 2);
    xc_link_drop_chan(shared.link, chan);
    rig_close(&shared);
}

/* Fails one allocation after the other: either there is a link, or nothing is left of it, the fds included. */
static void
made_without_memory(void)
{
    for (int allowed = 0;; allowed++) {
        int to[2], from[2];
        xc_err err;
        xc_link_opts opts = rig_opts(false);
        CHECK(pipe(to) == 0 && pipe(from) == 0);
        atomic_store(&check_allowed, allowed);
        xc_set_alloc_hook(check_allow_some);
        xc_link *link = xc_link_new(&opts, to[0], from[1], &err);
        xc_set_alloc_hook(NULL);
        if (link != NULL) {
            xc_link_release(link);
        }
        else {
            CHECK(err.code == XC_NOMEM || err.code == XC_SYS);
            CHECK_INT(write(to[1], "x", 1), -1); /* closed */
        }
        close(to[1]);
        close(from[0]);
        if (link != NULL) {
            CHECK(allowed > 0);
            return;
        }
    }
}

/* A worker that has heard a goodbye goes on sending, and the pump writes what is left over: nobody else will. */
static void
left_over_after_a_goodbye(void)
{
    enum { FRAMES = 50, SIZE = 100 * 1024 }; /* more than a ring holds */
    rig it = rig_open(true);
    wire frames = {NULL, 0, 0};
    unsigned char *payload = malloc(SIZE);
    CHECK(payload != NULL);
    for (unsigned i = 0; i < FRAMES; i++) {
        fill_pattern(payload, SIZE, 1, i);
        wire_add(&frames, XC_DATA, 1, payload, SIZE);
    }
    rig_send(&it, XC_TERMINATE, 0, NULL, 0);
    await_fin(&it);
    CHECK_RC(xc_writer_post(xc_link_writer(it.link), frames.data, frames.n), XC_OK);
    for (unsigned i = 0; i < FRAMES; i++) {
        fill_pattern(payload, SIZE, 1, i);
        expect_frame(it.from, XC_DATA, 1, payload, SIZE);
    }
    wire_free(&frames);
    free(payload);
    rig_close(&it);
}

#if XC_HAS_RING
static void *
send_much(void *link)
{
    static unsigned char much[3 * XC_RING_SIZE];
    struct iovec part = {much, sizeof much};
    xc_sending sending = {.parts = &part, .n = 1};
    xc_err err;
    CHECK_RC(xc_writer_send_nogil(xc_link_writer(link), &sending, xc_after(5 * XC_S), &err), XC_EOF);
    return NULL;
}

static bool
is_full(const xc_ring *ring)
{
    return xc_ring_filled(ring) == ring->size;
}

/* The far end says goodbye and then dies, before it has read what a worker sends: its ring stays open and full. */
static void
died_after_a_goodbye(void)
{
    int to[2], from[2];
    size_t put;
    xc_err err;
    xc_region ours, theirs;
    pthread_t thread;
    unsigned char goodbye[XC_HEADER_SIZE];
    struct iovec part = {goodbye, sizeof goodbye};
    xc_link_opts opts = rig_opts(true);
    signal(SIGINT, SIG_IGN);
    CHECK(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    CHECK_RC(xc_region_create(XC_RING_SIZE, &theirs, &err), XC_OK);
    CHECK_RC(xc_region_attach(dup(theirs.fd), &ours, &err), XC_OK);
    opts.region = &ours;
    rig it = {.link = xc_link_new(&opts, to[0], from[1], &err)};
    CHECK(it.link != NULL);
    theirs.out.notify_fd = to[1];
    xc_frame_pack(goodbye, XC_TERMINATE, 0, 0);
    CHECK_RC(xc_ring_write(&theirs.out, &part, 1, &put, &err), XC_OK);
    await_fin(&it);
    CHECK_INT(pthread_create(&thread, NULL, send_much, it.link), 0);
    AWAIT(is_full(&theirs.in));
    close(to[1]);
    close(from[0]);
    CHECK_INT(pthread_join(thread, NULL), 0);
    xc_link_release(it.link);
    xc_region_close(&theirs);
}
#endif

int
main(void)
{
    check_io_begin("link_lives", PROGRAM_SECONDS);
    RUN_IO(released_at_any_moment);
    RUN_IO(over_a_socket);
    RUN_IO(hung_up);
    RUN_IO(over_a_fork);
    RUN_IO(made_without_memory);
    RUN_IO(left_over_after_a_goodbye);
#if XC_HAS_RING
    RUN_IO(died_after_a_goodbye);
#endif
    return check_end();
}
