/*
 * What the Python side does with channels: opens them, receives from them, closes them, drops them.
 */
#include "xc_link_impl.h"

void
xc_close_locked(xc_link *link, xc_chan *chan, bool send_only)
{
    size_t at = 0;
    chan->closed = chan->closed || !send_only;
    chan->recv_closed = true;
    if (send_only && !chan->closed) { /* it stays in the table, so that credit for it is found */
        xc_chan_unlist(&link->chans.table, chan);
        for (xc_chan *old; (old = xc_chan_find_any(&link->chans.table, chan->id, &at)) != NULL;) {
            if (old != chan && !old->listed) { /* one with that id is enough */
                xc_credit_lift_locked(link, old);
                xc_chan_remove(&link->chans.table, old);
                break;
            }
        }
        return;
    }
    xc_credit_lift_locked(link, chan); /* nobody may wait for credit of a closed channel */
    xc_chan_remove(&link->chans.table, chan);
}

static xc_chan *
open_chan_locked(xc_link *link, uint32_t id) XC_NEEDS(link)
{
    xc_chan *chan = xc_chan_new(&link->chans.table, id);
    if (chan != NULL) {
        chan->coerce = (signed char)link->chans.coerce;
        xc_credit_begin_locked(link, chan);
    }
    return chan;
}

struct refusal {
    xc_link *link;
    const xc_msg *msg;
};

static bool
refuse_locked(void *arg, uint32_t id) XC_NEEDS(link)
{
    struct refusal *it = arg;
    bool own = it->msg->code == XC_EXEC && id == it->msg->chan; /* the task's channel is told more */
    if (!own && xc_chan_find(&it->link->chans.table, id) == NULL) {
        xc_owe_locked(it->link, XC_OWES_CLOSE, id);
    }
    return true;
}

void
xc_refuse_carried_locked(xc_link *link, xc_msg *msg)
{
    struct refusal refusal = {link, msg};
    XC_ASSERT(msg->carried == NULL);
    for (size_t i = 0; i < msg->n_ids; i++) {
        (void)refuse_locked(&refusal, msg->ids[i]);
    }
    if (msg->lost && msg->data != NULL) { /* there was no memory for its ids */
        (void)xc_scan(msg->data, msg->size, refuse_locked, &refusal, NULL);
        msg->data = NULL;
    }
    xc_free(msg->ids);
    msg->ids = NULL;
    msg->n_ids = 0;
}

/* Makes the channels that the payload carries, so that what arrives for them is kept. Also after the stream has ended:
 * XC_FIN takes effect behind this message, and ends them, too. */
void
xc_make_carried_locked(xc_link *link, xc_msg *msg)
{
    if (msg->carried != NULL || (msg->ids == NULL && !msg->lost)) {
        return;
    }
    XC_ASSERT(link->chans.n_carried <= XC_CARRIED_MAX);
    msg->crowded = !msg->lost && msg->n_ids > XC_CARRIED_MAX - link->chans.n_carried;
    if (msg->lost || msg->crowded) {
        xc_refuse_carried_locked(link, msg);
        return;
    }
    xc_chan **carried = xc_alloc(msg->n_ids * sizeof *carried);
    size_t n = 0;
    for (; carried != NULL && n < msg->n_ids; n++) {
        xc_chan *chan = xc_chan_find(&link->chans.table, msg->ids[n]);
        if (chan != NULL) {
            chan->refs++;
        }
        else if ((chan = open_chan_locked(link, msg->ids[n])) == NULL) {
            break;
        }
        carried[n] = chan;
    }
    msg->lost = n < msg->n_ids;
    for (size_t i = n; i < msg->n_ids; i++) {
        (void)refuse_locked(&(struct refusal){link, msg}, msg->ids[i]);
    }
    msg->carried = carried;
    msg->n_ids = n;
    link->chans.n_carried += (uint32_t)n;
    xc_free(msg->ids);
    msg->ids = NULL;
}

static xc_status
new_chan_locked(xc_link *link, uint32_t id, xc_chan **out, xc_err *err) XC_NEEDS(link)
{
    if (link->end.eof) {
        return xc_fail(err, XC_CLOSED, 0, "open a channel");
    }
    *out = open_chan_locked(link, id);
    return *out == NULL ? xc_fail(err, XC_NOMEM, 0, "open a channel") : XC_OK;
}

xc_status
xc_link_new_chan(xc_link *link, xc_chan **out, xc_err *err)
{
    xc_lock_link(&link->mu);
    while (xc_chan_find(&link->chans.table, link->chans.next_id) != NULL) {
        link->chans.next_id += 2;
    }
    xc_status rc = new_chan_locked(link, link->chans.next_id, out, err);
    if (rc == XC_OK) {
        (*out)->credit.whole = true;
        link->chans.next_id += 2;
    }
    xc_unlock_link(&link->mu);
    return rc;
}

