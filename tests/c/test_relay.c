/*
 * Streams of bytes through channels: both directions and their ends, what is no piece of a stream, who is held back by
 * a slow link, and the process at the far end. The far end of the link is the test.
 */
#include "relay_rig.h"

/* --- the two directions --------------------------------------------------------------------------------------- */

static void
each_direction_ends_for_itself(void)
{
    unsigned char payload[100];
    stream it = stream_open();
    uint32_t id = it.chan->id;
    fill_pattern(payload, 50, 1, 0);
    write_all(it.feed, payload, 50);
    expect_frame(it.outer.from, XC_DATA, id, payload, put_piece(payload, 50, 0));
    send_piece(&it.outer, id, 60, 1);
    expect_piece_of(it.sunk, 60, 1);
    send_piece(&it.outer, id, 0, 2); /* harmless */
    send_piece(&it.outer, id, 3, 3);
    expect_piece_of(it.sunk, 3, 3);

    close(it.feed);
    it.feed = -1;
    expect_frame(it.outer.from, XC_LAST_MESSAGE, id, NULL, 0);
    send_piece(&it.outer, id, 61, 4);
    rig_send(&it.outer, XC_LAST_MESSAGE, id, NULL, 0);
    expect_piece_of(it.sunk, 61, 4);
    expect_end(it.sunk);
    stream_close(&it);

    it = stream_open();
    send_piece(&it.outer, id, 5, 5);
    rig_send(&it.outer, XC_LAST_MESSAGE, id, NULL, 0);
    expect_piece_of(it.sunk, 5, 5);
    expect_end(it.sunk);
    fill_pattern(payload, 50, 1, 0);
    write_all(it.feed, payload, 50);
    expect_frame(it.outer.from, XC_DATA, id, payload, put_piece(payload, 50, 0));
    close(it.feed);
    it.feed = -1;
    expect_frame(it.outer.from, XC_LAST_MESSAGE, id, NULL, 0);
    stream_close(&it);
}

static void
a_close_ends_both(void)
{
    for (int error = 0; error < 2; error++) {
        stream it = stream_open();
        send_piece(&it.outer, it.chan->id, 5, 0);
        rig_send(&it.outer, error ? XC_CLOSE_ERROR : XC_CLOSE, it.chan->id, error ? "N\0\0\0\1xQ" : NULL,
                 error ? 7 : 0);
        expect_piece_of(it.sunk, 5, 0);
        expect_end(it.sunk);
        await_broken(it.feed);
        CHECK_INT(atomic_load(&rig_orphans), 0);
        stream_close(&it);
    }
}

/* Where one direction had ended before, the other one ends then, at once: who is at its other end may be quiet. */
static void
the_other_direction_ends_with_a_close_or_the_link(void)
{
    for (int how = 0; how < 3; how++) {
        struct pollfd feed = {.events = 0};
        stream it = stream_open();
        rig_send(&it.outer, XC_LAST_MESSAGE, it.chan->id, NULL, 0);
        expect_end(it.sunk);
        if (how == 2) {
            rig_hang_up(&it.outer);
        }
        else {
            rig_send(&it.outer, how == 1 ? XC_CLOSE_ERROR : XC_CLOSE, it.chan->id, how == 1 ? "N\0\0\0\1xQ" : NULL,
                     how == 1 ? 7 : 0);
        }
        feed.fd = it.feed;
        CHECK_INT(poll(&feed, 1, 10000), 1);
        CHECK((feed.revents & POLLERR) != 0);
        CHECK_INT(atomic_load(&rig_orphans), 0);
        stream_close(&it);
    }
}

