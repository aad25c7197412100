/*
 * Flow control as both ends of it see it: senders of ours that wait, and the far end's credit, played by the test.
 */
#ifndef CREDIT_RIG_H
#define CREDIT_RIG_H

#include "registration_rig.h"
#include "xc_bytes.h"

/* What send_int() costs. */
enum { INT_COST = 6 + XC_ITEM_COST };

__attribute__((unused)) static void
send_credit(rig *it, uint32_t chan, uint64_t taken, uint64_t limit)
{
    unsigned char payload[XC_CREDIT_SIZE];
    xc_credit_pack(payload, taken, limit);
    rig_send(it, XC_CREDIT, chan, payload, sizeof payload);
}

__attribute__((unused)) static void
expect_credit(rig *it, uint32_t chan, uint64_t taken, uint64_t limit)
{
    unsigned char payload[XC_CREDIT_SIZE];
    xc_credit_pack(payload, taken, limit);
    expect_frame(it->from, XC_CREDIT, chan, payload, sizeof payload);
}

/* All that was sent to the link before has taken effect, and it has said nothing of itself meanwhile. */
__attribute__((unused)) static void
settle(rig *it)
{
    xc_frame frame;
    unsigned char *payload;
    rig_send(it, XC_STATUS, 0, NULL, 0);
    CHECK(read_frame(it->from, &frame, &payload));
    free(payload);
    CHECK_INT(frame.code, XC_DATA);
    CHECK_INT(frame.chan, 0);
    expect_frame(it->from, XC_CLOSE, 0, NULL, 0);
}

/* A channel of this side with that limit for what is sent. */
__attribute__((unused)) static xc_chan *
limited_chan(rig *it, uint64_t limit)
{
    xc_chan *chan = new_chan(it);
    send_credit(it, chan->id, 0, limit);
    settle(it);
    CHECK(chan->credit.limited);
    return chan;
}

__attribute__((unused)) static xc_claim
claim_of(uint64_t cost)
{
    return (xc_claim){.cost = cost, .owner = pthread_self() == 0 ? NULL : (const void *)(uintptr_t)pthread_self()};
}

/* True: it may be sent at once. A claim that would have to wait leaves the line again. */
__attribute__((unused)) static bool
may_send(rig *it, xc_chan *chan, uint64_t cost)
{
    xc_claim claim = claim_of(cost);
    bool may = xc_link_claim(it->link, chan, &claim);
    if (!may) {
        CHECK(!xc_link_unclaim(it->link, chan, &claim));
    }
    return may;
}

__attribute__((unused)) static uint64_t
limit_out(rig *it, xc_chan *chan)
{
    xc_lock(&it->link->mu);
    uint64_t limit = chan->credit.limit_out;
    xc_unlock(&it->link->mu);
    return limit;
}

/* A thread that sends one item, as long as that takes. */
typedef struct {
    rig *it;
    xc_chan *chan;
    uint64_t cost;
    pthread_t thread;
    atomic_bool sent;
} sender;

__attribute__((unused)) static void *
run_sender(void *arg)
{
    sender *me = arg;
    xc_claim claim = claim_of(me->cost);
    size_t space;
    while (!xc_link_claim(me->it->link, me->chan, &claim)) {
        xc_wait wait = {.kind = XC_WAIT_CREDIT, .chan = me->chan, .claim = &claim, .until = XC_FOREVER};
        xc_status rc = xc_link_wait_nogil(me->it->link, &wait, &space);
        CHECK(rc == XC_OK || rc == XC_INTR);
    }
    atomic_store(&me->sent, true);
    return NULL;
}

__attribute__((unused)) static int
line_of(rig *it, xc_chan *chan)
{
    int n = 0;
    xc_lock(&it->link->mu);
    for (xc_claim *claim = chan->credit.line; claim != NULL; claim = claim->next) {
        n++;
    }
    xc_unlock(&it->link->mu);
    return n;
}

/* Returns when it waits as number `n` in the line. */
__attribute__((unused)) static void
start_sender(sender *me, rig *it, xc_chan *chan, uint64_t cost, int n)
{
    *me = (sender){.it = it, .chan = chan, .cost = cost};
    CHECK_INT(pthread_create(&me->thread, NULL, run_sender, me), 0);
    AWAIT(line_of(it, chan) == n && count_waiters(it) == n);
}

/* It may go on, or this hangs. */
__attribute__((unused)) static void
join_sender(sender *me)
{
    pthread_join(me->thread, NULL);
    CHECK(me->sent);
}

#endif
