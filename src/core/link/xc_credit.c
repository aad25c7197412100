/*
 * Flow control: a receiver that does not keep up stops its senders.
 *
 * Both ends of a channel count what was ever sent, or taken, in costs (xc_msg_cost). The receiver sends CREDIT with
 * what it has taken and its limit: when half a limit has been taken since the last one, and, if the sender has said
 * WAITS, when all that had come is taken. An item may be sent if nothing of the channel is under way, or if it fits
 * into the limit beside what is. So an item that is larger than the limit goes alone.
 *
 * Both codes take effect at once, and not behind a running callback, because that callback may be the sender who waits.
 * Only where the channel is not known yet they wait in the backlog, behind what will make it.
 *
 * Nobody waits for ever:
 * - The sender says WAITS again when a credit was not enough for the first in the line.
 * - The receiver forgets a WAITS only when it tells that all is taken.
 * - A close, and the end of the link, lift the limit when they arrive, even if they take effect later, behind a
 * callback.
 * - For a channel that nobody has here, WAITS is answered by a credit without a limit: what comes for it is dropped.
 * - Counts that began at only one end, because the other had dropped the channel before, lift the limit, too.
 */
#include <string.h>

#include "xc_link_impl.h"

/* --- the sender ----------------------------------------------------------------------------------------------- */

/* There is no limit, or no credit will come: the writer knows whether anything can be sent. */
static bool
is_free_locked(const xc_link *link, const xc_chan *chan) XC_NEEDS(link)
{
    return !chan->credit.limited || link->end.eof || link->goodbye.leaves;
}

static bool
fits_locked(const xc_link *link, const xc_chan *chan, uint64_t cost) XC_NEEDS(link)
{
    const xc_credit *credit = &chan->credit;
    uint64_t under_way = atomic_load(&credit->sent) - credit->taken_there;
    return is_free_locked(link, chan) || under_way == 0 ||
           (cost <= credit->limit_out && under_way <= credit->limit_out - cost);
}

/* Where the claim stands in the line, or would stand. */
static xc_claim **
place_in_line_locked(xc_chan *chan, const xc_claim *claim) XC_NEEDS(link)
{
    xc_claim **p = &chan->credit.line;
    while (*p != NULL && (*p)->owner != claim->owner) {
        p = &(*p)->next;
    }
    return p;
}

bool
xc_credit_ready_locked(xc_link *link, xc_chan *chan, const xc_claim *claim)
{
    return is_free_locked(link, chan) ||
           (place_in_line_locked(chan, claim) == &chan->credit.line && fits_locked(link, chan, claim->cost));
}

/* Credit has come, or the line has changed: those who may go on are told, and if nobody may, the far end is asked. */
static void
line_moves_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link)
{
    xc_credit *credit = &chan->credit;
    for (xc_claim *claim = credit->line; claim != NULL; claim = claim->next) {
        if (claim->job != NULL && !claim->posted && xc_credit_ready_locked(link, chan, claim)) {
            claim->posted = true;
            xc_pump_post(claim->job); /* it may have waited for just this */
        }
    }
    if (credit->line != NULL && !credit->asked && !fits_locked(link, chan, credit->line->cost)) {
        credit->asked = true;
        (void)xc_link_post(link, XC_WAITS, chan->id, NULL, 0);
    }
}

static void
leave_line_locked(xc_link *link, xc_chan *chan, xc_claim *claim) XC_NEEDS(link)
{
    xc_claim **p = &chan->credit.line;
    while (*p != claim) {
        p = &(*p)->next;
    }
    *p = claim->next;
    claim->waits = false;
    line_moves_locked(link, chan);
    xc_wake_locked(link); /* the next one in the line may go on */
}

bool
xc_link_claim(xc_link *link, xc_chan *chan, xc_claim *claim)
{
    xc_credit *credit = &chan->credit;
    xc_lock_link(&link->mu);
    bool may_go = xc_credit_ready_locked(link, chan, claim);
    claim->posted = false;
    if (may_go) {
        atomic_fetch_add(&credit->sent, claim->cost);
        if (claim->waits) {
            leave_line_locked(link, chan, claim);
        }
        else {
            line_moves_locked(link, chan); /* it went before another one of its owner */
        }
    }
    else if (!claim->waits) {
        xc_claim **p = place_in_line_locked(chan, claim);
        credit->line_since = credit->line == NULL ? xc_now() : credit->line_since;
        claim->next = *p;
        *p = claim;
        claim->waits = true;
        line_moves_locked(link, chan);
    }
    xc_unlock_link(&link->mu);
    return may_go;
}