xc_status
xc_link_chan(xc_link *link, uint32_t id, xc_chan **out, xc_err *err)
{
    xc_status rc = XC_OK;
    xc_lock_link(&link->mu);
    *out = xc_chan_find(&link->chans.table, id);
    if (*out != NULL) {
        (*out)->refs++;
    }
    else {
        rc = new_chan_locked(link, id, out, err);
    }
    xc_unlock_link(&link->mu);
    return rc;
}

xc_chan *
xc_link_carried(xc_link *link, const xc_msg *msg, size_t n, uint32_t id)
{
    if (msg->carried == NULL || n >= msg->n_ids || msg->carried[n]->id != id) {
        return NULL;
    }
    xc_lock_link(&link->mu);
    msg->carried[n]->refs++;
    xc_unlock_link(&link->mu);
    return msg->carried[n];
}

void *
xc_link_object(xc_link *link, xc_chan *chan, void *mine, bool (*keep)(void *object))
{
    xc_lock_link(&link->mu);
    XC_ASSERT(chan->refs > 0);
    void *object = chan->object != NULL && keep(chan->object) ? chan->object : NULL;
    if (object == NULL && mine != NULL) {
        object = chan->object = mine;
        chan->had_object = true;
    }
    xc_unlock_link(&link->mu);
    return object;
}

void
xc_link_drop_object(xc_link *link, xc_chan *chan, const void *object)
{
    xc_lock_link(&link->mu);
    if (chan->object == object) { /* else the channel has another object by now */
        chan->object = NULL;
    }
    xc_unhold_locked(link, chan);
    xc_unlock_link(&link->mu);
}

void
xc_link_drop_chan(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    xc_unhold_locked(link, chan);
    xc_unlock_link(&link->mu);
}

/* Pops the next item, which counts as taken only later. */
static xc_status
pop_item_locked(xc_chan *chan, xc_msg **out) XC_NEEDS(link)
{
    *out = xc_queue_pop(&chan->items);
    return *out != NULL ? XC_OK : chan->recv_closed ? XC_CLOSED : XC_AGAIN;
}

xc_status
xc_take_item_locked(xc_link *link, xc_chan *chan, xc_msg **out)
{
    xc_status rc = pop_item_locked(chan, out);
    if (rc == XC_OK) {
        xc_credit_take_locked(link, chan, xc_msg_cost(*out));
    }
    return rc;
}

xc_status
xc_link_take_item(xc_link *link, xc_chan *chan, xc_msg **out)
{
    xc_lock_link(&link->mu);
    xc_status rc = xc_take_item_locked(link, chan, out);
    xc_unlock_link(&link->mu);
    return rc;
}

xc_status
xc_link_take_to_call(xc_link *link, xc_chan *chan, xc_msg **out)
{
    xc_lock_link(&link->mu);
    xc_status rc = pop_item_locked(chan, out);
    chan->credit.behind += rc == XC_OK;
    xc_unlock_link(&link->mu);
    return rc;
}

void
xc_link_put_back(xc_link *link, xc_chan *chan, xc_msg *msg, xc_msg *copy)
{
    copy->coerce = msg->coerce;
    copy->counted = true;
    xc_lock_link(&link->mu);
    copy->carried = msg->carried;
    copy->n_ids = msg->n_ids;
    msg->carried = NULL;
    xc_queue_put_back(&chan->items, copy);
    xc_wake_locked(link);
    xc_unlock_link(&link->mu);
}

xc_msg *
xc_link_take_error(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    xc_msg *msg = xc_queue_pop(&chan->errors);
    xc_unlock_link(&link->mu);
    return msg;
}

xc_chan_state
xc_link_chan_state(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    xc_chan_state state = {
        .closed = chan->closed,
        .recv_closed = chan->recv_closed,
        .callback = chan->callback,
        .cut = chan->cut && !xc_is_left_locked(link),
        .item = chan->items.head != NULL,
        .may_tell = xc_may_tell_locked(link, chan),
    };
    xc_unlock_link(&link->mu);
    return state;
}

xc_status
xc_link_close_chan(xc_link *link, xc_chan *chan, bool *tell, xc_msg *error)
{
    xc_status rc = XC_OK;
    xc_lock_link(&link->mu);
    *tell = xc_may_tell_locked(link, chan);
    if (chan->closed) {
        rc = XC_CLOSED;
    }
    if (error != NULL && rc == XC_OK) {
        xc_queue_push(&chan->errors, error);
    }
    else if (error != NULL) {
        xc_free_later_locked(link, error);
    }
    xc_close_locked(link, chan, false);
    xc_wake_locked(link);
    xc_unlock_link(&link->mu);
    return rc;
}

bool
xc_link_is_strict(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    bool strict = (chan->coerce & XC_NOT_STRICT) == 0;
    xc_unlock_link(&link->mu);
    return strict;
}

void
xc_link_set_coerce(xc_link *link, xc_chan *chan, int coerce)
{
    xc_lock_link(&link->mu);
    if (chan != NULL) {
        chan->coerce = (signed char)coerce;
    }
    else {
        link->chans.coerce = coerce;
    }
    xc_unlock_link(&link->mu);
}
