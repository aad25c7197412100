/*
 * Forwarded channels: their frames go to an xc_forward. No callback delays them, because nobody can see how they are
 * ordered against the frames of other channels.
 *
 * Invariant: n_forwards counts the forwarded channels; each forward is told of the end of both directions exactly once,
 * unless it is unset before.
 */
#include "xc_link_impl.h"

static void
end_forward_locked(xc_link *link, xc_chan *chan, bool half) XC_NEEDS(link)
{
    XC_ASSERT(link->chans.n_forwards > 0);
    xc_forward *forward = chan->forward;
    if (!half) {
        chan->forward = NULL;
        link->chans.n_forwards--;
    }
    forward->end(forward, half);
}

static void
end_all_locked(xc_link *link) XC_NEEDS(link)
{
    for (xc_chan *chan = link->chans.table.all; chan != NULL; chan = chan->next_all) {
        if (chan->forward != NULL) {
            end_forward_locked(link, chan, false);
        }
    }
}

static void
give_locked(xc_link *link, xc_chan *chan, xc_msg *msg) XC_NEEDS(link)
{
    if (msg->space == NULL && !msg->lost) {
        chan->credit.behind++; /* until the forward says that it is taken */
        chan->credit.held += xc_msg_cost(msg);
        chan->forward->item(chan->forward, msg);
        return;
    }
    /* An item is missing: without it those behind it are worth nothing. */
    (void)xc_link_post(link, XC_CLOSE, chan->id, NULL, 0);
    xc_close_locked(link, chan, false);
    end_forward_locked(link, chan, false);
    xc_free_later_locked(link, msg);
}

/* The channel that a frame is for: a listed one, or for a close one of which only the far end has said its last. */
static xc_chan *
find_locked(xc_link *link, const xc_msg *msg) XC_NEEDS(link)
{
    xc_chan *chan = xc_chan_find(&link->chans.table, msg->chan);
    size_t at = 0;
    bool closes = msg->code == XC_CLOSE || msg->code == XC_CLOSE_ERROR;
    return chan == NULL && closes ? xc_chan_find_any(&link->chans.table, msg->chan, &at) : chan;
}

bool
xc_forward_takes_locked(xc_link *link, xc_msg *msg)
{
    if (msg->code == XC_FIN) {
        end_all_locked(link);
        return false; /* XC_FIN is for the others, too */
    }
    if (msg->code != XC_DATA && msg->code != XC_CLOSE && msg->code != XC_CLOSE_ERROR && msg->code != XC_LAST_MESSAGE) {
        return false;
    }
    xc_chan *chan = find_locked(link, msg);
    if (chan == NULL || chan->forward == NULL) {
        return false;
    }
    if (msg->code == XC_DATA) {
        give_locked(link, chan, msg);
        return true;
    }
    xc_close_locked(link, chan, msg->code == XC_LAST_MESSAGE);
    end_forward_locked(link, chan, msg->code == XC_LAST_MESSAGE);
    xc_free_later_locked(link, msg);
    return true;
}

/* What waits in the backlog, behind a callback, came before all that will be forwarded at once. */
static void
take_backlog_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link)
{
    xc_queue waiting = link->dispatch.backlog;
    link->dispatch.backlog = (xc_queue){.head = NULL};
    for (xc_msg *msg; (msg = xc_queue_pop(&waiting)) != NULL;) {
        bool ours = chan->forward != NULL && msg->chan == chan->id;
        if (ours) {
            xc_credit_behind_locked(link, msg, false);
        }
        if (!ours || !xc_forward_takes_locked(link, msg)) {
            xc_queue_push(&link->dispatch.backlog, msg);
        }
    }
}

void
xc_link_set_forward(xc_link *link, xc_chan *chan, xc_forward *forward)
{
    xc_msg *msg;
    xc_lock_link(&link->mu);
    XC_ASSERT(chan->forward == NULL && !chan->callback);
    chan->refs++;
    chan->forward = forward;
    link->chans.n_forwards++;
    while (chan->forward != NULL && (msg = xc_queue_pop(&chan->items)) != NULL) {
        give_locked(link, chan, msg);
    }
    if (chan->forward != NULL && chan->recv_closed) {
        end_forward_locked(link, chan, !chan->closed);
    }
    take_backlog_locked(link, chan);
    if (chan->forward != NULL && link->end.eof) {
        end_forward_locked(link, chan, false);
    }
    xc_unlock_link(&link->mu);
}

void
xc_link_unset_forward(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    if (chan->forward != NULL) {
        chan->forward = NULL;
        link->chans.n_forwards--;
    }
    xc_unhold_locked(link, chan);
    xc_unlock_link(&link->mu);
}
