/*
 * What arrives and what it sets off: the order behind callbacks, answers that need nobody, the worker's tasks, the
 * hello; and that want of memory at any place loses one thing at most.
 */
#include "link_rig.h"

/* Everything that was sent before has been read: the status is answered by whoever reads, in order. */
static void
drain_answers(rig *it)
{
    xc_frame frame;
    unsigned char *payload;
    do {
        CHECK(read_frame(it->from, &frame, &payload));
        free(payload);
    } while (frame.code != XC_CLOSE || frame.chan != 0x7777);
}

static void
settle(rig *it)
{
    rig_send(it, XC_STATUS, 0x7777, NULL, 0);
    drain_answers(it);
}

/* --- answers -------------------------------------------------------------------------------------------------- */

static void
expect_status(rig *it, uint32_t id, unsigned char channels, unsigned char executing)
{
    unsigned char want[] = "JN\0\0\0\x0bnumchannelsF\0\0\0\0PN\0\0\0\x0cnumexecutingF\0\0\0\0PN\0\0\0\x09"
                           "execmodelN\0\0\0\x06threadPQ";
    want[21] = channels;
    want[44] = executing;
    rig_send(it, XC_STATUS, id, NULL, 0);
    expect_frame(it->from, XC_DATA, id, want, sizeof want - 1);
    expect_frame(it->from, XC_CLOSE, id, NULL, 0);
}

static const unsigned char disallowed[] = "N\0\0\0\x14"
                                          "execution disallowedQ";

static const unsigned char untold[] = "N\0\0\0\x24"
                                      "how the task ended could not be toldQ";

static void
answers_need_nobody(void)
{
    rig it = rig_open(false);
    expect_status(&it, 7, 0, 0);
    xc_chan *chan = new_chan(&it);
    expect_status(&it, 9, 1, 0);
    rig_send(&it, XC_EXEC, 11, "NQ", 2);
    expect_frame(it.from, XC_CLOSE_ERROR, 11, disallowed, sizeof disallowed - 1);
    CHECK_INT(state_of(&it).executing, 0);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
reconfigure(void)
{
    static const unsigned char both[] = {'R', 'R', '@', 0, 0, 0, 2, 'Q'}, second[] = {'C', 'R', '@', 0, 0, 0, 2, 'Q'};
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *other = new_chan(&it);
    rig_send(&it, XC_RECONFIGURE, chan->id, second, 8);
    CHECK_INT(coercion_of_an_item(&it, chan), XC_PY3STR_AS_PY2STR);
    CHECK_INT(coercion_of_an_item(&it, other), XC_COERCE_DEFAULT);
    rig_send(&it, XC_RECONFIGURE, 0, both, 8);
    rig_send(&it, XC_RECONFIGURE, 99, both, 8); /* unknown */
    rig_send(&it, XC_RECONFIGURE, chan->id, both, 7);
    rig_send(&it, XC_RECONFIGURE, chan->id, "RR@\0\0\0\3Q", 8);
    rig_send(&it, XC_RECONFIGURE, chan->id, "", 0);
    CHECK_INT(coercion_of_an_item(&it, chan), XC_PY3STR_AS_PY2STR);
    CHECK_INT(coercion_of_an_item(&it, other), XC_COERCE_DEFAULT);
    xc_chan *late = new_chan(&it);
    CHECK_INT(coercion_of_an_item(&it, late), XC_PY2STR_AS_PY3STR | XC_PY3STR_AS_PY2STR);
    rig_send(&it, XC_CLOSE_ERROR, late->id, "N\0\0\0\1xQ", 7); /* a text is a text, whatever items are */
    settle(&it);
    xc_msg *error = xc_link_take_error(it.link, late);
    CHECK(error != NULL);
    CHECK_INT(error->coerce, XC_COERCE_DEFAULT);
    xc_link_free_msg(it.link, error);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, other);
    xc_link_drop_chan(it.link, late);
    rig_close(&it);
}

static void
take_hello(rig *it, size_t size)
{
    xc_msg *msg = xc_link_take_hello(it->link);
    CHECK(msg != NULL);
    CHECK_INT(msg->size, size);
    xc_link_free_msg(it->link, msg);
}

