/*
 * A link whose far end is the test itself: two pipes, frames written and read by hand. With RIG_RINGS=1 in the
 * environment the link has rings instead, and ring_proxy.h stands between them and the pipes.
 */
#ifndef LINK_RIG_H
#define LINK_RIG_H

#include <fcntl.h>
#include <signal.h>

#include "check_io.h"
#include "ring_proxy.h"
#include "wire.h"
#include "xc_link_impl.h"

typedef struct {
    xc_link *link;
    int to;   /* what is written here arrives at the link; -1: closed */
    int from; /* what the link sends */
    proxy *rings;
} rig;

/* For xc_set_alloc_hook: only that allocation fails. */
static atomic_int until_failure;

__attribute__((unused)) static bool
fail_one(void)
{
    return atomic_fetch_sub(&until_failure, 1) != 1;
}

/* Texts of channels that nobody holds, and lent memory that was not used. */
static atomic_int rig_orphans, rig_dropped;

static void
rig_orphan(void *arg, xc_msg *msg)
{
    (void)arg;
    atomic_fetch_add(&rig_orphans, 1);
    xc_msg_free(msg);
}

static void
rig_drop_space(void *arg, xc_msg *msg)
{
    (void)arg;
    atomic_fetch_add(&rig_dropped, 1);
    free(msg->space);
    msg->space = NULL;
    xc_msg_free(msg);
}

/* For xc_link_object: the objects of these tests stay where they are. */
__attribute__((unused)) static bool
rig_keep(void *object)
{
    return object != NULL;
}

static xc_link_opts
rig_opts(bool worker)
{
    return (xc_link_opts){.worker = worker, .orphan_error = rig_orphan, .drop_space = rig_drop_space};
}

__attribute__((unused)) static rig
rig_open_with(xc_link_opts opts)
{
    int to[2], from[2];
    xc_err err;
    atomic_store(&rig_orphans, 0);
    atomic_store(&rig_dropped, 0);
    CHECK(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    if (opts.worker) {
        signal(SIGINT, SIG_IGN); /* one that ends without a goodbye interrupts its process: see xc_exit_policy.h */
    }
    rig it = {.to = to[1], .from = from[0]};
    int in = to[0], out = from[1];
    xc_region region;
    if (proxy_wanted() && !opts.marked) {
        it.rings = proxy_start(&in, &out, &region);
        opts.region = &region;
    }
    it.link = xc_link_new(&opts, in, out, &err);
    CHECK(it.link != NULL);
    return it;
}

__attribute__((unused)) static rig
rig_open(bool worker)
{
    return rig_open_with(rig_opts(worker));
}

/* The link first: a worker's must not see its master vanish, or it might end this process. */
__attribute__((unused)) static void
rig_close(rig *it)
{
    xc_link_release(it->link);
    it->link = NULL;
    if (it->to >= 0) {
        close(it->to);
    }
    close(it->from);
    if (it->rings != NULL) {
        proxy_end(it->rings);
        it->rings = NULL;
    }
}

__attribute__((unused)) static void
rig_hang_up(rig *it)
{
    close(it->to);
    it->to = -1;
}

__attribute__((unused)) static void
rig_send(rig *it, int code, uint32_t chan, const void *payload, size_t size)
{
    wire frame = {NULL, 0, 0};
    wire_add(&frame, code, chan, payload, size);
    write_all(it->to, frame.data, frame.n);
    wire_free(&frame);
}

__attribute__((unused)) static void
rig_send_wire(rig *it, const wire *what)
{
    write_all(it->to, what->data, what->n);
}

/* The far end's process has ended: what it wrote is there. */
__attribute__((unused)) static void
rig_peer_gone(rig *it)
{
    if (it->rings != NULL) {
        AWAIT(proxy_settled(it->rings));
    }
    xc_link_peer_gone(it->link);
}

__attribute__((unused)) static xc_chan *
new_chan(rig *it)
{
    xc_chan *chan;
    xc_err err;
    CHECK_RC(xc_link_new_chan(it->link, &chan, &err), XC_OK);
    return chan;
}

__attribute__((unused)) static xc_chan *
chan_of(rig *it, uint32_t id)
{
    xc_chan *chan;
    xc_err err;
    CHECK_RC(xc_link_chan(it->link, id, &chan, &err), XC_OK);
    return chan;
}

__attribute__((unused)) static xc_status
wait_for(rig *it, xc_wait_kind kind, xc_chan *chan, int64_t until)
{
    xc_wait wait = {.kind = kind, .chan = chan, .until = until};
    size_t space = 0;
    return xc_link_wait_nogil(it->link, &wait, &space);
}

__attribute__((unused)) static bool
is_ready(rig *it, xc_wait_kind kind, xc_chan *chan)
{
    xc_wait wait = {.kind = kind, .chan = chan};
    return xc_link_ready(it->link, &wait);
}

/* The next item, waited for as long as it takes, owned; NULL: none will come. */
__attribute__((unused)) static xc_msg *
take(rig *it, xc_chan *chan)
{
    xc_msg *msg = NULL;
    xc_status rc;
    while ((rc = xc_link_take_soon(it->link, chan, 3000, &msg)) == XC_AGAIN) {
        xc_status waited = wait_for(it, XC_WAIT_ITEM, chan, XC_FOREVER);
        CHECK(waited == XC_OK || waited == XC_INTR);
    }
    CHECK(rc == XC_OK || rc == XC_CLOSED);
    CHECK((rc == XC_OK) == (msg != NULL));
    return msg;
}

__attribute__((unused)) static void
expect_item(rig *it, xc_chan *chan, const void *payload, size_t size)
{
    xc_msg *msg = take(it, chan);
    CHECK(msg != NULL);
    CHECK_INT(msg->chan, chan->id);
    CHECK(!msg->lost);
    CHECK_INT(msg->size, size);
    CHECK(size == 0 || memcmp(msg->data, payload, size) == 0);
    xc_link_free_msg(it->link, msg);
}

__attribute__((unused)) static xc_link_state
state_of(rig *it)
{
    xc_link_state state;
    xc_link_get_state(it->link, &state);
    return state;
}

/* Without reading: the pump is to find out. */
__attribute__((unused)) static void
await_fin(rig *it)
{
    AWAIT(state_of(it).fin);
}

/* Somebody has the reader role and has looked at the stream: a waiter that came before. */
__attribute__((unused)) static void
await_reader(rig *it)
{
    bool reading = false;
    while (!reading) {
        check_pause_ms(1);
        xc_lock(&it->link->mu);
        for (xc_waiter *waiter = it->link->wait.waiters; waiter != NULL; waiter = waiter->next) {
            reading = reading || waiter->reader;
        }
        xc_unlock(&it->link->mu);
    }
}

__attribute__((unused)) static int
count_waiters(rig *it)
{
    int n = 0;
    xc_lock(&it->link->mu);
    for (xc_waiter *waiter = it->link->wait.waiters; waiter != NULL; waiter = waiter->next) {
        n++;
    }
    xc_unlock(&it->link->mu);
    return n;
}

__attribute__((unused)) static void
await_waiters(rig *it, int n)
{
    AWAIT(count_waiters(it) == n);
}

/* --- lent memory ---------------------------------------------------------------------------------------------- */

__attribute__((unused)) static xc_status
wait_giving(rig *it, xc_chan *chan, int64_t until, size_t *space)
{
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = chan, .until = until, .can_give = true};
    *space = 0;
    return xc_link_wait_nogil(it->link, &wait, space);
}

