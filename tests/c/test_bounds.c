/*
 * What a far end makes a link hold that reads no answers, or sends channels that nobody takes: no more than it sent,
 * and what the bounds add. Nothing of it is lost, and two ends that both do so get along.
 */
#include "link_rig.h"

enum {
    PROGRAM_SECONDS = 100,
    MANY = 100000,        /* requests: their answers are some 14 MB */
    OUTBOX = 1200 * 1024, /* bytes: ANSWERS_MAX of xc_answer.c, and the answer that comes to it */
    IDS = 1000,           /* in one item */
    ITEMS = 100,          /* that carry so many */
};

static void
ask(rig *it, int code, uint32_t first, uint32_t n)
{
    wire stream = {NULL, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        wire_add(&stream, code, first + i, "RQ", code == XC_STATUS ? 0 : 2);
    }
    rig_send_wire(it, &stream);
    wire_free(&stream);
}

static size_t
owed_by(rig *it)
{
    xc_lock(&it->link->mu);
    size_t n = xc_buf_size(&it->link->answers.owed);
    xc_unlock(&it->link->mu);
    return n;
}

static void
check_answered(rig *it, uint32_t first, uint32_t n, bool status)
{
    for (uint32_t i = 0; i < n; i++) {
        xc_frame frame;
        unsigned char *payload;
        CHECK(read_frame(it->from, &frame, &payload));
        free(payload);
        CHECK(frame.chan == first + i && frame.code == (status ? XC_DATA : XC_CLOSE_ERROR));
        if (status) {
            expect_frame(it->from, XC_CLOSE, first + i, NULL, 0);
        }
    }
}

static void
answers_that_nobody_reads(bool status)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    ask(&it, status ? XC_STATUS : XC_EXEC, 1000, MANY);
    send_int(&it, chan->id, 1);
    expect_int(&it, chan, 1); /* what comes behind them does */
    size_t owed = owed_by(&it), left = xc_writer_left(xc_link_writer(it.link));
    CHECK(owed > 0 && owed <= 5 * (size_t)MANY);
    CHECK(left <= OUTBOX);
    check_answered(&it, 1000, MANY, status);
    CHECK_INT(owed_by(&it), 0);
    ask(&it, XC_STATUS, 7, 1); /* at once again */
    check_answered(&it, 7, 1, true);
    ask(&it, status ? XC_STATUS : XC_EXEC, 1000, MANY);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it); /* and what is still owed goes with the link */
}

static void
status_answers(void)
{
    answers_that_nobody_reads(true);
}

static void
refusals(void)
{
    answers_that_nobody_reads(false);
}

/* Each asks the other, and reads what it reads by its pump alone: who stopped reading would never be answered. */
static void
two_that_ask_each_other(void)
{
    int there[2], back[2];
    xc_link *links[2];
    xc_chan *chans[2];
    xc_err err;
    xc_link_opts opts = rig_opts(false);
    CHECK(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0);
    links[0] = xc_link_new(&opts, back[0], there[1], &err);
    links[1] = xc_link_new(&opts, there[0], back[1], &err);
    CHECK(links[0] != NULL && links[1] != NULL);
    for (int i = 0; i < 2; i++) {
        CHECK_RC(xc_link_new_chan(links[i], &chans[i], &err), XC_OK);
    }
    for (uint32_t n = 0; n < MANY; n++) {
        for (int i = 0; i < 2; i++) {
            CHECK_RC(xc_link_post(links[i], XC_STATUS, 1000 + n, NULL, 0), XC_OK);
        }
    }
    for (int i = 0; i < 2; i++) {
        CHECK_RC(xc_link_post(links[i], XC_STATUS, chans[i]->id, NULL, 0), XC_OK);
    }
    for (int i = 0; i < 2; i++) {
        xc_wait wait = {.kind = XC_WAIT_CLOSE, .chan = chans[i], .until = XC_FOREVER};
        size_t space;
        CHECK_RC(xc_link_wait_nogil(links[i], &wait, &space), XC_OK);
        xc_link_drop_chan(links[i], chans[i]);
    }
    xc_link_release(links[0]);
    xc_link_release(links[1]);
}

static size_t
items_of(rig *it, xc_chan *chan)
{
    xc_lock(&it->link->mu);
    size_t n = chan->items.count;
    xc_unlock(&it->link->mu);
    return n;
}

static uint32_t
carried_by(rig *it)
{
    xc_lock(&it->link->mu);
    uint32_t n = it->link->chans.n_carried;
    xc_unlock(&it->link->mu);
    return n;
}

/* Beyond the bound an item comes all the same, and says that it is too much; and it is none when some were taken. */
static void
channels_that_nobody_takes(void)
{
    static unsigned char payload[5 * IDS + 6];
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    for (uint32_t i = 0; i < ITEMS; i++) {
        rig_send(&it, XC_DATA, chan->id, payload, put_chans(payload, 2 + i * 2 * IDS, 2, IDS));
    }
    send_int(&it, chan->id, 1);
    AWAIT(items_of(&it, chan) == ITEMS + 1);
    CHECK(carried_by(&it) == XC_CARRIED_MAX / IDS * IDS);
    CHECK_INT(state_of(&it).channels, XC_CARRIED_MAX / IDS * IDS + 1);
    for (uint32_t i = 0; i < ITEMS; i++) {
        xc_msg *msg = take(&it, chan);
        CHECK(msg != NULL);
        bool fits = i < XC_CARRIED_MAX / IDS;
        CHECK(msg->crowded == !fits && msg->n_ids == (fits ? IDS : 0));
        xc_link_free_msg(it.link, msg);
    }
    expect_int(&it, chan, 1);
    CHECK_INT(carried_by(&it), 0);
    send_chan(&it, chan->id, 2);
    xc_msg *msg = take(&it, chan);
    CHECK(msg != NULL && !msg->crowded && msg->n_ids == 1);
    xc_link_free_msg(it.link, msg);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
tasks_that_nobody_takes(void)
{
    static const unsigned char refusal[] = "N\0\0\0\x13too many tasks waitQ";
    rig it = rig_open(true);
    ask(&it, XC_EXEC, 1, XC_CARRIED_MAX + 1);
    expect_frame(it.from, XC_CLOSE_ERROR, XC_CARRIED_MAX + 1, refusal, sizeof refusal - 1);
    CHECK_INT(state_of(&it).executing, XC_CARRIED_MAX);
    for (uint32_t i = 0; i < 2; i++) {
        xc_msg *task;
        xc_chan *chan;
        CHECK_RC(xc_link_take_task(it.link, true, &task, &chan), XC_OK);
        CHECK_INT(chan->id, 1 + i);
        xc_link_free_msg(it.link, task);
        ask(&it, XC_EXEC, XC_CARRIED_MAX + 2 + i, 1); /* there is room for one more */
        AWAIT(state_of(&it).executing == XC_CARRIED_MAX + 1 + i);
        xc_link_drop_chan(it.link, chan);
    }
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("bounds", PROGRAM_SECONDS);
    RUN_IO(status_answers);
    RUN_IO(refusals);
    RUN_IO(two_that_ask_each_other);
    RUN_IO(channels_that_nobody_takes);
    RUN_IO(tasks_that_nobody_takes);
    return check_end();
}