static void
the_end_of_the_link_ends_both(void)
{
    stream it = stream_open();
    send_piece(&it.outer, it.chan->id, 5, 0);
    rig_hang_up(&it.outer);
    expect_piece_of(it.sunk, 5, 0);
    expect_end(it.sunk);
    await_broken(it.feed);
    CHECK_RC(wait_for(&it.outer, XC_WAIT_FIN, NULL, XC_FOREVER), XC_OK);
    stream_close(&it);

    /* One direction had ended before. */
    it = stream_open();
    rig_send(&it.outer, XC_LAST_MESSAGE, it.chan->id, NULL, 0);
    expect_end(it.sunk);
    rig_hang_up(&it.outer);
    await_broken(it.feed);
    stream_close(&it);

    /* A link that has ended already. */
    int feed[2], sunk[2];
    xc_err err;
    rig dead = rig_open(false);
    xc_chan *chan = new_chan(&dead);
    rig_hang_up(&dead);
    await_fin(&dead);
    CHECK(pipe2(feed, O_CLOEXEC) == 0 && pipe2(sunk, O_CLOEXEC) == 0);
    CHECK_RC(xc_relay_fds(dead.link, chan, feed[0], sunk[1], &err), XC_OK);
    expect_end(sunk[0]);
    await_broken(feed[1]);
    close(feed[1]);
    close(sunk[0]);
    xc_link_drop_chan(dead.link, chan);
    rig_close(&dead);
}

static void
what_came_before_comes_first(void)
{
    int feed[2], sunk[2];
    xc_err err;
    rig outer = rig_open(false);
    xc_chan *chan = new_chan(&outer);
    for (unsigned i = 0; i < 50; i++) {
        send_piece(&outer, chan->id, 100, i);
    }
    CHECK_RC(wait_for(&outer, XC_WAIT_ITEM, chan, XC_FOREVER), XC_OK);
    CHECK(pipe2(feed, O_CLOEXEC) == 0 && pipe2(sunk, O_CLOEXEC) == 0);
    CHECK_RC(xc_relay_fds(outer.link, chan, feed[0], sunk[1], &err), XC_OK);
    send_piece(&outer, chan->id, 100, 50);
    for (unsigned i = 0; i <= 50; i++) {
        expect_piece_of(sunk[0], 100, i);
    }
    close(feed[1]);
    close(sunk[0]);
    xc_link_drop_chan(outer.link, chan);
    rig_close(&outer);
}

static void
a_callback_does_not_hold_it_up(void)
{
    stream it = stream_open();
    xc_chan *other = new_chan(&it.outer);
    CHECK_RC(xc_link_dispatch_enter(it.outer.link), XC_OK);
    send_int(&it.outer, other->id, 1);
    send_piece(&it.outer, it.chan->id, 10, 0);
    expect_piece_of(it.sunk, 10, 0);
    CHECK(!is_ready(&it.outer, XC_WAIT_ITEM, other)); /* it waits for its turn */
    rig_hang_up(&it.outer);
    expect_end(it.sunk);
    xc_link_dispatch_leave(it.outer.link);
    expect_int(&it.outer, other, 1);
    xc_link_drop_chan(it.outer.link, other);
    stream_close(&it);
}

/* --- what is no piece of a stream ----------------------------------------------------------------------------- */

static void
check_refused(const void *payload, size_t size)
{
    stream it = stream_open();
    send_piece(&it.outer, it.chan->id, 5, 0);
    expect_piece_of(it.sunk, 5, 0);
    rig_send(&it.outer, XC_DATA, it.chan->id, payload, size);
    send_piece(&it.outer, it.chan->id, 5, 1);
    expect_frame(it.outer.from, XC_CLOSE, it.chan->id, NULL, 0);
    expect_end(it.sunk);
    await_broken(it.feed);
    stream_close(&it);
}

static void
anything_else_closes_the_stream(void)
{
    check_refused("", 0);
    check_refused("A", 1);
    check_refused("F\0\0\0\1Q", 6);
    check_refused("A\0\0\0\1xx", 7);
    check_refused("A\0\0\0\2xQ", 7);
    check_refused("A\xff\xff\xff\xffQ", 6);
    check_refused("B\0\0\0\7Q", 6); /* a channel */
}

struct half {
    rig *it;
    const wire *frame;
};

