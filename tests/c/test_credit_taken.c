/*
 * Flow control, this side receives: when the far end is told what was taken, and what it is answered when it waits. The
 * far end is the test.
 */
#include "credit_rig.h"

static void
take_int(rig *it, xc_chan *chan, uint32_t value)
{
    expect_int(it, chan, value);
}

static void
send_ints(rig *it, xc_chan *chan, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        send_int(it, chan->id, i);
    }
}

static xc_chan *
chan_with_limit(rig *it, uint64_t limit)
{
    xc_chan *chan = new_chan(it);
    CHECK_RC(xc_link_set_limit(it->link, chan, limit), XC_OK);
    expect_credit(it, chan->id, 0, limit);
    return chan;
}

/* --- when it is told ---------------------------------------------------------------------------------------------- */

static void
without_a_limit_nothing_is_said(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    send_ints(&it, chan, 50);
    for (uint32_t i = 0; i < 50; i++) {
        take_int(&it, chan, i);
    }
    settle(&it);
    CHECK_RC(xc_link_set_limit(it.link, chan, 1000), XC_OK); /* and all that was taken before counts */
    expect_credit(&it, chan->id, 50 * INT_COST, 1000);
    CHECK_RC(xc_link_set_limit(it.link, chan, XC_NO_LIMIT), XC_OK);
    expect_credit(&it, chan->id, 50 * INT_COST, XC_NO_LIMIT);
    send_ints(&it, chan, 1);
    take_int(&it, chan, 0);
    settle(&it);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
it_is_told_by_halves(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 6 * INT_COST), *one = chan_with_limit(&it, 1);
    send_ints(&it, chan, 8);
    take_int(&it, chan, 0);
    take_int(&it, chan, 1);
    settle(&it);
    take_int(&it, chan, 2);
    expect_credit(&it, chan->id, 3 * INT_COST, 6 * INT_COST);
    for (uint32_t i = 3; i < 6; i++) {
        take_int(&it, chan, i);
    }
    expect_credit(&it, chan->id, 6 * INT_COST, 6 * INT_COST);
    take_int(&it, chan, 6);
    take_int(&it, chan, 7);
    settle(&it);
    send_ints(&it, one, 2);
    take_int(&it, one, 0);
    expect_credit(&it, one->id, INT_COST, 1);
    take_int(&it, one, 1);
    expect_credit(&it, one->id, 2 * INT_COST, 1);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, one);
    rig_close(&it);
}

/* A large one whose memory a waiter lends counts as it was sent. */
static void
lent_memory_counts_as_much(void)
{
    enum { SIZE = XC_BIG };
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 2 * (SIZE + 6 + XC_ITEM_COST));
    size_t space;
    xc_msg *msg;
    unsigned char *payload = malloc(SIZE + 6);
    CHECK(payload != NULL);
    memset(payload, 'x', SIZE + 6);
    payload[0] = 'A';
    put32(payload + 1, SIZE);
    payload[SIZE + 5] = 'Q';
    stop_pump();
    wire half = {NULL, 0, 0};
    wire_add(&half, XC_DATA, chan->id, payload, SIZE + 6);
    write_all(it.to, half.data, 100);
    while (wait_giving(&it, chan, XC_FOREVER, &space) != XC_SPACE) {
    }
    unsigned char *lent = malloc(space);
    CHECK(xc_link_give_space(it.link, lent, lent, space));
    let_pump_go();
    write_all(it.to, half.data + 100, half.n - 100);
    while (wait_for(&it, XC_WAIT_ITEM, chan, XC_FOREVER) != XC_OK) {
    }
    CHECK_RC(xc_link_take_item(it.link, chan, &msg), XC_OK);
    CHECK(msg->space == lent);
    expect_credit(&it, chan->id, SIZE + 6 + XC_ITEM_COST, 2 * (SIZE + 6 + XC_ITEM_COST));
    xc_link_free_msg(it.link, msg);
    wire_free(&half);
    free(payload);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
nothing_is_said_of_what_has_ended(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 2 * INT_COST), *shut = chan_with_limit(&it, 1);
    bool tell;
    send_ints(&it, chan, 3);
    take_int(&it, chan, 0);
    expect_credit(&it, chan->id, INT_COST, 2 * INT_COST);
    rig_send(&it, XC_LAST_MESSAGE, chan->id, NULL, 0);
    settle(&it);
    take_int(&it, chan, 1);
    CHECK_RC(xc_link_set_limit(it.link, chan, 5), XC_OK); /* it still could send */
    CHECK_RC(xc_link_close_chan(it.link, shut, &tell, NULL), XC_OK);
    CHECK_RC(xc_link_set_limit(it.link, shut, 5), XC_CLOSED);
    settle(&it);
    rig_hang_up(&it);
    await_fin(&it);
    take_int(&it, chan, 2);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, shut);
    rig_close(&it);
}

