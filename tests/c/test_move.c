/*
 * A link moves from its fds onto rings: whoever moves first, whoever reads then, with a full pipe before it; moves that
 * nobody offered; and ends between the two sides' moves.
 */
#include "link_rig.h"

enum { PROGRAM_SECONDS = 60, TWO_SIDED_ROUNDS = 200, TWO_SIDED_ITEMS = 50 };

/* A link that begins with fds, and the far end's side of what is offered to it. */
typedef struct {
    rig fds;
    xc_region far;
} mover;

static mover
mover_open(bool offers)
{
    xc_link_opts opts = rig_opts(false);
    opts.marked = true; /* no rings from birth */
    mover it = {.fds = rig_open_with(opts), .far = {.fd = -1}};
    write_all(it.fds.to, XC_MARKER, XC_MARKER_SIZE);
    if (offers) {
        xc_region region;
        xc_err err;
        CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_OK);
        CHECK_RC(xc_region_attach(dup(region.fd), &it.far, &err), XC_OK);
        it.far.in.notify_fd = it.far.out.notify_fd = it.fds.to;
        CHECK(xc_link_offer(it.fds.link, &region));
    }
    return it;
}

static void
mover_close(mover *it)
{
    rig_close(&it->fds);
    xc_region_close(&it->far);
}

static void
far_moves(mover *it)
{
    rig_send(&it->fds, XC_MOVE, 0, NULL, 0);
}

static void
check_ended(mover *it, xc_status code, const char *detail)
{
    await_fin(&it->fds);
    CHECK_RC(state_of(&it->fds).ended_by.code, code);
    CHECK(strstr(state_of(&it->fds).ended_by.detail, detail) != NULL);
}

static void
a_move_that_nobody_offered(void)
{
    mover it = mover_open(false);
    far_moves(&it);
    check_ended(&it, XC_BAD, "memory that nobody had offered");
    mover_close(&it);
}

static void
a_move_has_no_payload(void)
{
    mover it = mover_open(false);
    rig_send(&it.fds, XC_MOVE, 0, "x", 1);
    check_ended(&it, XC_BAD, "wrong payload length in 0c");
    mover_close(&it);
}

#if XC_HAS_RING

static bool
has_rings(mover *it)
{
    return state_of(&it->fds).rings;
}

/* Waits for room. */
static void
ring_put(mover *it, const void *bytes, size_t n)
{
    size_t put = 0;
    for (const char *at = bytes; n > 0; at += put, n -= put) {
        struct iovec part = {.iov_base = (void *)at, .iov_len = n};
        xc_status rc = xc_ring_write(&it->far.out, &part, 1, &put, NULL);
        CHECK(rc == XC_OK || rc == XC_AGAIN);
        if (rc == XC_AGAIN) {
            (void)xc_ring_sleep_nogil(&it->far.out, xc_bell_mine(), xc_after(5 * XC_MS));
        }
    }
}

static void
ring_send_int(mover *it, uint32_t chan, uint32_t value)
{
    unsigned char payload[6];
    wire frame = {NULL, 0, 0};
    wire_add(&frame, XC_DATA, chan, payload, put_int(payload, value));
    ring_put(it, frame.data, frame.n);
    wire_free(&frame);
}

static void
ring_get(mover *it, void *into, size_t n)
{
    size_t got = 0;
    for (char *at = into; n > 0; at += got, n -= got) {
        xc_status rc = xc_ring_read(&it->far.in, at, n, &got, NULL);
        CHECK(rc == XC_OK || rc == XC_AGAIN);
        if (rc == XC_AGAIN) {
            (void)xc_ring_sleep_nogil(&it->far.in, xc_bell_mine(), xc_after(5 * XC_MS));
        }
    }
}

static void
ring_expect_frame(mover *it, int code, uint32_t chan)
{
    unsigned char header[XC_HEADER_SIZE];
    xc_frame frame;
    xc_err err;
    ring_get(it, header, sizeof header);
    CHECK_RC(xc_frame_unpack(header, &frame, &err), XC_OK);
    CHECK_INT(frame.code, code);
    CHECK_INT(frame.chan, chan);
    CHECK_INT(frame.size, 0);
}

static void
link_moves(mover *it)
{
    xc_err err;
    CHECK_RC(xc_link_move_nogil(it->fds.link, &err), XC_OK);
    expect_frame(it->fds.from, XC_MOVE, 0, NULL, 0);
}