bool
xc_link_unclaim(xc_link *link, xc_chan *chan, xc_claim *claim)
{
    xc_lock_link(&link->mu);
    bool posted = claim->posted;
    if (claim->waits) {
        leave_line_locked(link, chan, claim);
    }
    xc_unlock_link(&link->mu);
    return posted;
}

void
xc_link_unsent(xc_link *link, xc_chan *chan, uint64_t cost)
{
    xc_lock_link(&link->mu);
    atomic_fetch_sub(&chan->credit.sent, cost);
    if (chan->credit.line != NULL) {
        line_moves_locked(link, chan);
        xc_wake_locked(link); /* the first in the line may go on */
    }
    xc_unlock_link(&link->mu);
}

static void
count_sent_locked(xc_link *link, xc_chan *chan, uint64_t cost) XC_NEEDS(link)
{
    atomic_fetch_add(&chan->credit.sent, cost);
    line_moves_locked(link, chan); /* the first in the line may have to wait again */
}

void
xc_link_sent(xc_link *link, uint32_t id, uint64_t cost)
{
    xc_lock_link(&link->mu);
    xc_chan *chan = xc_chan_find(&link->chans.table, id);
    if (chan != NULL) {
        count_sent_locked(link, chan, cost);
    }
    xc_unlock_link(&link->mu);
}

void
xc_link_sent_to(xc_link *link, xc_chan *chan, uint64_t cost)
{
    xc_lock_link(&link->mu);
    count_sent_locked(link, chan, cost);
    xc_unlock_link(&link->mu);
}

void
xc_credit_lift_locked(xc_link *link, xc_chan *chan)
{
    chan->credit.over = true;
    atomic_store(&chan->credit.limited, false);
    chan->credit.limit_out = XC_NO_LIMIT;
    line_moves_locked(link, chan); /* no credit will move it */
}

void
xc_credit_end_locked(xc_link *link, const xc_msg *msg)
{
    size_t at = 0;
    if (msg->code != XC_FIN) {
        for (xc_chan *chan; (chan = xc_chan_find_any(&link->chans.table, msg->chan, &at)) != NULL;) {
            xc_credit_lift_locked(link, chan);
        }
        return;
    }
    for (xc_chan *chan = link->chans.table.all; chan != NULL; chan = chan->next_all) {
        line_moves_locked(link, chan); /* the link has ended */
    }
}

/* --- the receiver --------------------------------------------------------------------------------------------- */

static bool
all_taken_locked(const xc_chan *chan) XC_NEEDS(link)
{
    return chan->items.head == NULL && chan->credit.behind == 0;
}

static void
tell_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link)
{
    unsigned char payload[XC_CREDIT_SIZE];
    chan->credit.owed = false;
    chan->credit.told = chan->credit.taken;
    chan->credit.peer_waits = chan->credit.peer_waits && !all_taken_locked(chan);
    xc_credit_pack(payload, chan->credit.taken, chan->credit.limit_in);
    (void)xc_link_post(link, XC_CREDIT, chan->id, payload, sizeof payload);
}

/* Tells it now, or once the far end has read what waits to be written: one answer for a channel waits at most. */
static void
owe_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link)
{
    if (!chan->credit.owed) {
        chan->credit.owed = true;
        xc_owe_locked(link, XC_OWES_CREDIT, chan->id);
    }
}

void
xc_credit_tell_locked(xc_link *link, xc_chan *chan)
{
    const xc_credit *credit = &chan->credit;
    bool due = credit->taken - credit->told >= credit->limit_in / 2 || (credit->peer_waits && all_taken_locked(chan));
    if (due && !chan->recv_closed && !link->end.eof) {
        owe_locked(link, chan); /* a sender there may wait for just this */
    }
}

void
xc_credit_behind_locked(xc_link *link, const xc_msg *msg, bool comes)
{
    xc_chan *chan = msg->code == XC_DATA ? xc_chan_find(&link->chans.table, msg->chan) : NULL;
    /* If the channel was not known when the item came it was not counted. */
    if (chan != NULL && (comes || chan->credit.behind > 0)) {
        chan->credit.behind += comes ? 1 : UINT32_MAX;
    }
}