/* --- a far end that waits ----------------------------------------------------------------------------------------- */

static void
send_waits(rig *it, uint32_t chan)
{
    rig_send(it, XC_WAITS, chan, NULL, 0);
}

static void
who_waits_is_told_when_all_is_taken(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 1000 * INT_COST);
    send_ints(&it, chan, 2);
    send_waits(&it, chan->id);
    settle(&it);
    take_int(&it, chan, 0);
    settle(&it);
    take_int(&it, chan, 1);
    expect_credit(&it, chan->id, 2 * INT_COST, 1000 * INT_COST);
    send_ints(&it, chan, 1);
    take_int(&it, chan, 0);
    settle(&it); /* it waits no more */
    send_waits(&it, chan->id);
    expect_credit(&it, chan->id, 3 * INT_COST, 1000 * INT_COST); /* at once */
    send_waits(&it, chan->id);
    settle(&it);
    send_ints(&it, chan, 1); /* this was on its way when it began to wait */
    take_int(&it, chan, 0);
    expect_credit(&it, chan->id, 4 * INT_COST, 1000 * INT_COST);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* Of two that wait there one may have gone on by a credit that came before all was taken. */
static void
a_wait_is_not_forgotten_before_all_is_taken(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 4 * INT_COST);
    send_ints(&it, chan, 4);
    send_waits(&it, chan->id);
    settle(&it);
    take_int(&it, chan, 0);
    take_int(&it, chan, 1);
    expect_credit(&it, chan->id, 2 * INT_COST, 4 * INT_COST);
    take_int(&it, chan, 2);
    settle(&it);
    send_ints(&it, chan, 1);
    settle(&it);
    take_int(&it, chan, 3);
    expect_credit(&it, chan->id, 4 * INT_COST, 4 * INT_COST);
    take_int(&it, chan, 0);
    expect_credit(&it, chan->id, 5 * INT_COST, 4 * INT_COST);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* What is sent to a channel that nobody has is dropped, so no credit would ever come. */
static void
a_wait_where_nobody_listens(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *half = new_chan(&it);
    uint32_t id = chan->id;
    send_waits(&it, 99);
    expect_credit(&it, 99, 0, XC_NO_LIMIT);
    send_waits(&it, 0);
    expect_credit(&it, 0, 0, XC_NO_LIMIT);
    send_ints(&it, chan, 1);
    take_int(&it, chan, 0);
    send_waits(&it, id); /* there is no limit, or not any more */
    expect_credit(&it, id, INT_COST, XC_NO_LIMIT);
    xc_link_drop_chan(it.link, chan);
    expect_frame(it.from, XC_CLOSE, id, NULL, 0);
    send_waits(&it, id);
    expect_credit(&it, id, 0, XC_NO_LIMIT);
    rig_send(&it, XC_LAST_MESSAGE, half->id, NULL, 0);
    send_waits(&it, half->id);
    expect_credit(&it, half->id, 0, XC_NO_LIMIT);
    xc_link_drop_chan(it.link, half);
    rig_close(&it);
}

/* A far end that asks and does not read: the answers do not fill the memory. */
static void
asking_without_end(void)
{
    enum { TIMES = 300 * 1000 };
    rig it = rig_open(false);
    wire asks = {NULL, 0, 0};
    for (int i = 0; i < TIMES; i++) {
        wire_add(&asks, XC_WAITS, 99, NULL, 0);
    }
    rig_send_wire(&it, &asks);
    size_t most = 0;
    for (int i = 0; i < 50; i++) {
        size_t left = xc_writer_left(xc_link_writer(it.link));
        most = left > most ? left : most;
        check_pause_ms(1);
    }
    CHECK(most < 2 * 1024 * 1024); /* and not 25 bytes for each */
    for (int i = 0; i < TIMES; i++) {
        expect_credit(&it, 99, 0, XC_NO_LIMIT);
    }
    wire_free(&asks);
    rig_close(&it);
}

/* The same for items that are taken: only the newest credit has to be sent. */
static void
credit_that_nobody_reads(void)
{
    enum { TIMES = 150 * 1000, ROUND = 1000 };
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 1);
    size_t most = 0, frames = 0;
    for (int i = 0; i < TIMES / ROUND; i++) {
        send_ints(&it, chan, ROUND);
        for (uint32_t k = 0; k < ROUND; k++) {
            take_int(&it, chan, k);
        }
        size_t left = xc_writer_left(xc_link_writer(it.link));
        most = left > most ? left : most;
    }
    CHECK(most < 1100 * 1024);
    for (uint64_t taken = 0, before = 0, limit; taken < UINT64_C(1) * TIMES * INT_COST; before = taken, frames++) {
        xc_frame frame;
        unsigned char *payload;
        CHECK(read_frame(it.from, &frame, &payload));
        CHECK_INT(frame.code, XC_CREDIT);
        xc_credit_unpack(payload, &taken, &limit);
        CHECK(taken > before);
        free(payload);
    }
    CHECK(frames < TIMES);
    settle(&it);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- callbacks ---------------------------------------------------------------------------------------------------- */