/* An item each way. What is waited for comes whether a thread waits or the pump has to see to it. */
static void
check_talk(mover *it, xc_chan *chan, bool waits)
{
    ring_send_int(it, chan->id, 7);
    if (!waits) {
        AWAIT(is_ready(&it->fds, XC_WAIT_ITEM, chan));
    }
    expect_int(&it->fds, chan, 7);
    CHECK_RC(xc_link_post(it->fds.link, XC_LAST_MESSAGE, chan->id, NULL, 0), XC_OK);
    ring_expect_frame(it, XC_LAST_MESSAGE, chan->id);
}

static void
either_side_first(void)
{
    for (int n = 0; n < 4; n++) {
        mover it = mover_open(true);
        xc_chan *chan = new_chan(&it.fds);
        send_int(&it.fds, chan->id, 1); /* before the move, through the pipe */
        if (n & 1) {
            far_moves(&it);
            link_moves(&it);
        }
        else {
            link_moves(&it);
            far_moves(&it);
        }
        ring_send_int(&it, chan->id, 2);
        expect_int(&it.fds, chan, 1);
        expect_int(&it.fds, chan, 2);
        CHECK(has_rings(&it));
        for (int i = 0; i < 20; i++) {
            check_talk(&it, chan, n & 2);
        }
        xc_link_drop_chan(it.fds.link, chan);
        mover_close(&it);
    }
}

/* Frames, the move and notifications behind it come in one go, cut anywhere; what follows is in the ring already. */
static void
notifications_behind_the_move(void)
{
    static const unsigned char notifications[3];
    unsigned char payload[6];
    for (size_t cut = 0; cut <= XC_HEADER_SIZE + 6 + XC_HEADER_SIZE + sizeof notifications; cut++) {
        mover it = mover_open(true);
        xc_chan *chan = new_chan(&it.fds);
        wire stream = {NULL, 0, 0};
        wire_add(&stream, XC_DATA, chan->id, payload, put_int(payload, 1));
        wire_add(&stream, XC_MOVE, 0, NULL, 0);
        memcpy(wire_room(&stream, sizeof notifications), notifications, sizeof notifications);
        ring_send_int(&it, chan->id, 2);
        write_all(it.fds.to, stream.data, cut);
        if (cut % 2 == 0) {
            CHECK(wait_for(&it.fds, XC_WAIT_CLOSE, chan, xc_after(XC_MS)) == XC_TIMEOUT);
        }
        write_all(it.fds.to, stream.data + cut, stream.n - cut);
        expect_int(&it.fds, chan, 1);
        expect_int(&it.fds, chan, 2);
        CHECK_INT(xc_link_preamble(it.fds.link, NULL, 0), 0);
        wire_free(&stream);
        xc_link_drop_chan(it.fds.link, chan);
        mover_close(&it);
    }
}

static void *
take_two(void *arg)
{
    mover *it = arg;
    xc_chan *chan = chan_of(&it->fds, 1);
    expect_int(&it->fds, chan, 1);
    expect_int(&it->fds, chan, 2);
    xc_link_drop_chan(it->fds.link, chan);
    return NULL;
}

/* A thread that sleeps at the pipe goes on at the ring. */
static void
a_sleeper_moves(void)
{
    mover it = mover_open(true);
    xc_chan *chan = new_chan(&it.fds);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, take_two, &it) == 0);
    await_reader(&it.fds);
    check_pause_ms(10);
    far_moves(&it);
    ring_send_int(&it, chan->id, 1);
    check_pause_ms(10);
    ring_send_int(&it, chan->id, 2);
    CHECK(pthread_join(thread, NULL) == 0);
    xc_link_drop_chan(it.fds.link, chan);
    mover_close(&it);
}

static void *
move_it(void *arg)
{
    mover *it = arg;
    xc_err err;
    CHECK_RC(xc_link_move_nogil(it->fds.link, &err), XC_OK);
    return NULL;
}