static void
taken_behind_locked(xc_link *link, xc_chan *chan, uint32_t n, uint64_t cost) XC_NEEDS(link)
{
    chan->credit.behind -= n < chan->credit.behind ? n : chan->credit.behind;
    chan->credit.held -= cost < chan->credit.held ? cost : chan->credit.held;
    xc_credit_take_locked(link, chan, cost);
}

void
xc_link_taken(xc_link *link, xc_chan *chan, uint32_t n, uint64_t cost)
{
    xc_lock_link(&link->mu);
    taken_behind_locked(link, chan, n, cost);
    xc_unlock_link(&link->mu);
}

void
xc_link_called(xc_link *link, xc_chan *chan, uint64_t cost)
{
    xc_lock_link(&link->mu);
    taken_behind_locked(link, chan, 1, cost);
    xc_unhold_locked(link, chan);
    xc_unlock_link(&link->mu);
}

void
xc_credit_answer_locked(xc_link *link, uint32_t id)
{
    unsigned char payload[XC_CREDIT_SIZE];
    xc_chan *chan = xc_chan_find(&link->chans.table, id);
    if (chan != NULL) {
        tell_locked(link, chan);
        return;
    }
    xc_credit_pack(payload, 0, XC_NO_LIMIT);
    (void)xc_link_post(link, XC_CREDIT, id, payload, sizeof payload);
}

/* --- what arrives --------------------------------------------------------------------------------------------- */

/* XC_BAD: it cannot be. */
static xc_status
take_credit_locked(xc_link *link, xc_chan *chan, uint64_t taken, uint64_t limit, xc_err *err) XC_NEEDS(link)
{
    xc_credit *credit = &chan->credit;
    bool too_much = taken > atomic_load(&credit->sent), less = taken < credit->taken_there && limit != XC_NO_LIMIT;
    if (credit->over) {
        return XC_OK;
    }
    if ((too_much || less) && (!credit->whole || chan->half_told)) {
        xc_credit_lift_locked(link, chan);
        return XC_OK;
    }
    if (too_much) {
        return xc_failf(err, XC_BAD, "read", "credit for bytes that were never sent");
    }
    if (less) {
        return xc_failf(err, XC_BAD, "read", "credit for fewer bytes than before");
    }
    credit->taken_there = taken > credit->taken_there ? taken : credit->taken_there;
    credit->limit_out = limit;
    atomic_store(&credit->limited, limit != XC_NO_LIMIT);
    credit->credited = true;
    credit->asked = false;
    line_moves_locked(link, chan); /* it may not have been enough */
    return XC_OK;
}

static void
take_waits_locked(xc_link *link, uint32_t id) XC_NEEDS(link)
{
    xc_chan *chan = xc_chan_find(&link->chans.table, id);
    if (chan != NULL && !chan->credit.peer_waits) {
        chan->credit.peer_waits = true;
        chan->credit.peer_since = xc_now();
    }
    if (chan == NULL) {
        xc_owe_locked(link, XC_OWES_CREDIT, id);
    }
    else if (all_taken_locked(chan) &&
             (chan->credit.told < chan->credit.taken || chan->credit.limit_in == XC_NO_LIMIT)) {
        owe_locked(link, chan); /* nothing else would tell it */
    }
}

xc_status
xc_credit_arrives_locked(xc_link *link, xc_msg *msg, xc_err *err)
{
    uint64_t taken, limit;
    xc_status rc = XC_OK;
    size_t at = 0;
    xc_chan *chan = xc_chan_find_any(&link->chans.table, msg->chan, &at);
    if (chan == NULL && link->dispatch.backlog.head != NULL) {
        xc_queue_push(&link->dispatch.backlog, msg);
        return XC_OK;
    }
    if (msg->code == XC_WAITS) {
        take_waits_locked(link, msg->chan);
    }
    else {
        xc_credit_unpack(msg->data, &taken, &limit);
    }
    for (; msg->code == XC_CREDIT && chan != NULL && rc == XC_OK;
         chan = xc_chan_find_any(&link->chans.table, msg->chan, &at)) {
        chan->credit.at_once = true;
        rc = take_credit_locked(link, chan, taken, limit, err);
    }
    xc_free_later_locked(link, msg);
    return rc;
}

void
xc_credit_apply_locked(xc_link *link, const xc_msg *msg)
{
    uint64_t taken, limit;
    xc_chan *chan = xc_chan_find(&link->chans.table, msg->chan);
    if (msg->code == XC_WAITS) {
        take_waits_locked(link, msg->chan);
    }
    else if (chan != NULL && !chan->credit.at_once) {
        xc_credit_unpack(msg->data, &taken, &limit);
        if (take_credit_locked(link, chan, taken, limit, NULL) != XC_OK) {
            xc_credit_lift_locked(link, chan); /* the link cannot be ended from here, and needs no end for that */
        }
    }
}