/* The next item for a callback; it is running then. Returns its cost. */
static uint64_t
call(rig *it, xc_chan **chan)
{
    xc_msg *msg = xc_link_backlog_next(it->link, chan);
    CHECK(msg != NULL && *chan != NULL);
    uint64_t cost = xc_msg_cost(msg);
    xc_link_free_msg(it->link, msg);
    return cost;
}

static void
an_item_is_taken_when_its_callback_has_returned(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 1000 * INT_COST), *for_call;
    xc_msg *msg;
    send_ints(&it, chan, 2);
    settle(&it);
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK); /* setcallback() hands out what is here */
    CHECK_RC(xc_link_take_to_call(it.link, chan, &msg), XC_OK);
    send_waits(&it, chan->id);
    settle(&it);
    xc_link_taken(it.link, chan, 1, xc_msg_cost(msg));
    xc_link_free_msg(it.link, msg);
    settle(&it);
    CHECK_RC(xc_link_take_to_call(it.link, chan, &msg), XC_OK);
    settle(&it);
    xc_link_taken(it.link, chan, 1, xc_msg_cost(msg));
    xc_link_free_msg(it.link, msg);
    expect_credit(&it, chan->id, 2 * INT_COST, 1000 * INT_COST);
    CHECK_RC(xc_link_take_to_call(it.link, chan, &msg), XC_AGAIN);
    CHECK(xc_link_set_callback(it.link, chan));
    xc_link_dispatch_leave(it.link);

    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    send_ints(&it, chan, 2);
    send_waits(&it, chan->id); /* not behind those items */
    settle(&it);
    uint64_t cost = call(&it, &for_call);
    settle(&it);
    xc_link_called(it.link, for_call, cost);
    settle(&it);
    cost = call(&it, &for_call);
    settle(&it);
    xc_link_called(it.link, for_call, cost);
    expect_credit(&it, chan->id, 4 * INT_COST, 1000 * INT_COST);
    xc_link_dispatch_leave(it.link);
    xc_link_end_callback(it.link, chan);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* Items of one that is received from, which stand behind a callback of another. */
static void
items_behind_a_callback_are_not_taken(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 1000 * INT_COST), *busy = new_chan(&it);
    send_ints(&it, chan, 1);
    settle(&it);
    CHECK(xc_link_set_callback(it.link, busy));
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    send_ints(&it, busy, 1);
    send_ints(&it, chan, 1);
    send_waits(&it, chan->id);
    settle(&it);
    take_int(&it, chan, 0);
    settle(&it);
    uint64_t cost = call(&it, &busy);
    xc_link_called(it.link, busy, cost);
    CHECK(xc_link_backlog_next(it.link, &busy) == NULL);
    xc_link_dispatch_leave(it.link);
    take_int(&it, chan, 0);
    expect_credit(&it, chan->id, 2 * INT_COST, 1000 * INT_COST);
    busy = chan_of(&it, chan->id + 2);
    xc_link_end_callback(it.link, busy);
    xc_link_drop_chan(it.link, busy);
    xc_link_drop_chan(it.link, busy);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* What makes the channel stands in the backlog: so do the frames about it, if they are not overtaken. */
static void
channels_that_are_not_there_yet(void)
{
    for (int overtaken = 0; overtaken < 2; overtaken++) {
        rig it = rig_open(true);
        xc_chan *busy = new_chan(&it), *called, *chan;
        xc_msg *task;
        CHECK(xc_link_set_callback(it.link, busy));
        CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
        send_ints(&it, busy, 1);
        rig_send(&it, XC_EXEC, 7, "NQ", 2);
        send_credit(&it, 7, 0, 200);
        send_credit(&it, 7, 0, 300);
        send_int(&it, 7, 1);
        send_waits(&it, 7);
        settle(&it);
        if (overtaken) {
            chan = chan_of(&it, 7);
            send_credit(&it, 7, 0, 400);
            settle(&it);
            CHECK_INT(limit_out(&it, chan), 400);
        }
        uint64_t cost = call(&it, &called);
        xc_link_called(it.link, called, cost);
        CHECK(xc_link_backlog_next(it.link, &called) == NULL);
        xc_link_dispatch_leave(it.link);
        if (overtaken) {
            xc_link_drop_chan(it.link, chan);
        }
        CHECK_RC(xc_link_take_task(it.link, true, &task, &chan), XC_OK);
        CHECK_INT(limit_out(&it, chan), overtaken ? 400 : 300);
        CHECK(chan->credit.limited);
        CHECK_INT(chan->credit.whole, !overtaken);
        settle(&it);
        expect_int(&it, chan, 1);
        expect_credit(&it, 7, INT_COST, XC_NO_LIMIT); /* it may go on: nobody here knows of a limit */
        xc_link_free_msg(it.link, task);
        xc_link_task_done(it.link, true);
        xc_link_drop_chan(it.link, chan);
        expect_frame(it.from, XC_CLOSE_ERROR, 7, "N\0\0\0\x24how the task ended could not be toldQ", 42);
        xc_link_end_callback(it.link, busy);
        xc_link_drop_chan(it.link, busy);
        rig_close(&it);
    }
}