/* The pump would not ask for memory: the waiter has to read it. */
static void *
write_some_when_read(void *arg)
{
    struct half *half = arg;
    await_reader(half->it);
    write_all(half->it->to, half->frame->data, 100);
    return NULL;
}

/* A waiter for items of that channel, which nobody should be, has lent memory for one. */
static void
lent_memory_is_given_back(void)
{
    stream it = stream_open();
    size_t space = 0;
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = it.chan, .until = XC_FOREVER, .can_give = true};
    unsigned char *payload = malloc(XC_BIG + 6);
    CHECK(payload != NULL);
    put_piece(payload, XC_BIG, 0);
    wire frame = {NULL, 0, 0};
    wire_add(&frame, XC_DATA, it.chan->id, payload, XC_BIG + 6);
    struct half half = {&it.outer, &frame};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, write_some_when_read, &half), 0);
    xc_status rc;
    while ((rc = xc_link_wait_nogil(it.outer.link, &wait, &space)) == XC_INTR) {
    }
    CHECK_RC(rc, XC_SPACE);
    pthread_join(thread, NULL);
    unsigned char *lent = malloc(space);
    bool taken = xc_link_give_space(it.outer.link, lent, lent, space);
    CHECK(taken);
    write_all(it.outer.to, frame.data + 100, frame.n - 100);
    expect_frame(it.outer.from, XC_CLOSE, it.chan->id, NULL, 0);
    expect_end(it.sunk);
    CHECK_INT(atomic_load(&rig_dropped), 1);
    wire_free(&frame);
    free(payload);
    stream_close(&it);
}

/* --- much of it ----------------------------------------------------------------------------------------------- */

enum { TOTAL = 16 << 20 };

static void
a_slow_link_holds_back_who_writes(void)
{
    stream it = stream_open();
    unsigned char *bytes = malloc(TOTAL), *got;
    CHECK(bytes != NULL);
    fill_pattern(bytes, TOTAL, 1, 0);
    CHECK(fcntl(it.feed, F_SETFL, O_NONBLOCK) == 0);
    size_t put = 0, have = 0;
    for (int idle = 0; idle < 200;) {
        ssize_t n = put < TOTAL ? write(it.feed, bytes + put, TOTAL - put) : -1;
        put += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        check_pause_ms(1);
    }
    CHECK(put < 4 << 20); /* two pipes' worth, and XC_WRITER_MUCH */
    for (unsigned pieces = 0; have < put; pieces++) {
        xc_frame frame;
        send_credit(&it.outer, it.chan->id, have + pieces * PIECE_COST(0), XC_RELAY_WINDOW);
        CHECK(read_frame(it.outer.from, &frame, &got));
        if (frame.code == XC_WAITS) {
            CHECK(pieces-- > 0);
            free(got);
            continue;
        }
        CHECK_INT(frame.code, XC_DATA);
        CHECK(frame.size > 6 && frame.size - 6 <= XC_RELAY_PIECE);
        CHECK(got[0] == 'A' && xc_get_u32(got + 1) == frame.size - 6 && got[frame.size - 1] == 'Q');
        CHECK(memcmp(got + 5, bytes + have, frame.size - 6) == 0);
        have += frame.size - 6;
        free(got);
    }
    CHECK_INT(have, put);
    free(bytes);
    stream_close(&it);
}

static void
what_arrives_faster_is_kept(void)
{
    enum { PIECES = 300, SIZE = 40000 };
    stream it = stream_open();
    for (unsigned i = 0; i < PIECES; i++) {
        send_piece(&it.outer, it.chan->id, SIZE, i);
    }
    rig_send(&it.outer, XC_LAST_MESSAGE, it.chan->id, NULL, 0);
    for (unsigned i = 0; i < PIECES; i++) {
        expect_piece_of(it.sunk, SIZE, i);
    }
    expect_end(it.sunk);
    stream_close(&it);
}