/* --- limits --------------------------------------------------------------------------------------------------- */

static void
limit_out_locked(xc_chan *chan, uint64_t limit) XC_NEEDS(link)
{
    chan->credit.limit_out = limit;
    atomic_store(&chan->credit.limited, limit != XC_NO_LIMIT);
}

void
xc_credit_begin_locked(xc_link *link, xc_chan *chan)
{
    chan->credit.limit_in = link->chans.limit;
    limit_out_locked(chan, link->chans.limit);
}

void
xc_link_set_window(xc_link *link, xc_chan *chan, uint64_t limit)
{
    xc_lock_link(&link->mu);
    chan->credit.limit_in = limit;
    if (!chan->credit.over) {
        limit_out_locked(chan, limit);
    }
    xc_unlock_link(&link->mu);
}

xc_status
xc_link_set_limit(xc_link *link, xc_chan *chan, uint64_t limit)
{
    xc_lock_link(&link->mu);
    xc_status rc = chan->closed ? XC_CLOSED : XC_OK;
    chan->credit.limit_in = limit;
    if (!chan->recv_closed) {
        tell_locked(link, chan);
    }
    xc_unlock_link(&link->mu);
    return rc;
}

void
xc_link_tell_limits(xc_link *link, const void *ids, size_t n)
{
    xc_lock_link(&link->mu);
    for (size_t i = 0; i < n; i++) {
        uint32_t id;
        memcpy(&id, (const char *)ids + i * sizeof id, sizeof id);
        xc_chan *chan = xc_chan_find(&link->chans.table, id);
        if (chan != NULL && chan->credit.limit_in != link->chans.limit) {
            tell_locked(link, chan); /* what was told before the far end knew the channel was ignored */
        }
    }
    xc_unlock_link(&link->mu);
}

void
xc_link_set_limit_of_new(xc_link *link, uint64_t limit)
{
    xc_lock_link(&link->mu);
    link->chans.limit = limit;
    for (xc_chan *chan = link->chans.table.all; chan != NULL; chan = chan->next_all) {
        xc_credit *credit = &chan->credit;
        if (atomic_load(&credit->sent) > 0 || credit->taken > 0) {
            continue;
        }
        if (credit->limit_in == XC_NO_LIMIT) {
            credit->limit_in = limit;
        }
        if (!credit->credited && !credit->over) {
            limit_out_locked(chan, limit);
        }
    }
    xc_unlock_link(&link->mu);
}

/* --- how it stands -------------------------------------------------------------------------------------------- */

static uint64_t
cost_of_items(const xc_queue *queue)
{
    uint64_t cost = 0;
    for (const xc_msg *msg = queue->head; msg != NULL; msg = msg->next) {
        cost += msg->code == XC_DATA ? xc_msg_cost(msg) : 0;
    }
    return cost;
}

size_t
xc_link_get_flow(xc_link *link, xc_flow *out, size_t max, xc_flow *backlog)
{
    size_t n = 0;
    int64_t now = xc_now();
    xc_lock_link(&link->mu);
    *backlog = (xc_flow){.bytes = cost_of_items(&link->dispatch.backlog)};
    for (const xc_msg *msg = link->dispatch.backlog.head; msg != NULL; msg = msg->next) {
        backlog->items += msg->code == XC_DATA;
    }
    for (xc_chan *chan = link->chans.table.all; chan != NULL; chan = chan->next_all) {
        const xc_credit *credit = &chan->credit;
        if (!chan->placed && chan->items.head == NULL) {
            continue;
        }
        if (n < max) {
            out[n] = (xc_flow){
                .id = chan->id,
                .items = chan->items.count + (credit->held > 0 ? credit->behind : 0),
                .bytes = cost_of_items(&chan->items) + credit->held,
                .limit_in = credit->limit_in,
                .peer_waits = credit->peer_waits ? now - credit->peer_since : -1,
                .under_way = atomic_load(&credit->sent) - credit->taken_there,
                .limit_out = credit->limit_out,
                .waits = credit->line != NULL ? now - credit->line_since : -1,
            };
        }
        n++;
    }
    xc_unlock_link(&link->mu);
    return n;
}
