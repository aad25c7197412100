/*
 * Frames that are handed over to the writer, as greenlets do instead of waiting for the role: each is written in its
 * order, before whatever its sender sends next, and whoever hands one over is told where it was in vain.
 */
#include "writer_rig.h"

enum { CASE_SECONDS = 10, PROGRAM_SECONDS = 60 };

static void
hand_over(struct parcel *parcel, xc_status want)
{
    xc_err err = {.code = XC_OK};
    CHECK_RC(xc_writer_hand_over(&writer, &parcel->sending, &err), want);
    CHECK_RC(err.code, want);
    CHECK(!parcel->sending.mine);
    CHECK_INT(parcel->sending.n == 0, want == XC_OK);
    unpack(parcel);
}

/* With the role: a begun one, one that the rest of that stands before, and what is sent and posted behind them. */
static void
handed_over_with_the_role(void)
{
    struct parcel first, second, third;
    xc_err err;
    rig_open();
    begin(&first, 1);
    post(2, 0, SMALL, XC_OK);
    hand_over(&first, XC_OK);
    pack(&second, 3, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &second.sending, &err), XC_AGAIN);
    CHECK(second.sending.mine && !second.sending.started);
    hand_over(&second, XC_OK);
    post(4, 0, SMALL, XC_OK);
    pack(&third, 5, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &third.sending, &err), XC_AGAIN);
    hand_over(&third, XC_OK);
    xc_writer_end(&writer);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, SMALL);
    expect_parcel(3, 0, BIG);
    expect_parcel(4, 0, SMALL);
    expect_parcel(5, 0, SMALL);
    expect_goodbye(far);
    rig_close();
}

/* A thread that somebody else's frame keeps from writing. It tries, says so, and hands over when it is told to. */
struct handing {
    pthread_t thread;
    xc_status want;
    atomic_bool tried, may;
};

static void *
try_and_hand_over(void *arg)
{
    struct handing *handing = arg;
    struct parcel first, second;
    xc_err err;
    pack(&first, 2, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &first.sending, &err), XC_AGAIN);
    CHECK(!first.sending.mine);
    atomic_store(&handing->tried, true);
    AWAIT(atomic_load(&handing->may));
    hand_over(&first, handing->want);
    if (handing->want == XC_OK) { /* what it sends next comes next */
        pack(&second, 2, 1, SMALL);
        xc_status rc = xc_writer_try(&writer, &second.sending, &err);
        CHECK(rc == XC_OK || rc == XC_AGAIN);
        if (rc == XC_OK) {
            unpack(&second);
        }
        else {
            hand_over(&second, XC_OK);
        }
    }
    return NULL;
}

static void
start_handing(struct handing *handing, xc_status want)
{
    *handing = (struct handing){.want = want};
    CHECK_INT(pthread_create(&handing->thread, NULL, try_and_hand_over, handing), 0);
    AWAIT(atomic_load(&handing->tried));
}

static void
finish_handing(struct handing *handing)
{
    atomic_store(&handing->may, true);
    CHECK_INT(pthread_join(handing->thread, NULL), 0);
}

/* The frame that has the role goes on, then comes what was handed over. */
static void
handed_over_without_the_role(void)
{
    struct handing handing;
    struct parcel parcel;
    xc_err err;
    rig_open();
    begin(&parcel, 1);
    start_handing(&handing, XC_OK);
    finish_handing(&handing);
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, xc_after(XC_MS), &err), XC_TIMEOUT);
    hand_over(&parcel, XC_OK);
    post(3, 0, SMALL, XC_OK);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, BIG);
    expect_parcel(2, 1, SMALL);
    expect_parcel(3, 0, SMALL);
    rig_close();
}

/* The role is free again by then, and all is written: nobody but the pump is there to write it. */
static void
handed_over_when_all_is_quiet(void)
{
    struct handing handing;
    struct parcel parcel;
    rig_open();
    alarm(CASE_SECONDS);
    begin(&parcel, 1);
    start_handing(&handing, XC_OK);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    expect_parcel(1, 0, BIG);
    for (bool idle = false; !idle;) {
        xc_lock(&writer.mu);
        idle = !writer.writing && xc_buf_size(&writer.flight) == 0;
        xc_unlock(&writer.mu);
    }
    finish_handing(&handing);
    expect_parcel(2, 0, BIG);
    expect_parcel(2, 1, SMALL);
    alarm(PROGRAM_SECONDS);
    rig_close();
}

