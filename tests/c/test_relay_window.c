/*
 * The window of a stream through a channel: how much is under way at most, what counts as taken, and how the wait for
 * credit ends. The far end of the link is the test.
 */
#include "relay_rig.h"

/* Reads what the stream sends until it waits for credit. Returns what that counts. */
static uint64_t
read_a_window(stream *it)
{
    uint64_t cost = 0;
    for (;;) {
        xc_frame frame;
        unsigned char *payload;
        CHECK(read_frame(it->outer.from, &frame, &payload));
        free(payload);
        if (frame.code == XC_WAITS) {
            return cost;
        }
        CHECK_INT(frame.code, XC_DATA);
        cost += frame.size + XC_ITEM_COST;
    }
}

struct feeder {
    pthread_t thread;
    int fd;
};

static void *
feed_without_end(void *arg)
{
    static const unsigned char zeros[64 * 1024];
    struct feeder *it = arg;
    while (write(it->fd, zeros, sizeof zeros) > 0) {
    }
    close(it->fd);
    return NULL;
}

static struct feeder
start_feeder(stream *it)
{
    static struct feeder feeder;
    feeder.fd = it->feed;
    it->feed = -1;
    CHECK_INT(pthread_create(&feeder.thread, NULL, feed_without_end, &feeder), 0);
    return feeder;
}

/* The other end does not write to its fd what it gets: no more than a window goes there, and a callback that runs does
 * not matter. */
static void
no_more_than_a_window_is_under_way(void)
{
    for (int half = 0; half < 2; half++) {
        stream it = stream_open();
        if (half) { /* the other direction has ended: nothing changes for this one, which a close ends, too */
            rig_send(&it.outer, XC_LAST_MESSAGE, it.chan->id, NULL, 0);
            expect_end(it.sunk);
        }
        CHECK_RC(xc_link_dispatch_enter(it.outer.link), XC_OK);
        struct feeder feeder = start_feeder(&it);
        uint64_t sent = read_a_window(&it), taken = sent / 2;
        CHECK(sent <= XC_RELAY_WINDOW && sent > XC_RELAY_WINDOW - PIECE_COST(XC_RELAY_PIECE));
        send_credit(&it.outer, it.chan->id, taken, XC_RELAY_WINDOW);
        sent += read_a_window(&it);
        CHECK(sent - taken <= XC_RELAY_WINDOW && sent - taken > XC_RELAY_WINDOW - PIECE_COST(XC_RELAY_PIECE));
        rig_send(&it.outer, XC_CLOSE, it.chan->id, NULL, 0);
        pthread_join(feeder.thread, NULL);
        xc_link_dispatch_leave(it.outer.link);
        stream_close(&it);
    }
}

static uint32_t
holders_of(stream *it)
{
    xc_lock(&it->outer.link->mu);
    uint32_t n = it->chan->refs;
    xc_unlock(&it->outer.link->mu);
    return n;
}

static void
it_ends_while_it_waits_for_credit(void)
{
    stream it = stream_open();
    struct feeder feeder = start_feeder(&it);
    (void)read_a_window(&it);
    rig_send(&it.outer, XC_DATA, it.chan->id, "NQ", 2); /* no piece */
    expect_frame(it.outer.from, XC_CLOSE, it.chan->id, NULL, 0);
    pthread_join(feeder.thread, NULL);
    expect_end(it.sunk);
    AWAIT(holders_of(&it) == 1); /* the relay has gone */
    stream_close(&it);
}

static void
the_link_ends_while_it_waits_for_credit(void)
{
    stream it = stream_open();
    struct feeder feeder = start_feeder(&it);
    (void)read_a_window(&it);
    rig_hang_up(&it.outer);
    pthread_join(feeder.thread, NULL);
    expect_end(it.sunk);
    stream_close(&it);
}

/* What it says is taken was written to the fd. */
static void
what_was_written_is_taken(void)
{
    enum { SIZE = 40000, HALF = XC_RELAY_WINDOW / 2 / PIECE_COST(SIZE) + 1 };
    stream it = stream_open();
    uint32_t id = it.chan->id;
    CHECK(fcntl(it.sunk, F_SETPIPE_SZ, 65536) >= 0);
    for (unsigned i = 0; i < HALF; i++) {
        send_piece(&it.outer, id, SIZE, i);
    }
    settle(&it.outer); /* a pipe takes one of these, and nobody reads */
    xc_flow flow, backlog;
    CHECK_INT(xc_link_get_flow(it.outer.link, &flow, 1, &backlog), 1);
    CHECK(flow.items == HALF - 1 || flow.items == HALF);
    CHECK_INT(flow.bytes, flow.items * PIECE_COST(SIZE));
    for (unsigned i = 0; i < HALF; i++) {
        expect_piece_of(it.sunk, SIZE, i);
    }
    expect_credit(&it.outer, id, HALF * PIECE_COST(SIZE), XC_RELAY_WINDOW);
    for (unsigned i = 0; i < 3; i++) {
        send_piece(&it.outer, id, SIZE, i);
    }
    rig_send(&it.outer, XC_WAITS, id, NULL, 0);
    settle(&it.outer);
    for (unsigned i = 0; i < 3; i++) {
        expect_piece_of(it.sunk, SIZE, i);
    }
    expect_credit(&it.outer, id, (HALF + 3) * PIECE_COST(SIZE), XC_RELAY_WINDOW);
    stream_close(&it);
}

/* What came before the relay began was not limited by this side, and counts like the rest. */
static void
what_came_before_counts(void)
{
    int feed[2], sunk[2];
    xc_err err;
    rig outer = rig_open(false);
    xc_chan *chan = new_chan(&outer);
    for (unsigned i = 0; i < 30; i++) {
        send_piece(&outer, chan->id, 40000, i);
    }
    rig_send(&outer, XC_WAITS, chan->id, NULL, 0);
    settle(&outer); /* no answer: who waits would take it for leave to send without a limit */
    CHECK(pipe2(feed, O_CLOEXEC) == 0 && pipe2(sunk, O_CLOEXEC) == 0);
    CHECK_RC(xc_relay_fds(outer.link, chan, feed[0], sunk[1], &err), XC_OK);
    for (unsigned i = 0; i < 30; i++) {
        expect_piece_of(sunk[0], 40000, i);
    }
    uint64_t taken = 0, limit = 0;
    while (taken < 30 * PIECE_COST(40000)) {
        xc_frame frame;
        unsigned char *payload;
        CHECK(read_frame(outer.from, &frame, &payload));
        CHECK_INT(frame.code, XC_CREDIT);
        xc_credit_unpack(payload, &taken, &limit);
        CHECK_INT(limit, XC_RELAY_WINDOW);
        free(payload);
    }
    close(feed[1]);
    close(sunk[0]);
    xc_link_drop_chan(outer.link, chan);
    rig_close(&outer);
}

int
main(void)
{
    check_io_begin("relay_window", 60);
    RUN_IO(no_more_than_a_window_is_under_way);
    RUN_IO(it_ends_while_it_waits_for_credit);
    RUN_IO(the_link_ends_while_it_waits_for_credit);
    RUN_IO(what_was_written_is_taken);
    RUN_IO(what_came_before_counts);
    return check_end();
}