/* What was handed over before goes out before the move, what comes later behind it. */
static void
behind_a_full_pipe(void)
{
    enum { POSTS = 300 };
    static const unsigned char payload[8000];
    mover it = mover_open(true);
    pthread_t thread;
    wire frame = {NULL, 0, 0};
    wire_add(&frame, XC_DATA, 1, payload, sizeof payload);
    for (int i = 0; i < POSTS; i++) {
        CHECK_RC(xc_writer_post(&it.fds.link->writer, frame.data, frame.n), XC_OK);
    }
    CHECK(pthread_create(&thread, NULL, move_it, &it) == 0);
    check_pause_ms(20);
    for (int i = 0; i < POSTS; i++) {
        expect_frame(it.fds.from, XC_DATA, 1, payload, sizeof payload);
    }
    expect_frame(it.fds.from, XC_MOVE, 0, NULL, 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_RC(xc_link_post(it.fds.link, XC_CLOSE, 3, NULL, 0), XC_OK);
    ring_expect_frame(&it, XC_CLOSE, 3);
    wire_free(&frame);
    mover_close(&it);
}

/* Room was made in a full ring: the notification for that came with the move. */
static void
a_notification_with_the_move(void)
{
    enum { POSTS = 3, SIZE = XC_RING_SIZE / 2, ALL = POSTS * (XC_HEADER_SIZE + SIZE) };
    static const unsigned char payload[SIZE];
    static unsigned char got[ALL];
    mover it = mover_open(true);
    wire frame = {NULL, 0, 0}, stream = {NULL, 0, 0};
    link_moves(&it);
    wire_add(&frame, XC_DATA, 1, payload, SIZE);
    for (int i = 0; i < POSTS; i++) {
        CHECK_RC(xc_writer_post(&it.fds.link->writer, frame.data, frame.n), XC_OK);
    }
    AWAIT(xc_ring_filled(&it.far.in) == XC_RING_SIZE);
    AWAIT(atomic_load(&it.far.in.other->sleeps) == XC_RING_PUMP);
    stop_pump();
    it.far.in.notify_fd = -1; /* the notification comes with the move instead */
    ring_get(&it, got, XC_RING_SIZE);
    CHECK_INT(atomic_load(&it.far.in.other->sleeps), XC_RING_AWAKE);
    wire_add(&stream, XC_MOVE, 0, NULL, 0);
    *wire_room(&stream, 1) = 0;
    write_all(it.fds.to, stream.data, stream.n);
    let_pump_go();
    ring_get(&it, got, ALL - XC_RING_SIZE);
    wire_free(&frame);
    wire_free(&stream);
    mover_close(&it);
}

/* --- what breaks the rules ------------------------------------------------------------------------------------- */

static void
moves_that_are_not_expected(void)
{
    mover it = mover_open(true);
    xc_link_withdraw(it.fds.link);
    xc_link_withdraw(it.fds.link);
    far_moves(&it);
    check_ended(&it, XC_BAD, "memory that nobody had offered");
    mover_close(&it);
    it = mover_open(true);
    wire twice = {NULL, 0, 0};
    wire_add(&twice, XC_MOVE, 0, NULL, 0);
    far_moves(&it);
    ring_put(&it, twice.data, twice.n);
    wire_free(&twice);
    check_ended(&it, XC_BAD, "memory that nobody had offered");
    mover_close(&it);
}

/* Of this side's own. */
static void
offers_and_moves_out_of_turn(void)
{
    mover it = mover_open(true);
    xc_region region;
    xc_err err;
    CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_OK);
    CHECK(!xc_link_offer(it.fds.link, &region));
    CHECK(region.map == NULL);
    xc_link_withdraw(it.fds.link);
    CHECK_RC(xc_link_move_nogil(it.fds.link, &err), XC_BAD);
    mover_close(&it);
}

static void
a_withdrawn_link_goes_on(void)
{
    mover it = mover_open(true);
    xc_chan *chan = new_chan(&it.fds);
    xc_link_withdraw(it.fds.link);
    send_int(&it.fds, chan->id, 1);
    expect_int(&it.fds, chan, 1);
    CHECK(!has_rings(&it));
    xc_link_goodbye(it.fds.link);
    expect_frame(it.fds.from, XC_TERMINATE, 0, NULL, 0);
    expect_end(it.fds.from);
    xc_link_drop_chan(it.fds.link, chan);
    mover_close(&it);
}

/* --- ends ------------------------------------------------------------------------------------------------------- */

/* The far end alone has moved: its pump is notified through a fd that must be ours until the end. */
static void
goodbye_between_the_moves(void)
{
    static unsigned char much[XC_RING_SIZE + 1000];
    unsigned char byte = 1;
    size_t put = 0;
    mover it = mover_open(true);
    xc_chan *chan = new_chan(&it.fds);
    far_moves(&it);
    AWAIT(has_rings(&it));
    xc_link_goodbye(it.fds.link);
    expect_frame(it.fds.from, XC_TERMINATE, 0, NULL, 0);
    wire stream = {NULL, 0, 0};
    wire_add(&stream, XC_DATA, chan->id, much, sizeof much);
    stop_pump();
    struct iovec part = {.iov_base = stream.data, .iov_len = stream.n};
    CHECK_RC(xc_ring_write(&it.far.out, &part, 1, &put, NULL), XC_OK);
    CHECK(put < stream.n && xc_ring_arm(&it.far.out));
    let_pump_go();
    CHECK(read_all(it.fds.from, &byte, 1));
    CHECK_INT(byte, 0);
    ring_put(&it, stream.data + put, stream.n - put);
    xc_msg *msg = take(&it.fds, chan);
    CHECK(msg != NULL);
    CHECK_INT(msg->size, sizeof much);
    xc_link_free_msg(it.fds.link, msg);
    rig_hang_up(&it.fds);
    await_fin(&it.fds);
    wire_free(&stream);
    xc_link_drop_chan(it.fds.link, chan);
    mover_close(&it);
}