/* Four may wait, also where they wait behind a callback; the fifth ends the link, and what came before it counts. */
static void
too_many_hellos(void)
{
    for (int behind = 0; behind < 2; behind++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        if (behind) {
            CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
        }
        for (size_t i = 0; i < XC_UNREAD_HELLOS; i++) {
            rig_send(&it, XC_HELLO, 0, "hello", i);
        }
        if (!behind) {
            settle(&it);
            CHECK(is_ready(&it, XC_WAIT_HELLO, NULL) && !state_of(&it).fin);
        }
        wire stream = {NULL, 0, 0};
        wire_add(&stream, XC_DATA, chan->id, "NQ", 2);
        wire_add(&stream, XC_HELLO, 0, "fifth", 5);
        wire_add(&stream, XC_DATA, chan->id, "LQ", 2);
        rig_send_wire(&it, &stream);
        AWAIT(state_of(&it).ended_by.code != XC_OK);
        if (behind) {
            xc_link_dispatch_leave(it.link);
        }
        CHECK(state_of(&it).fin);
        CHECK_RC(state_of(&it).ended_by.code, XC_BAD);
        CHECK(strstr(state_of(&it).ended_by.detail, "hellos") != NULL);
        expect_item(&it, chan, "NQ", 2);
        CHECK(take(&it, chan) == NULL);
        for (size_t i = 0; i < XC_UNREAD_HELLOS; i++) {
            take_hello(&it, i);
        }
        CHECK(xc_link_take_hello(it.link) == NULL);
        wire_free(&stream);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

static void
hello(void)
{
    rig it = rig_open(false);
    CHECK(!is_ready(&it, XC_WAIT_HELLO, NULL));
    CHECK(xc_link_take_hello(it.link) == NULL);
    rig_send(&it, XC_HELLO, 0, "NQ", 2);
    rig_send(&it, XC_HELLO, 0, "second", 6);
    CHECK_RC(wait_for(&it, XC_WAIT_HELLO, NULL, XC_FOREVER), XC_OK);
    settle(&it);
    take_hello(&it, 2);
    take_hello(&it, 6);
    CHECK(xc_link_take_hello(it.link) == NULL);
    CHECK(state_of(&it).greeted && !is_ready(&it, XC_WAIT_HELLO, NULL));
    for (size_t i = 0; i < XC_UNREAD_HELLOS * 3; i++) {
        rig_send(&it, XC_HELLO, 0, "second", i % 6); /* as many as one likes, if they are taken */
        CHECK_RC(wait_for(&it, XC_WAIT_HELLO, NULL, XC_FOREVER), XC_OK);
        take_hello(&it, i % 6);
    }
    rig_close(&it);
    it = rig_open(false);
    rig_send(&it, XC_HELLO, 0, "NQ", 2);
    settle(&it);
    rig_close(&it); /* not taken: freed with the link */
}

/* --- tasks ---------------------------------------------------------------------------------------------------- */

static void
expect_task(rig *it, bool primary, uint32_t id)
{
    xc_msg *msg;
    xc_chan *chan;
    CHECK_RC(xc_link_take_task(it->link, primary, &msg, &chan), XC_OK);
    CHECK_INT(msg->chan, id);
    CHECK_INT(chan->id, id);
    xc_link_free_msg(it->link, msg);
    xc_link_drop_chan(it->link, chan);
}

static void
expect_no_task(rig *it, bool primary)
{
    xc_msg *msg;
    xc_chan *chan;
    CHECK_RC(xc_link_take_task(it->link, primary, &msg, &chan), XC_AGAIN);
    CHECK_RC(wait_for(it, primary ? XC_WAIT_TASK : XC_WAIT_TASK_SPARE, NULL, xc_after(2 * XC_MS)), XC_TIMEOUT);
}

static void
tasks_for_two(void)
{
    rig it = rig_open(true);
    rig_send(&it, XC_EXEC, 1, "NQ", 2);
    send_int(&it, 1, 42); /* for the task's channel, before the task has begun */
    CHECK_RC(wait_for(&it, XC_WAIT_TASK, NULL, XC_FOREVER), XC_OK);
    expect_no_task(&it, false); /* the primary thread waits: the first one is for it */
    expect_status(&it, 5, 1, 1);
    CHECK(!is_ready(&it, XC_WAIT_IDLE, NULL));
    rig_send(&it, XC_EXEC, 3, "NQ", 2);
    settle(&it);
    CHECK(is_ready(&it, XC_WAIT_TASK_SPARE, NULL));
    xc_msg *msg;
    xc_chan *chan;
    CHECK_RC(xc_link_take_task(it.link, true, &msg, &chan), XC_OK);
    CHECK_INT(chan->id, 1);
    xc_link_free_msg(it.link, msg);
    expect_int(&it, chan, 42);
    xc_link_drop_chan(it.link, chan); /* nobody has closed it: no end that looks well */
    expect_frame(it.from, XC_CLOSE_ERROR, 1, untold, sizeof untold - 1);
    expect_task(&it, false, 3); /* the primary one is busy: the other goes to the spare */
    expect_frame(it.from, XC_CLOSE_ERROR, 3, untold, sizeof untold - 1);
    expect_status(&it, 5, 0, 2);
    xc_link_task_done(it.link, false);
    CHECK(!is_ready(&it, XC_WAIT_IDLE, NULL));
    xc_link_task_done(it.link, false);
    CHECK_RC(wait_for(&it, XC_WAIT_IDLE, NULL, XC_FOREVER), XC_OK);
    expect_no_task(&it, true);
    rig_send(&it, XC_EXEC, 5, "NQ", 2); /* never taken */
    settle(&it);
    rig_close(&it);
}

/* What arrives for the channels of a waiting task is kept, as for those of an item. */
static void
tasks_that_carry_channels(void)
{
    rig it = rig_open(true);
    unsigned char payload[5 * 2 + 6];
    xc_msg *msg;
    xc_chan *chan;
    rig_send(&it, XC_EXEC, 1, payload, put_chans(payload, 3, 2, 2));
    send_int(&it, 5, 42);
    CHECK_RC(wait_for(&it, XC_WAIT_TASK, NULL, XC_FOREVER), XC_OK);
    expect_status(&it, 7, 3, 1);
    CHECK_RC(xc_link_take_task(it.link, true, &msg, &chan), XC_OK);
    CHECK_INT(chan->id, 1);
    xc_chan *first = xc_link_carried(it.link, msg, 0, 3), *second = xc_link_carried(it.link, msg, 1, 5);
    CHECK(first != NULL && second != NULL);
    expect_int(&it, second, 42);
    xc_link_free_msg(it.link, msg);
    xc_link_drop_chan(it.link, first);
    expect_frame(it.from, XC_CLOSE, 3, NULL, 0);
    xc_link_drop_chan(it.link, second);
    expect_frame(it.from, XC_CLOSE, 5, NULL, 0);
    xc_link_drop_chan(it.link, chan);
    expect_frame(it.from, XC_CLOSE_ERROR, 1, untold, sizeof untold - 1);
    rig_close(&it);
}

/* After the goodbye the tasks that are there are still handed out, then no more, to neither thread. */
static void
tasks_and_the_goodbye(void)
{
    rig it = rig_open(true);
    xc_msg *msg;
    xc_chan *chan;
    rig_send(&it, XC_EXEC, 1, "NQ", 2);
    rig_send(&it, XC_EXEC, 3, "NQ", 2);
    rig_send(&it, XC_TERMINATE, 0, NULL, 0);
    await_fin(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_CLOSED);
    CHECK_RC(wait_for(&it, XC_WAIT_TASK, NULL, XC_FOREVER), XC_OK);
    CHECK(is_ready(&it, XC_WAIT_TASK_SPARE, NULL));
    expect_task(&it, false, 1);
    CHECK(!is_ready(&it, XC_WAIT_TASK_SPARE, NULL)); /* it would find nothing, again and again */
    expect_task(&it, true, 3);
    CHECK(is_ready(&it, XC_WAIT_TASK_SPARE, NULL) && is_ready(&it, XC_WAIT_TASK, NULL));
    CHECK_RC(xc_link_take_task(it.link, true, &msg, &chan), XC_CLOSED);
    CHECK_RC(xc_link_take_task(it.link, false, &msg, &chan), XC_CLOSED);
    rig_close(&it);
}

/* --- the dispatcher ------------------------------------------------------------------------------------------- */

static void
expect_next(rig *it, int code, xc_chan *of)
{
    xc_chan *chan;
    xc_msg *msg = xc_link_backlog_next(it->link, &chan);
    CHECK(msg != NULL);
    CHECK_INT(msg->code, code);
    CHECK(chan == of);
    if (code == XC_DATA) {
        xc_link_free_msg(it->link, msg);
    }
    else {
        xc_link_settle(it->link, msg);
    }
    if (chan != NULL) {
        xc_link_drop_chan(it->link, chan);
    }
}

static void
expect_no_next(rig *it)
{
    xc_chan *chan;
    CHECK(xc_link_backlog_next(it->link, &chan) == NULL);
    CHECK(chan == NULL);
}

static void *
try_to_enter(void *arg)
{
    rig *it = arg;
    CHECK(!xc_link_dispatching(it->link));
    CHECK_RC(xc_link_dispatch_enter(it->link), XC_AGAIN);
    CHECK_RC(wait_for(it, XC_WAIT_DISPATCH, NULL, xc_after(2 * XC_MS)), XC_TIMEOUT);
    return NULL;
}

static void *
wait_dispatch(void *arg)
{
    CHECK_RC(wait_for(arg, XC_WAIT_DISPATCH, NULL, XC_FOREVER), XC_OK);
    return NULL;
}

static void
send_mixed(rig *it, xc_chan *called, xc_chan *plain)
{
    send_int(it, called->id, 1);
    send_int(it, plain->id, 10);
    send_int(it, called->id, 2);
    rig_send(it, XC_CLOSE, called->id, NULL, 0);
    send_int(it, called->id, 3); /* behind the close: dropped */
    send_int(it, plain->id, 20);
    rig_send(it, XC_LAST_MESSAGE, plain->id, NULL, 0);
    rig_hang_up(it);
}

/* What stands behind a callback's item waits until that callback has returned. */
static void
order_behind_a_callback(void)
{
    pthread_t other;
    rig it = rig_open(false);
    xc_chan *called = new_chan(&it), *plain = new_chan(&it);
    CHECK(xc_link_set_callback(it.link, called));
    CHECK(!is_ready(&it, XC_WAIT_BACKLOG, NULL));
    send_mixed(&it, called, plain);
    CHECK_RC(wait_for(&it, XC_WAIT_BACKLOG, NULL, XC_FOREVER), XC_OK);
    AWAIT(state_of(&it).ended_by.code == XC_EOF);
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain) && !is_ready(&it, XC_WAIT_FIN, NULL));
    CHECK(!xc_link_dispatching(it.link));
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    CHECK(xc_link_dispatching(it.link));
    CHECK_INT(pthread_create(&other, NULL, try_to_enter, &it), 0);
    CHECK_INT(pthread_join(other, NULL), 0);
    CHECK_INT(pthread_create(&other, NULL, wait_dispatch, &it), 0);
    expect_next(&it, XC_DATA, called);
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain));
    xc_link_dispatch_leave(it.link); /* the inner hold */
    CHECK(xc_link_dispatching(it.link));
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain)); /* the callback of item 1 has not returned yet */
    expect_next(&it, XC_DATA, called);
    expect_int(&it, plain, 10); /* it stood between the two */
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain));
    CHECK(!xc_link_chan_state(it.link, called).closed);
    expect_next(&it, XC_CLOSE, called);
    CHECK(xc_link_chan_state(it.link, called).closed);
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain));
    xc_link_end_callback(it.link, called);
    CHECK(!is_ready(&it, XC_WAIT_CLOSE, plain));
    expect_no_next(&it); /* no callback is left: the rest takes effect by itself, the end included */
    expect_int(&it, plain, 20);
    CHECK(take(&it, plain) == NULL);
    CHECK(is_ready(&it, XC_WAIT_FIN, NULL));
    CHECK(!is_ready(&it, XC_WAIT_DISPATCH, NULL));
    xc_link_dispatch_leave(it.link);
    CHECK_INT(pthread_join(other, NULL), 0);
    xc_link_drop_chan(it.link, called);
    xc_link_drop_chan(it.link, plain);
    rig_close(&it);
}

