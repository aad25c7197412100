/*
 * Reading a link and waiting at it: frames cut anywhere, many threads that share the reader role, every kind of end.
 *
 * What keeps the role from hanging is tested by cases whose waiters have no deadline: without the hand-on, or without
 * one of the wake-ups, a waiter sleeps for ever and the alarm of the case ends the program (`make run-mutants` takes
 * each of them away and sees that it does). Where the pump could come to the rescue, the case holds the role
 * meanwhile, so that it can not.
 */
#include "link_rig.h"

enum { CASE_SECONDS = 10, PROGRAM_SECONDS = 100 };

/* --- the reader role ------------------------------------------------------------------------------------------ */

struct waiter {
    pthread_t thread;
    rig *it;
    xc_chan *chan;
    xc_wait_kind kind;
    int64_t until;
    xc_status rc;
};

static void *
wait_once(void *arg)
{
    struct waiter *waiter = arg;
    waiter->rc = wait_for(waiter->it, waiter->kind, waiter->chan, waiter->until);
    return NULL;
}

static void
start(struct waiter *waiter, rig *it, xc_wait_kind kind, xc_chan *chan)
{
    waiter->it = it;
    waiter->kind = kind;
    waiter->chan = chan;
    waiter->until = XC_FOREVER;
    CHECK_INT(pthread_create(&waiter->thread, NULL, wait_once, waiter), 0);
}

static void
finish(struct waiter *waiter)
{
    CHECK_INT(pthread_join(waiter->thread, NULL), 0);
    CHECK_RC(waiter->rc, XC_OK);
}

enum { LINE = 8 };

static void
start_line(struct waiter *line, rig *it, xc_chan **chans)
{
    for (int i = 0; i < LINE; i++) {
        chans[i] = new_chan(it);
        start(&line[i], it, XC_WAIT_ITEM, chans[i]);
        await_waiters(it, i + 1);
    }
    await_reader(it);
}

static void
drop_line(rig *it, xc_chan **chans)
{
    for (int i = 0; i < LINE; i++) {
        xc_link_drop_chan(it->link, chans[i]);
    }
}

/* Each reader leaves with its own item: the next one of the line reads, down to the last. */
static void
the_role_is_handed_on(void)
{
    struct waiter line[LINE];
    xc_chan *chans[LINE];
    rig it = rig_open(false);
    alarm(CASE_SECONDS);
    start_line(line, &it, chans);
    for (int i = 0; i < LINE; i++) {
        send_int(&it, chans[i]->id, (uint32_t)i);
        finish(&line[i]);
    }
    alarm(PROGRAM_SECONDS);
    drop_line(&it, chans);
    rig_close(&it);
}

/* A reader that leaves because its time is up hands on just so. */
static void
a_timeout_hands_on(void)
{
    struct waiter hurried, patient;
    rig it = rig_open(false);
    xc_chan *one = new_chan(&it), *two = new_chan(&it);
    alarm(CASE_SECONDS);
    hurried = (struct waiter){.it = &it, .kind = XC_WAIT_ITEM, .chan = one, .until = xc_after(100 * XC_MS)};
    CHECK_INT(pthread_create(&hurried.thread, NULL, wait_once, &hurried), 0);
    await_reader(&it);
    start(&patient, &it, XC_WAIT_ITEM, two);
    CHECK_INT(pthread_join(hurried.thread, NULL), 0);
    CHECK_RC(hurried.rc, XC_TIMEOUT);
    send_int(&it, two->id, 2);
    finish(&patient);
    alarm(PROGRAM_SECONDS);
    xc_link_drop_chan(it.link, one);
    xc_link_drop_chan(it.link, two);
    rig_close(&it);
}

/* The reader stays, as nothing comes for it, and wakes the others one after the other with what it reads for them. */
static void
the_reader_wakes_the_others(void)
{
    struct waiter line[LINE];
    xc_chan *chans[LINE];
    rig it = rig_open(false);
    alarm(CASE_SECONDS);
    start_line(line, &it, chans);
    for (int i = LINE - 1; i >= 0; i--) {
        send_int(&it, chans[i]->id, (uint32_t)i);
        finish(&line[i]);
    }
    alarm(PROGRAM_SECONDS);
    drop_line(&it, chans);
    rig_close(&it);
}