/* The writing end breaks while much waits for it. */
static void
nobody_reads_what_arrives(void)
{
    stream it = stream_open();
    for (unsigned i = 0; i < 100; i++) {
        send_piece(&it.outer, it.chan->id, 40000, i);
    }
    expect_piece_of(it.sunk, 40000, 0);
    close(it.sunk);
    it.sunk = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < 100; i++) {
        send_piece(&it.outer, it.chan->id, 40000, i);
    }
    write_all(it.feed, "still", 5); /* the other direction is as it was */
    xc_frame frame;
    unsigned char *got;
    uint64_t taken = 0, limit;
    bool came = false;
    rig_send(&it.outer, XC_WAITS, it.chan->id, NULL, 0);
    while (!came || taken < 200 * PIECE_COST(40000)) { /* what is thrown away may be followed by more */
        CHECK(read_frame(it.outer.from, &frame, &got));
        if (frame.code == XC_CREDIT) {
            xc_credit_unpack(got, &taken, &limit);
        }
        else {
            CHECK(frame.code == XC_DATA && frame.size == 11 && memcmp(got, "A\0\0\0\5stillQ", 11) == 0);
            came = true;
        }
        free(got);
    }
    CHECK_INT(taken, 200 * PIECE_COST(40000));
    stream_close(&it);
}

/* --- a link over a stream ------------------------------------------------------------------------------------- */

static void
a_link_over_a_stream(void)
{
    static const char int_of_7[] = "A\0\0\0\x0f\4\0\0\0\1\0\0\0\6F\0\0\0\7Q"
                                   "Q";
    static const char goodbye[] = "A\0\0\0\x09\2\0\0\0\0\0\0\0\0Q";
    rig outer = rig_open(false), inner = {.to = -1};
    xc_chan *chan = new_chan(&outer);
    xc_link_opts opts = rig_opts(false);
    xc_err err;
    CHECK_RC(xc_relay_link(outer.link, chan, &opts, &inner.link, &err), XC_OK);
    xc_chan *item = new_chan(&inner);
    CHECK_RC(xc_link_post(inner.link, XC_DATA, item->id, "F\0\0\0\7Q", 6), XC_OK);
    expect_frame(outer.from, XC_DATA, chan->id, int_of_7, sizeof int_of_7 - 1);
    rig_send(&outer, XC_DATA, chan->id, int_of_7, sizeof int_of_7 - 1);
    expect_int(&inner, item, 7);
    xc_link_goodbye(inner.link);
    expect_frame(outer.from, XC_DATA, chan->id, goodbye, sizeof goodbye - 1);
    expect_frame(outer.from, XC_LAST_MESSAGE, chan->id, NULL, 0);
    rig_send(&outer, XC_DATA, chan->id, int_of_7, sizeof int_of_7 - 1); /* it may still be told something */
    expect_int(&inner, item, 7);
    rig_send(&outer, XC_LAST_MESSAGE, chan->id, NULL, 0);
    CHECK_RC(wait_for(&inner, XC_WAIT_FIN, NULL, XC_FOREVER), XC_OK);
    CHECK_RC(state_of(&inner).ended_by.code, XC_EOF);
    xc_link_drop_chan(inner.link, item);
    xc_link_release(inner.link);
    xc_link_drop_chan(outer.link, chan);
    rig_close(&outer);
}