/* Nothing takes effect while somebody has the role, even without a callback; leaving does what needs no Python. */
static void
leaving_works_off_the_rest(void)
{
    rig it = rig_open(false);
    xc_chan *called = new_chan(&it), *plain = new_chan(&it);
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    CHECK(xc_link_set_callback(it.link, called));
    send_int(&it, plain->id, 1);
    send_int(&it, called->id, 2);
    send_int(&it, plain->id, 3);
    for (size_t n = 0; n < 3;) {
        (void)wait_for(&it, XC_WAIT_ITEM, plain, xc_after(XC_MS));
        xc_lock(&it.link->mu);
        n = it.link->dispatch.backlog.count;
        xc_unlock(&it.link->mu);
    }
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain));
    CHECK(!is_ready(&it, XC_WAIT_BACKLOG, NULL)); /* somebody is at it */
    xc_link_dispatch_leave(it.link);
    expect_int(&it, plain, 1);
    CHECK(!is_ready(&it, XC_WAIT_ITEM, plain));
    CHECK(is_ready(&it, XC_WAIT_BACKLOG, NULL));
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    expect_next(&it, XC_DATA, called);
    xc_link_dispatch_leave(it.link);
    expect_int(&it, plain, 3);
    xc_link_end_callback(it.link, called);
    xc_link_drop_chan(it.link, called);
    xc_link_drop_chan(it.link, plain);
    rig_close(&it);
}