/* The pump stands still meanwhile: it would read a payload for which nobody gives memory soon. */
static atomic_int pump_stands, pump_may_go;
static xc_job stop_job;

__attribute__((unused)) static void
stand_still(xc_job *job)
{
    (void)job;
    atomic_store(&pump_stands, 1);
    AWAIT(atomic_load(&pump_may_go));
    atomic_store(&pump_stands, 0);
}

__attribute__((unused)) static void
stop_pump(void)
{
    atomic_store(&pump_may_go, 0);
    stop_job = (xc_job){.run = stand_still};
    xc_pump_post(&stop_job);
    AWAIT(atomic_load(&pump_stands));
}

__attribute__((unused)) static void
let_pump_go(void)
{
    atomic_store(&pump_may_go, 1);
    AWAIT(!atomic_load(&pump_stands));
}

/* --- payloads ------------------------------------------------------------------------------------------------- */

__attribute__((unused)) static void
put32(unsigned char *at, uint32_t value)
{
    at[0] = (unsigned char)(value >> 24);
    at[1] = (unsigned char)(value >> 16);
    at[2] = (unsigned char)(value >> 8);
    at[3] = (unsigned char)value;
}

/* A number. Returns its size. */
__attribute__((unused)) static size_t
put_int(unsigned char *at, uint32_t value)
{
    at[0] = 'F';
    put32(at + 1, value);
    at[5] = 'Q';
    return 6;
}

/* A tuple of n channels with ids first, first + step ... ; `at` has 5 * n + 6 bytes. Returns its size. */
__attribute__((unused)) static size_t
put_chans(unsigned char *at, uint32_t first, uint32_t step, uint32_t n)
{
    unsigned char *start = at;
    for (uint32_t i = 0; i < n; i++, at += 5) {
        at[0] = 'B';
        put32(at + 1, first + i * step);
    }
    at[0] = '@';
    put32(at + 1, n);
    at[5] = 'Q';
    return (size_t)(at + 6 - start);
}

__attribute__((unused)) static void
send_int(rig *it, uint32_t chan, uint32_t value)
{
    unsigned char payload[6];
    rig_send(it, XC_DATA, chan, payload, put_int(payload, value));
}

/* What an item that arrives for `chan` now is loaded with. */
__attribute__((unused)) static int
coercion_of_an_item(rig *it, xc_chan *chan)
{
    send_int(it, chan->id, 1);
    xc_msg *msg = take(it, chan);
    CHECK(msg != NULL);
    int coerce = msg->coerce;
    xc_link_free_msg(it->link, msg);
    return coerce;
}

__attribute__((unused)) static void
send_chan(rig *it, uint32_t chan, uint32_t carried)
{
    unsigned char payload[11];
    rig_send(it, XC_DATA, chan, payload, put_chans(payload, carried, 0, 1));
}

__attribute__((unused)) static void
expect_int(rig *it, xc_chan *chan, uint32_t value)
{
    unsigned char payload[6];
    expect_item(it, chan, payload, put_int(payload, value));
}

__attribute__((unused)) static void
expect_pattern(rig *it, xc_chan *chan, size_t size, unsigned seq)
{
    xc_msg *msg = take(it, chan);
    CHECK(msg != NULL && !msg->lost);
    CHECK_INT(msg->size, size);
    CHECK(has_pattern(msg->data, size, chan->id, seq));
    xc_link_free_msg(it->link, msg);
}

#endif
