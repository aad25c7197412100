/*
 * The dispatcher role and the backlog: frames take effect in order behind callbacks, and the end comes last.
 */
#include "link_rig.h"

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

int
main(void)
{
    check_io_begin("dispatch", 60);
    RUN_IO(order_behind_a_callback);
    RUN_IO(leaving_works_off_the_rest);
    RUN_IO(the_end_behind_callbacks);
    RUN_IO(dispatching_beside_receiving);
    return check_end();
}