/* The end waits for the dispatcher as long as there are callbacks. */
static void
the_end_behind_callbacks(void)
{
    rig it = rig_open(false);
    xc_chan *chans[3], *plain = new_chan(&it), *chan;
    for (int i = 0; i < 3; i++) {
        chans[i] = new_chan(&it);
        CHECK(xc_link_set_callback(it.link, chans[i]));
    }
    send_chan(&it, chans[0]->id, 300);
    send_int(&it, 300, 5);
    send_chan(&it, plain->id, 302);
    rig_hang_up(&it);
    AWAIT(state_of(&it).ended_by.code == XC_EOF);
    CHECK(!state_of(&it).fin);
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    expect_next(&it, XC_DATA, chans[0]); /* with channel 300, which goes with it */
    xc_msg *fin = xc_link_backlog_next(it.link, &chan);
    CHECK(fin != NULL && fin->code == XC_FIN && chan == NULL);
    for (int n = 0; (chan = xc_link_any_callback(it.link)) != NULL; n++) {
        CHECK(n < 3);
        xc_link_end_callback(it.link, chan);
        xc_link_end_callback(it.link, chan);
        xc_link_drop_chan(it.link, chan);
    }
    CHECK(!state_of(&it).fin);
    xc_link_settle(it.link, fin);
    CHECK(state_of(&it).fin);
    expect_no_next(&it);
    xc_link_dispatch_leave(it.link);
    xc_msg *item = take(&it, plain); /* it came before the end: nothing of it is lost */
    chan = xc_link_carried(it.link, item, 0, 302);
    CHECK(chan != NULL && xc_link_chan_state(it.link, chan).recv_closed);
    xc_link_drop_chan(it.link, chan);
    xc_link_free_msg(it.link, item);
    xc_link_drop_chan(it.link, plain);
    for (int i = 0; i < 3; i++) {
        CHECK(xc_link_chan_state(it.link, chans[i]).recv_closed);
        xc_link_drop_chan(it.link, chans[i]);
    }
    rig_close(&it);
}