/* Two frames of one thread, as of two greenlets: the second one makes the first one's rest be kept. */
static void
handed_over_one_inside_another(void)
{
    struct parcel outer, inner;
    xc_err err;
    rig_open();
    begin(&outer, 1);
    pack(&inner, 2, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &inner.sending, &err), XC_AGAIN);
    CHECK(inner.sending.mine && !outer.sending.mine);
    hand_over(&outer, XC_OK); /* it has been kept: nothing is left to hand over */
    CHECK(inner.sending.mine);
    hand_over(&inner, XC_OK);
    xc_writer_end(&writer);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, BIG);
    expect_goodbye(far);
    rig_close();
}

/* What has the role was taken before the end and goes out. What has not is refused. */
static void
handed_over_at_the_end(void)
{
    struct handing handing;
    struct parcel parcel;
    rig_open();
    begin(&parcel, 1);
    start_handing(&handing, XC_CLOSED);
    xc_writer_end(&writer);
    finish_handing(&handing);
    hand_over(&parcel, XC_OK);
    expect_parcel(1, 0, BIG);
    expect_goodbye(far);
    rig_close();
}

static void *
read_to_the_goodbye(void *arg)
{
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, SMALL);
    expect_goodbye(far);
    return arg;
}

/* The same with one that was not begun, because the rest of another one stands before it: however it goes on, it goes
 * out before the goodbye. */
static void
not_begun_at_the_end(void)
{
    enum { HANDED_OVER, SPILLED, SPILLED_BY_ANOTHER, SENT, WAYS };
    for (int way = 0; way < WAYS; way++) {
        struct parcel first, second;
        pthread_t reader;
        xc_err err;
        rig_open();
        begin(&first, 1);
        xc_writer_spill(&writer, &first.sending);
        unpack(&first);
        pack(&second, 2, 0, SMALL);
        CHECK_RC(xc_writer_try(&writer, &second.sending, &err), XC_AGAIN);
        CHECK(second.sending.mine && !second.sending.started);
        xc_writer_end(&writer);
        if (way == HANDED_OVER) {
            hand_over(&second, XC_OK);
        }
        else if (way == SENT) {
            CHECK_INT(pthread_create(&reader, NULL, read_to_the_goodbye, NULL), 0);
            CHECK_RC(xc_writer_send_nogil(&writer, &second.sending, XC_FOREVER, &err), XC_OK);
            unpack(&second);
            CHECK_INT(pthread_join(reader, NULL), 0);
        }
        else {
            if (way == SPILLED_BY_ANOTHER) { /* a long message from a signal handler, which is refused then */
                struct parcel third;
                pack(&third, 3, 0, SMALL);
                third.sending.polite = true;
                CHECK_RC(xc_writer_send_nogil(&writer, &third.sending, XC_FOREVER, &err), XC_CLOSED);
                unpack(&third);
            }
            xc_writer_spill(&writer, &second.sending);
            unpack(&second);
        }
        if (way != SENT) {
            (void)read_to_the_goodbye(NULL);
        }
        rig_close();
    }
}

/* A connection that is broken by then takes neither, and says why. */
static void
handed_over_to_nobody(void)
{
    struct handing handing;
    struct parcel parcel;
    xc_err why;
    rig_open();
    begin(&parcel, 1);
    start_handing(&handing, XC_EOF);
    (void)xc_fail(&why, XC_EOF, 0, "read");
    xc_writer_break(&writer, &why);
    finish_handing(&handing);
    CHECK(!writer.closed); /* its fd is still in use: a frame has the role */
    hand_over(&parcel, XC_EOF);
    CHECK(writer.closed && !writer.writing);
    CHECK_INT(xc_buf_size(&writer.flight) + xc_buf_size(&writer.outbox), 0);
    rig_close();
}

static void
hand_over_without_memory(struct parcel *parcel)
{
    xc_set_alloc_hook(check_allow_some);
    atomic_store(&check_allowed, 0);
    hand_over(parcel, XC_NOMEM);
    xc_set_alloc_hook(NULL);
}

static void *
hand_over_in_vain(void *arg)
{
    struct parcel parcel;
    xc_err err;
    pack(&parcel, 2, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &parcel.sending, &err), XC_AGAIN);
    hand_over_without_memory(&parcel);
    return arg;
}

/* What was not begun is not sent, and nothing else is harmed. The rest of a begun frame is lost with the connection. */
static void
handed_over_without_memory(void)
{
    struct parcel first, second;
    pthread_t other;
    xc_err err;
    rig_open();
    begin(&first, 1);
    CHECK_INT(pthread_create(&other, NULL, hand_over_in_vain, NULL), 0);
    CHECK_INT(pthread_join(other, NULL), 0);
    CHECK(first.sending.mine);
    hand_over(&first, XC_OK);
    pack(&second, 3, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &second.sending, &err), XC_AGAIN);
    CHECK(second.sending.mine && !second.sending.started);
    hand_over_without_memory(&second);
    post(4, 0, SMALL, XC_OK);
    expect_parcel(1, 0, BIG);
    expect_parcel(4, 0, SMALL);
    begin(&first, 5);
    hand_over_without_memory(&first);
    CHECK(writer.closed);
    post(6, 0, SMALL, XC_NOMEM);
    rig_close();
}