/* When the stream ends, the one that reads and all that sleep are told. */
static void
the_end_wakes_everybody(void)
{
    static const xc_wait_kind kinds[] = {XC_WAIT_ITEM, XC_WAIT_CLOSE, XC_WAIT_FIN,     XC_WAIT_HELLO,
                                         XC_WAIT_TASK, XC_WAIT_GONE,  XC_WAIT_BACKLOG, XC_WAIT_TASK_SPARE};
    for (int reader = 0; reader < 2; reader++) {
        struct waiter waiters[8];
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        alarm(CASE_SECONDS);
        for (int i = 0; i < 8; i++) {
            start(&waiters[i], &it, kinds[reader == 0 ? i : 7 - i], chan);
        }
        await_reader(&it);
        await_waiters(&it, 7); /* GONE holds from the start: there is no process */
        rig_hang_up(&it);
        for (int i = 0; i < 8; i++) {
            finish(&waiters[i]);
        }
        alarm(PROGRAM_SECONDS);
        CHECK_RC(state_of(&it).ended_by.code, XC_EOF);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* --- timeouts, signals, the pump ------------------------------------------------------------------------ */

static void
do_nothing(int sig)
{
    (void)sig;
}

static void
a_signal_ends_a_wait(void)
{
    struct sigaction quiet = {.sa_handler = do_nothing};
    struct waiter waiters[2];
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    CHECK_INT(sigaction(SIGUSR1, &quiet, NULL), 0);
    for (int i = 0; i < 2; i++) { /* one reads, one sleeps */
        start(&waiters[i], &it, XC_WAIT_ITEM, chan);
    }
    await_waiters(&it, 2);
    await_reader(&it);
    for (int i = 0; i < 2; i++) {
        /* Until it was asleep when the signal came. */
        while (count_waiters(&it) > 1 - i) {
            pthread_kill(waiters[i].thread, SIGUSR1);
            check_pause_ms(2);
        }
        CHECK_INT(pthread_join(waiters[i].thread, NULL), 0);
        CHECK_RC(waiters[i].rc, XC_INTR);
    }
    send_int(&it, chan->id, 1);
    expect_int(&it, chan, 1);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* A link that nobody reads, from the start, after a reader left, and over and over. */
static void
the_pump_reads_what_nobody_reads(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    for (uint32_t i = 0; i < 30; i++) {
        if (i % 3 == 1) {
            CHECK_RC(wait_for(&it, XC_WAIT_ITEM, chan, 0), XC_TIMEOUT);
        }
        send_int(&it, chan->id, i);
        AWAIT(is_ready(&it, XC_WAIT_ITEM, chan));
        expect_int(&it, chan, i);
    }
    /* More than the pipe and the buffers hold: the sender never blocks for good. */
    wire large = {NULL, 0, 0};
    wire_add_pattern(&large, chan->id, 8 << 20, 7);
    rig_send_wire(&it, &large);
    rig_send_wire(&it, &large);
    expect_pattern(&it, chan, 8 << 20, 7);
    expect_pattern(&it, chan, 8 << 20, 7);
    wire_free(&large);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- floods ----------------------------------------------------------------------------------------------------- */

struct flood {
    int to;
    wire frames;
    atomic_bool over;
    pthread_t thread;
};

static void *
pour(void *arg)
{
    struct flood *flood = arg;
    while (!atomic_load(&flood->over)) {
        write_all(flood->to, flood->frames.data, flood->frames.n);
    }
    return NULL;
}

/* What comes without end is for nobody here. A waiter that looked at nothing else would wait until the alarm. */
static void
flooded(size_t payload)
{
    struct flood flood = {.frames = {NULL, 0, 0}};
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    alarm(CASE_SECONDS);
    for (unsigned seq = 0; flood.frames.n < 100000; seq++) {
        wire_add_pattern(&flood.frames, 9001, payload, seq);
    }
    flood.to = it.to;
    CHECK_INT(pthread_create(&flood.thread, NULL, pour, &flood), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_RC(wait_for(&it, XC_WAIT_ITEM, chan, xc_after(20 * XC_MS)), XC_TIMEOUT);
        CHECK_RC(wait_for(&it, XC_WAIT_FIN, NULL, xc_after(20 * XC_MS)), XC_TIMEOUT);
        CHECK_RC(wait_for(&it, XC_WAIT_CLOSE, chan, 0), XC_TIMEOUT);
    }
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = chan, .until = XC_FOREVER, .no_spin = true, .signals = true};
    size_t space;
    xc_status rc = xc_link_wait_nogil(it.link, &wait, &space);
    CHECK(rc == XC_INTR || rc == XC_TIMEOUT); /* the latter where the flood had a pause just then */
    atomic_store(&flood.over, true);
    CHECK_INT(pthread_join(flood.thread, NULL), 0);
    send_int(&it, chan->id, 7);
    expect_int(&it, chan, 7);
    alarm(PROGRAM_SECONDS);
    wire_free(&flood.frames);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
a_flood_keeps_no_waiter(void)
{
    flooded(0);
    flooded(10);
    flooded(3000);
    flooded(200000);
}

/* --- the far end's process is gone ---------------------------------------------------------------------------- */

/* Somebody else holds the pipe open (here: the test), so no end of file comes. */
static void
peer_gone(bool with_reader)
{
    struct waiter reader, other;
    wire stream = {NULL, 0, 0};
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *silent = new_chan(&it);
    xc_link_owns_peer(it.link);
    alarm(CASE_SECONDS);
    CHECK(!is_ready(&it, XC_WAIT_GONE, NULL));
    if (with_reader) {
        start(&reader, &it, XC_WAIT_CLOSE, silent);
        await_reader(&it);
        start(&other, &it, XC_WAIT_GONE, NULL);
        await_waiters(&it, 2);
    }
    wire_add_pattern(&stream, chan->id, 300000, 0);
    wire_add_pattern(&stream, chan->id, 300000, 1);
    wire_add_pattern(&stream, chan->id, 10, 2);
    rig_send_wire(&it, &stream);
    if (with_reader) {
        /* It has read all of it and sleeps: nothing but being rung ends that. */
        for (size_t n = 0; n < 3;) {
            check_pause_ms(1);
            xc_lock(&it.link->mu);
            n = chan->items.count;
            xc_unlock(&it.link->mu);
        }
        check_pause_ms(20);
    }
    rig_peer_gone(&it);
    if (with_reader) {
        finish(&reader);
        finish(&other);
    }
    await_fin(&it);
    alarm(PROGRAM_SECONDS);
    CHECK(is_ready(&it, XC_WAIT_GONE, NULL));
    CHECK_RC(state_of(&it).ended_by.code, XC_EOF);
    expect_pattern(&it, chan, 300000, 0);
    expect_pattern(&it, chan, 300000, 1);
    expect_pattern(&it, chan, 10, 2);
    CHECK(take(&it, chan) == NULL);
    wire_free(&stream);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, silent);
    rig_close(&it);
}

static void
peer_gone_while_one_reads(void)
{
    peer_gone(true);
}

static void
peer_gone_while_nobody_reads(void)
{
    peer_gone(false);
}

/* ... and in the middle of a frame, or when all is over already. */
static void
peer_gone_in_mid_frame(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    wire stream = {NULL, 0, 0};
    wire_add_pattern(&stream, chan->id, 10, 0);
    wire_add_pattern(&stream, chan->id, 100000, 1);
    write_all(it.to, stream.data, stream.n - 1);
    rig_peer_gone(&it);
    await_fin(&it);
    expect_pattern(&it, chan, 10, 0);
    CHECK(take(&it, chan) == NULL);
    rig_peer_gone(&it);
    wire_free(&stream);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- ends ----------------------------------------------------------------------------------------------------- */

/* Nothing that is called on a link that has ended hangs or works. */
static void
check_dead(rig *it, xc_chan *chan)
{
    xc_chan *none;
    xc_msg *msg;
    xc_err err;
    CHECK(state_of(it).fin);
    for (int kind = XC_WAIT_ITEM; kind <= XC_WAIT_GONE; kind++) {
        CHECK_RC(wait_for(it, (xc_wait_kind)kind, chan, XC_FOREVER), XC_OK);
    }
    CHECK_RC(xc_link_take_item(it->link, chan, &msg), XC_CLOSED);
    CHECK_RC(xc_link_new_chan(it->link, &none, &err), XC_CLOSED);
    CHECK_RC(xc_link_chan(it->link, 77, &none, &err), XC_CLOSED);
    CHECK_RC(xc_link_take_task(it->link, true, &msg, &none), XC_CLOSED);
    AWAIT(xc_link_post(it->link, XC_DATA, chan->id, "x", 1) != XC_OK); /* the writer is told a moment later */
    CHECK(!xc_link_set_callback(it->link, chan));
    CHECK(xc_link_take_hello(it->link) == NULL);
    CHECK_INT(state_of(it).channels, 0);
    xc_link_goodbye(it->link);
}

/* The bytes come behind a good frame, with a waiter or without, and then nothing or the end of the stream. */
static void
ends_with(const void *bytes, size_t n, bool hang_up, xc_status want)
{
    for (int with_waiter = 0; with_waiter < 2; with_waiter++) {
        struct waiter waiters[2];
        wire stream = {NULL, 0, 0};
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it), *silent = new_chan(&it);
        for (int i = 0; with_waiter && i < 2; i++) {
            start(&waiters[i], &it, XC_WAIT_CLOSE, silent);
            await_waiters(&it, i + 1);
        }
        wire_add_pattern(&stream, chan->id, 10, 0);
        memcpy(wire_room(&stream, n), bytes, n);
        rig_send_wire(&it, &stream);
        if (hang_up) {
            rig_hang_up(&it);
        }
        for (int i = 0; with_waiter && i < 2; i++) {
            finish(&waiters[i]);
        }
        await_fin(&it);
        CHECK_RC(state_of(&it).ended_by.code, want);
        CHECK(state_of(&it).ended_by.step[0] != '\0');
        expect_pattern(&it, chan, 10, 0);
        check_dead(&it, chan);
        expect_end(it.from);
        wire_free(&stream);
        xc_link_drop_chan(it.link, chan);
        xc_link_drop_chan(it.link, silent);
        rig_close(&it);
    }
}

static void
hostile_streams(void)
{
    ends_with("\x09\0\0\0\1\0\0\0\0", 9, false, XC_BAD);
    ends_with("\xff\0\0\0\1\0\0\0\0", 9, false, XC_BAD);
    ends_with("\x04\0\0\0\1\x80\0\0\0", 9, false, XC_BAD);
    ends_with("\x04\0\0\0\1\xff\xff\xff\xff", 9, false, XC_BAD);
    ends_with("Traceback (most recent call last):\n", 35, false, XC_BAD);
    ends_with("", 0, true, XC_EOF);
    ends_with("\x04", 1, true, XC_EOF);
    ends_with("\x04\0\0\0\1\0\0\0", 8, true, XC_EOF);
    ends_with("\x04\0\0\0\1\0\0\0\5abcd", 13, true, XC_EOF);
    ends_with("\x04\0\0\0\1\0\1\0\0abcd", 13, true, XC_EOF); /* read in place */
    ends_with("\x04\0\0\0\1\0\4\0\0A\0\3\xff\xfa"
              "ab",
              16, true, XC_EOF); /* lent memory would be taken */
    ends_with("\x04\0\0\0\1\x7f\xff\xff\xff"
              "abc",
              12, true, XC_EOF); /* 2 GiB announced */
}

/* Random frames and bytes, with channel ids in them: whatever happens, the link comes to an end and frees it all. */
static void
random_streams(void)
{
    unsigned seed = 12345;
    for (int round = 0; round < 150; round++) {
        wire stream = {NULL, 0, 0};
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        for (int i = 0; i < 40; i++) {
            unsigned char payload[64];
            size_t n = (size_t)(rand_r(&seed) % 40);
            for (size_t at = 0; at < n; at++) {
                payload[at] = (unsigned char)"AB\0\1\2\3\4LKQP@JRCF"[rand_r(&seed) % 16];
            }
            if (rand_r(&seed) % 3 == 0) {
                n = put_chans(payload, (uint32_t)(rand_r(&seed) % 8), 1, (uint32_t)(rand_r(&seed) % 5));
            }
            wire_add(&stream, rand_r(&seed) % 60 == 0 ? 2 : 3 + rand_r(&seed) % 6, (uint32_t)(rand_r(&seed) % 8),
                     payload, n);
        }
        if (round % 2 == 0) {
            for (size_t i = 0; i < 20; i++) {
                stream.data[(size_t)rand_r(&seed) % stream.n] = (unsigned char)rand_r(&seed);
            }
        }
        rig_send_wire(&it, &stream);
        if (round % 3 == 0) {
            (void)wait_for(&it, XC_WAIT_FIN, NULL, 0);
        }
        rig_hang_up(&it);
        if (round % 5 != 0) {
            (void)wait_for(&it, XC_WAIT_FIN, NULL, XC_FOREVER);
        }
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
        wire_free(&stream);
    }
}

/* --- goodbyes ------------------------------------------------------------------------------------------------- */

static void
hears_goodbye(size_t payload)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    wire stream = {NULL, 0, 0};
    wire_add_pattern(&stream, chan->id, 10, 0);
    unsigned char *last = calloc(1, payload + 1);
    wire_add(&stream, XC_TERMINATE, 0, last, payload);
    wire_add_pattern(&stream, chan->id, 10, 1); /* behind the goodbye: dropped */
    rig_send_wire(&it, &stream);
    await_fin(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_CLOSED);
    CHECK(state_of(&it).heard_goodbye && !state_of(&it).said_goodbye);
    expect_pattern(&it, chan, 10, 0);
    check_dead(&it, chan);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
    wire_free(&stream);
    free(last);
}

/* What ended with the connection is told from what had ended before, and a goodbye from one that came too late. */
static void
cut_by(bool worker, uint8_t last)
{
    rig it = rig_open(worker);
    xc_chan *cut = new_chan(&it), *closed = new_chan(&it), *half = new_chan(&it), *own = new_chan(&it);
    bool tell;
    rig_send(&it, XC_CLOSE, closed->id, NULL, 0);
    rig_send(&it, XC_LAST_MESSAGE, half->id, NULL, 0);
    CHECK_RC(xc_link_close_chan(it.link, own, &tell, NULL), XC_OK);
    if (last != 0) {
        rig_send(&it, last, 0, NULL, 0);
    }
    else {
        rig_hang_up(&it);
    }
    await_fin(&it);
    CHECK(xc_link_chan_state(it.link, cut).cut == (last == 0 || !worker));
    CHECK(xc_link_chan_state(it.link, cut).may_tell == (last != 0 && worker));
    CHECK(!xc_link_chan_state(it.link, closed).cut && !xc_link_chan_state(it.link, half).cut);
    CHECK(!xc_link_chan_state(it.link, own).cut);
    xc_link_goodbye(it.link);
    CHECK(!state_of(&it).said_goodbye);
    xc_chan *all[] = {cut, closed, half, own};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        CHECK_RC(xc_link_close_chan(it.link, all[i], &tell, NULL), i == 1 || i == 3 ? XC_CLOSED : XC_OK);
        CHECK(xc_link_chan_state(it.link, all[i]).cut == (i == 0 && (last == 0 || !worker)));
        xc_link_drop_chan(it.link, all[i]);
    }
    rig_close(&it);
}

static void
cut_channels(void)
{
    cut_by(false, 0);
    cut_by(false, XC_TERMINATE);
    cut_by(true, XC_TERMINATE);
}

static void
goodbyes(void)
{
    hears_goodbye(0);
    hears_goodbye(100);
    hears_goodbye(100000);
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    CHECK_RC(xc_link_post(it.link, XC_DATA, chan->id, "LQ", 2), XC_OK);
    xc_link_goodbye(it.link);
    xc_link_goodbye(it.link);
    CHECK(state_of(&it).said_goodbye && !state_of(&it).heard_goodbye);
    expect_frame(it.from, XC_DATA, chan->id, "LQ", 2);
    expect_frame(it.from, XC_TERMINATE, 0, NULL, 0);
    expect_end(it.from);
    send_int(&it, chan->id, 5); /* what the far end still says is heard */
    expect_int(&it, chan, 5);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("link", PROGRAM_SECONDS);
    RUN_IO(the_role_is_handed_on);
    RUN_IO(a_timeout_hands_on);
    RUN_IO(the_reader_wakes_the_others);
    RUN_IO(the_end_wakes_everybody);
    RUN_IO(peer_gone_while_one_reads);
    RUN_IO(peer_gone_while_nobody_reads);
    RUN_IO(peer_gone_in_mid_frame);
    RUN_IO(a_signal_ends_a_wait);
    RUN_IO(a_flood_keeps_no_waiter);
    RUN_IO(the_pump_reads_what_nobody_reads);
    RUN_IO(hostile_streams);
    RUN_IO(random_streams);
    RUN_IO(cut_channels);
    RUN_IO(goodbyes);
    return check_end();
}