static atomic_int dispatched;

/* As the callback thread of the Python side does. */
static void *
dispatch_all(void *arg)
{
    rig *it = arg;
    while (!state_of(it).fin) {
        CHECK_RC(wait_for(it, XC_WAIT_BACKLOG, NULL, XC_FOREVER), XC_OK);
        if (xc_link_dispatch_enter(it->link) != XC_OK) {
            continue;
        }
        xc_chan *chan;
        for (xc_msg *msg; (msg = xc_link_backlog_next(it->link, &chan)) != NULL;) {
            if (msg->code == XC_DATA) {
                atomic_fetch_add(&dispatched, 1);
                xc_link_free_msg(it->link, msg);
                xc_link_drop_chan(it->link, chan);
                continue;
            }
            if (msg->code == XC_FIN) {
                while ((chan = xc_link_any_callback(it->link)) != NULL) {
                    xc_link_end_callback(it->link, chan);
                    xc_link_drop_chan(it->link, chan);
                }
            }
            xc_link_settle(it->link, msg);
            if (chan != NULL) {
                xc_link_drop_chan(it->link, chan);
            }
        }
        xc_link_dispatch_leave(it->link);
    }
    return NULL;
}

/* One thread dispatches, one waits for plain items, the far end sends both in turns. */
static void
dispatching_beside_receiving(void)
{
    enum { N = 2000 };
    pthread_t dispatcher;
    wire stream = {NULL, 0, 0};
    unsigned char payload[6];
    rig it = rig_open(false);
    xc_chan *called = new_chan(&it), *plain = new_chan(&it);
    atomic_store(&dispatched, 0);
    CHECK(xc_link_set_callback(it.link, called));
    CHECK_INT(pthread_create(&dispatcher, NULL, dispatch_all, &it), 0);
    for (uint32_t i = 0; i < N; i++) {
        wire_add(&stream, XC_DATA, called->id, payload, put_int(payload, i));
        wire_add(&stream, XC_DATA, plain->id, payload, put_int(payload, i));
        if (i % 100 == 99) {
            rig_send_wire(&it, &stream);
            stream.n = 0;
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        expect_int(&it, plain, i);
        CHECK(atomic_load(&dispatched) >= (int)i + 1); /* its callback's item came before it */
    }
    rig_hang_up(&it);
    CHECK_RC(wait_for(&it, XC_WAIT_FIN, NULL, XC_FOREVER), XC_OK);
    CHECK_INT(pthread_join(dispatcher, NULL), 0);
    CHECK_INT(atomic_load(&dispatched), N);
    wire_free(&stream);
    xc_link_drop_chan(it.link, called);
    xc_link_drop_chan(it.link, plain);
    rig_close(&it);
}

/* --- want of memory ------------------------------------------------------------------------------------------- */

/*
 * Fails allocation number k while all kinds of frames arrive. Each time the link ends in order, the items that are
 * not marked as lost are whole, and nothing leaks.
 */
static void
one_failure_at_a_time(void)
{
    for (int k = 1;; k++) {
        wire stream = {NULL, 0, 0};
        unsigned char payload[32], *large = calloc(1, 300000);
        CHECK(large != NULL);
        rig it = rig_open(true);
        xc_chan *chan = new_chan(&it), *called = new_chan(&it), *other;
        xc_err err;
        CHECK(xc_link_set_callback(it.link, called));
        wire_add(&stream, XC_EXEC, 1, "NQ", 2);
        wire_add(&stream, XC_DATA, chan->id, payload, put_chans(payload, 300, 2, 5));
        wire_add(&stream, XC_DATA, chan->id, large, 300000);
        wire_add(&stream, XC_STATUS, 5, NULL, 0);
        wire_add(&stream, XC_DATA, called->id, payload, put_chans(payload, 400, 2, 2));
        wire_add(&stream, XC_DATA, 300, payload, put_int(payload, 1));
        wire_add(&stream, XC_CLOSE_ERROR, 302, "NQ", 2);
        wire_add(&stream, XC_HELLO, 0, "NQ", 2);
        wire_add(&stream, XC_DATA, chan->id, payload, put_int(payload, 2));
        wire_add(&stream, XC_TERMINATE, 0, NULL, 0);
        atomic_store(&until_failure, k);
        xc_set_alloc_hook(fail_one);
        rig_send_wire(&it, &stream);
        if (k % 2 == 0) {
            (void)wait_for(&it, XC_WAIT_CLOSE, called, 20 * XC_MS);
        }
        AWAIT(state_of(&it).ended_by.code != XC_OK);
        if (xc_link_new_chan(it.link, &other, &err) == XC_OK) {
            xc_link_drop_chan(it.link, other);
        }
        CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
        xc_chan *of;
        for (xc_msg *msg; (msg = xc_link_backlog_next(it.link, &of)) != NULL;) {
            if (msg->code == XC_FIN) {
                xc_link_end_callback(it.link, called);
            }
            xc_link_settle(it.link, msg);
            if (of != NULL) {
                xc_link_drop_chan(it.link, of);
            }
        }
        xc_link_dispatch_leave(it.link);
        await_fin(&it);
        xc_set_alloc_hook(NULL);
        xc_status why = state_of(&it).ended_by.code;
        CHECK(why == XC_CLOSED || why == XC_NOMEM || why == XC_SYS);
        int items = 0, lost = 0;
        for (xc_msg *msg; (msg = take(&it, chan)) != NULL; items++) {
            lost += msg->lost;
            xc_link_free_msg(it.link, msg);
        }
        CHECK(lost <= 1);
        CHECK(why != XC_CLOSED || items == 3); /* lost or not, each is told of */
        xc_link_end_callback(it.link, called);
        xc_link_drop_chan(it.link, called);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
        wire_free(&stream);
        free(large);
        if (atomic_load(&until_failure) > 0) {
            CHECK(k > 10);
            return;
        }
    }
}

int
main(void)
{
    check_io_begin("inbox", 60);
    signal(SIGPIPE, SIG_IGN);
    RUN_IO(answers_need_nobody);
    RUN_IO(reconfigure);
    RUN_IO(hello);
    RUN_IO(too_many_hellos);
    RUN_IO(tasks_for_two);
    RUN_IO(tasks_that_carry_channels);
    RUN_IO(tasks_and_the_goodbye);
    RUN_IO(order_behind_a_callback);
    RUN_IO(leaving_works_off_the_rest);
    RUN_IO(the_end_behind_callbacks);
    RUN_IO(dispatching_beside_receiving);
    RUN_IO(one_failure_at_a_time);
    return check_end();
}