static void
gone_between_the_moves(void)
{
    for (int n = 0; n < 2; n++) {
        mover it = mover_open(true);
        xc_chan *chan = new_chan(&it.fds);
        xc_err err;
        if (n == 0) {
            far_moves(&it);
            AWAIT(has_rings(&it));
        }
        else {
            link_moves(&it);
        }
        rig_hang_up(&it.fds);
        CHECK_RC(wait_for(&it.fds, XC_WAIT_CLOSE, chan, XC_FOREVER), XC_OK);
        CHECK_RC(state_of(&it.fds).ended_by.code, XC_EOF);
        CHECK_RC(xc_link_move_nogil(it.fds.link, &err), XC_EOF);
        xc_link_drop_chan(it.fds.link, chan);
        mover_close(&it);
    }
}

/* --- two links ---------------------------------------------------------------------------------------------------- */

typedef struct {
    xc_link *link;
    xc_chan *chan;
} side;

/* Moves, sends and receives, beside the other side. */
static void *
run_side(void *arg)
{
    side *it = arg;
    unsigned char payload[6];
    xc_err err;
    CHECK_RC(xc_link_move_nogil(it->link, &err), XC_OK);
    for (uint32_t i = 0; i < TWO_SIDED_ITEMS; i++) {
        size_t n = put_int(payload, i);
        CHECK_RC(xc_link_post(it->link, XC_DATA, it->chan->id, payload, n), XC_OK);
        if (i % 3 == 0) {
            rig only = {.link = it->link};
            expect_int(&only, it->chan, i / 3);
        }
    }
    return NULL;
}

static void
both_at_once(void)
{
    for (int i = 0; i < TWO_SIDED_ROUNDS; i++) {
        int there[2], back[2];
        xc_err err;
        xc_region region, attached;
        side sides[2];
        pthread_t threads[2];
        xc_link_opts opts = rig_opts(false);
        CHECK(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0);
        CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_OK);
        CHECK_RC(xc_region_attach(dup(region.fd), &attached, &err), XC_OK);
        sides[0].link = xc_link_new(&opts, back[0], there[1], &err);
        sides[1].link = xc_link_new(&opts, there[0], back[1], &err);
        CHECK(sides[0].link != NULL && sides[1].link != NULL);
        CHECK(xc_link_offer(sides[0].link, &region) && xc_link_offer(sides[1].link, &attached));
        for (int n = 0; n < 2; n++) { /* both first: an item for a channel that nobody has is dropped */
            CHECK_RC(xc_link_chan(sides[n].link, 1, &sides[n].chan, &err), XC_OK);
        }
        for (int n = 0; n < 2; n++) {
            CHECK(pthread_create(&threads[n], NULL, run_side, &sides[n]) == 0);
        }
        for (int n = 0; n < 2; n++) {
            CHECK(pthread_join(threads[n], NULL) == 0);
        }
        for (int n = 0; n < 2; n++) {
            xc_link_state state;
            xc_link_get_state(sides[n].link, &state);
            CHECK(state.rings);
        }
        for (int n = 0; n < 2; n++) {
            xc_link_drop_chan(sides[n].link, sides[n].chan);
            xc_link_release(sides[n].link);
        }
    }
}

#endif

int
main(void)
{
    check_io_begin("move", PROGRAM_SECONDS);
    RUN_IO(a_move_that_nobody_offered);
    RUN_IO(a_move_has_no_payload);
#if XC_HAS_RING
    RUN_IO(either_side_first);
    RUN_IO(notifications_behind_the_move);
    RUN_IO(a_sleeper_moves);
    RUN_IO(behind_a_full_pipe);
    RUN_IO(a_notification_with_the_move);
    RUN_IO(offers_and_moves_out_of_turn);
    RUN_IO(moves_that_are_not_expected);
    RUN_IO(a_withdrawn_link_goes_on);
    RUN_IO(goodbye_between_the_moves);
    RUN_IO(gone_between_the_moves);
    RUN_IO(both_at_once);
#endif
    return check_end();
}