/* Without fds or memory nothing is left behind, and nothing is said. */
static void
a_link_that_cannot_be_made(void)
{
    struct rlimit old, few;
    rig outer = rig_open(false);
    xc_chan *chan = new_chan(&outer);
    xc_link_opts opts = rig_opts(false);
    xc_link *link = NULL;
    xc_err err;
    xc_status rc = XC_SYS;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    int fds = check_fds();
    for (int n = 0; n < 4; n++) {
        few = old;
        few.rlim_cur = (rlim_t)(fds + n + 3);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
        rc = xc_relay_link(outer.link, chan, &opts, &link, &err);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
        if (rc == XC_OK) {
            break;
        }
        CHECK_RC(rc, XC_SYS);
        CHECK_INT(err.sys_errno, EMFILE);
        CHECK_INT(check_fds(), fds);
    }
    if (rc == XC_OK) {
        xc_link_release(link);
        expect_frame(outer.from, XC_LAST_MESSAGE, chan->id, NULL, 0);
    }
    xc_link_drop_chan(outer.link, chan);
    rig_close(&outer);

    outer = rig_open(false);
    chan = new_chan(&outer);
    int n = 0;
    do {
        atomic_store(&check_allowed, n++);
        xc_set_alloc_hook(check_allow_some);
        rc = xc_relay_link(outer.link, chan, &opts, &link, &err);
        xc_set_alloc_hook(NULL);
        CHECK(rc == XC_OK || rc == XC_NOMEM);
    } while (rc != XC_OK);
    CHECK(n > 4);
    xc_link_release(link);
    expect_frame(outer.from, XC_LAST_MESSAGE, chan->id, NULL, 0);
    xc_link_drop_chan(outer.link, chan);
    rig_close(&outer);
}

/* --- many at once --------------------------------------------------------------------------------------------- */

enum { STREAMS = 12, ROUNDS = 200, WORDS = 3000 };

struct talker {
    pthread_t thread;
    int feed, sunk;
    unsigned who;
};

/* What it writes comes back to it. */
static void *
talk(void *arg)
{
    struct talker *it = arg;
    unsigned char out[WORDS], in[WORDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        fill_pattern(out, sizeof out, it->who, i);
        write_all(it->feed, out, sizeof out);
        CHECK(read_all(it->sunk, in, sizeof in));
        CHECK(memcmp(in, out, sizeof in) == 0);
    }
    close(it->feed);
    CHECK(!read_all(it->sunk, in, 1));
    close(it->sunk);
    return NULL;
}

/* The link's two ends are one and the same pipe. */
static void
many_streams_over_one_link(void)
{
    int loop[2];
    struct talker talkers[STREAMS];
    xc_chan *chans[STREAMS];
    xc_link_opts opts = rig_opts(false);
    xc_err err;
    CHECK_INT(pipe2(loop, O_CLOEXEC), 0);
    rig it = {.link = xc_link_new(&opts, loop[0], loop[1], &err)};
    CHECK(it.link != NULL);
    for (unsigned i = 0; i < STREAMS; i++) {
        int feed[2], sunk[2];
        chans[i] = new_chan(&it);
        CHECK(pipe2(feed, O_CLOEXEC) == 0 && pipe2(sunk, O_CLOEXEC) == 0);
        CHECK_RC(xc_relay_fds(it.link, chans[i], feed[0], sunk[1], &err), XC_OK);
        talkers[i] = (struct talker){.feed = feed[1], .sunk = sunk[0], .who = i};
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        CHECK_INT(pthread_create(&talkers[i].thread, NULL, talk, &talkers[i]), 0);
    }
    (void)wait_for(&it, XC_WAIT_CLOSE, chans[0], XC_FOREVER); /* reads beside the pump */
    for (unsigned i = 0; i < STREAMS; i++) {
        pthread_join(talkers[i].thread, NULL);
        xc_link_drop_chan(it.link, chans[i]);
    }
    xc_link_release(it.link);
}

int
main(void)
{
    check_io_begin("relay", 100);
    RUN_IO(each_direction_ends_for_itself);
    RUN_IO(a_close_ends_both);
    RUN_IO(the_other_direction_ends_with_a_close_or_the_link);
    RUN_IO(the_end_of_the_link_ends_both);
    RUN_IO(what_came_before_comes_first);
    RUN_IO(a_callback_does_not_hold_it_up);
    RUN_IO(anything_else_closes_the_stream);
    RUN_IO(lent_memory_is_given_back);
    RUN_IO(a_slow_link_holds_back_who_writes);
    RUN_IO(what_arrives_faster_is_kept);
    RUN_IO(nobody_reads_what_arrives);
    RUN_IO(a_link_over_a_stream);
    RUN_IO(a_link_that_cannot_be_made);
    RUN_IO(many_streams_over_one_link);
    return check_end();
}