/* --- limits of all channels ----------------------------------------------------------------------------------------
 */

static void
the_limit_of_new_channels(void)
{
    rig it = rig_open(false);
    xc_chan *old = new_chan(&it), *used = new_chan(&it), *told = chan_with_limit(&it, 7), *counted = new_chan(&it);
    send_ints(&it, used, 1);
    take_int(&it, used, 0);
    send_credit(&it, told->id, 0, 8);
    settle(&it);
    CHECK(may_send(&it, counted, 1));
    xc_link_set_limit_of_new(it.link, 200);
    xc_chan *late = new_chan(&it);
    CHECK(old->credit.limited && old->credit.limit_out == 200 && old->credit.limit_in == 200);
    CHECK(late->credit.limited && late->credit.limit_out == 200 && late->credit.limit_in == 200);
    CHECK(!used->credit.limited && !counted->credit.limited);
    CHECK(told->credit.limit_in == 7 && limit_out(&it, told) == 8);
    xc_link_set_window(it.link, old, 5000);
    CHECK(old->credit.limit_out == 5000 && old->credit.limit_in == 5000);
    settle(&it); /* nobody is told: the other side does the same */
    xc_chan *all[] = {old, used, told, counted, late};
    for (size_t i = 0; i < 5; i++) {
        xc_link_drop_chan(it.link, all[i]);
    }
    rig_close(&it);
}

static void
how_it_stands(void)
{
    rig it = rig_open(false);
    xc_chan *chan = chan_with_limit(&it, 1000), *other = new_chan(&it);
    xc_flow flow[3], backlog;
    sender one;
    send_credit(&it, chan->id, 0, 200);
    send_ints(&it, chan, 3);
    send_waits(&it, chan->id);
    settle(&it);
    CHECK(may_send(&it, chan, 150));
    start_sender(&one, &it, chan, 100, 1);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    send_ints(&it, other, 2);
    rig_send(&it, XC_RECONFIGURE, 0, "RR@\0\0\0\2Q", 8); /* is no item */
    settle(&it);
    CHECK_INT(xc_link_get_flow(it.link, NULL, 0, &backlog), 2);
    CHECK_INT(xc_link_get_flow(it.link, flow, 3, &backlog), 2);
    xc_flow *its = flow[0].id == chan->id ? &flow[0] : &flow[1], *others = its == flow ? &flow[1] : &flow[0];
    CHECK_INT(its->items, 3);
    CHECK_INT(its->bytes, 3 * INT_COST);
    CHECK_INT(its->limit_in, 1000);
    CHECK(its->peer_waits >= 0 && its->waits >= 0);
    CHECK_INT(its->under_way, 150);
    CHECK_INT(its->limit_out, 200);
    CHECK_INT(others->id, other->id);
    CHECK(others->items == 0 && others->bytes == 0 && others->peer_waits == -1 && others->waits == -1);
    CHECK(others->limit_in == XC_NO_LIMIT && others->limit_out == XC_NO_LIMIT);
    CHECK_INT(backlog.items, 2);
    CHECK_INT(backlog.bytes, 2 * INT_COST);
    send_credit(&it, chan->id, 150, 200);
    join_sender(&one);
    xc_link_dispatch_leave(it.link);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, other);
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("credit, taken", 30);
    RUN_IO(without_a_limit_nothing_is_said);
    RUN_IO(it_is_told_by_halves);
    RUN_IO(lent_memory_counts_as_much);
    RUN_IO(nothing_is_said_of_what_has_ended);
    RUN_IO(who_waits_is_told_when_all_is_taken);
    RUN_IO(a_wait_is_not_forgotten_before_all_is_taken);
    RUN_IO(a_wait_where_nobody_listens);
    RUN_IO(asking_without_end);
    RUN_IO(credit_that_nobody_reads);
    RUN_IO(an_item_is_taken_when_its_callback_has_returned);
    RUN_IO(items_behind_a_callback_are_not_taken);
    RUN_IO(channels_that_are_not_there_yet);
    RUN_IO(the_limit_of_new_channels);
    RUN_IO(how_it_stands);
    return check_end();
}
