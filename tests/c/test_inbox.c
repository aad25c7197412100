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
    RUN_IO(answers_need_nobody);
    RUN_IO(reconfigure);
    RUN_IO(hello);
    RUN_IO(too_many_hellos);
    RUN_IO(tasks_for_two);
    RUN_IO(tasks_that_carry_channels);
    RUN_IO(tasks_and_the_goodbye);
    RUN_IO(one_failure_at_a_time);
    return check_end();
}