/* Full is what many frames make that were handed over, until the far end has read; a broken connection is not. */
static void
full_of_frames(void)
{
    enum { FRAMES = 3 };
    for (int broken = 0; broken < 2; broken++) {
        struct parcel parcel;
        xc_err err = {.code = XC_EOF, .step = "test"};
        rig_open();
        CHECK(!xc_writer_is_full(&writer));
        begin(&parcel, 0);
        CHECK(!xc_writer_is_full(&writer)); /* its sender has it yet */
        hand_over(&parcel, XC_OK);
        for (unsigned i = 1; i < FRAMES; i++) {
            pack(&parcel, i, 0, BIG);
            CHECK_RC(xc_writer_try(&writer, &parcel.sending, &err), XC_AGAIN);
            hand_over(&parcel, XC_OK);
            CHECK(xc_writer_is_full(&writer));
        }
        if (broken) {
            err.code = XC_EOF;
            xc_writer_break(&writer, &err);
        }
        for (unsigned i = 0; !broken && i < FRAMES; i++) {
            expect_parcel(i, 0, BIG);
        }
        CHECK(!xc_writer_is_full(&writer));
        rig_close();
    }
}

static int64_t
told(int fd)
{
    uint64_t number = 0;
    ssize_t got = read(fd, &number, sizeof number);
    return got == sizeof number ? (int64_t)number : -1;
}

/* Whoever waits for room without a thread is told once all is out, or nothing ever will be; not who has forgotten it.
 */
static void
room_is_written_to_an_fd(void)
{
    enum { FRAMES = 3 };
    for (int broken = 0; broken < 2; broken++) {
        struct parcel parcel;
        xc_err err = {.code = XC_EOF, .step = "test"};
        int fds[2];
        CHECK_INT(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        xc_room rooms[3] = {{.fd = fds[1], .number = 7}, {.fd = fds[1], .number = 8}, {.fd = fds[1], .number = 9}};
        rig_open();
        CHECK(!xc_writer_notify_room(&writer, &rooms[0]));
        CHECK(xc_writer_room_over(&writer, &rooms[0]));
        for (unsigned i = 0; i < FRAMES; i++) {
            pack(&parcel, i, 0, BIG);
            CHECK_RC(xc_writer_send_soon(&writer, &parcel.sending, &err), XC_OK);
            unpack(&parcel);
        }
        for (int i = 0; i < 3; i++) {
            AWAIT(xc_writer_notify_room(&writer, &rooms[i])); /* what the pump has in hand just now does not count */
        }
        xc_writer_forget_room(&writer, &rooms[1]);
        CHECK_INT(told(fds[0]), -1);
        CHECK(!xc_writer_room_over(&writer, &rooms[0]));
        if (broken) {
            xc_writer_break(&writer, &err);
        }
        for (unsigned i = 0; !broken && i < FRAMES; i++) {
            expect_parcel(i, 0, BIG);
        }
        AWAIT(xc_writer_room_over(&writer, &rooms[0]) && xc_writer_room_over(&writer, &rooms[2]));
        CHECK_INT(told(fds[0]) + told(fds[0]), 7 + 9);
        CHECK_INT(told(fds[0]), -1);
        xc_writer_forget_room(&writer, &rooms[0]);
        if (broken) {
            pack(&parcel, 1, 0, BIG);
            CHECK_RC(xc_writer_send_soon(&writer, &parcel.sending, &err), XC_EOF);
            unpack(&parcel);
        }
        rig_close();
        close(fds[0]);
        close(fds[1]);
    }
}

int
main(void)
{
    check_io_begin("writer_handed", PROGRAM_SECONDS);
    RUN_IO(handed_over_with_the_role);
    RUN_IO(handed_over_without_the_role);
    RUN_IO(handed_over_when_all_is_quiet);
    RUN_IO(handed_over_one_inside_another);
    RUN_IO(handed_over_at_the_end);
    RUN_IO(not_begun_at_the_end);
    RUN_IO(handed_over_to_nobody);
    RUN_IO(handed_over_without_memory);
    RUN_IO(full_of_frames);
    RUN_IO(room_is_written_to_an_fd);
    return check_end();
}
