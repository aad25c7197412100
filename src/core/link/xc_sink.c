/*
 * Channels whose frames go to a sink. No callback of the Python side holds them up: they are in no order with other
 * channels' frames that anybody could see.
 *
 * Invariant: n_sinks counts the channels with a sink; each sink is told of its end exactly once unless it is unset.
 */
#include "xc_link_impl.h"

static void
end_sink_locked(xc_link *link, xc_chan *chan, bool half)
{
    xc_sink *sink = chan->sink;
    chan->sink = NULL;
    link->n_sinks--;
    sink->end(sink, half);
}

static void
end_all_locked(xc_link *link)
{
    for (xc_chan *chan = link->table.all; chan != NULL; chan = chan->next_all) {
        if (chan->sink != NULL) {
            end_sink_locked(link, chan, false);
        }
    }
}

static void
give_locked(xc_link *link, xc_chan *chan, xc_msg *msg)
{
    if (msg->space == NULL && !msg->lost) {
        chan->sink->item(chan->sink, msg);
        return;
    }
    /* One that is missing makes those behind it worthless. */
    (void)xc_link_post(link, XC_CLOSE, chan->id, NULL, 0);
    xc_close_locked(link, chan, false);
    end_sink_locked(link, chan, false);
    xc_bury_msg_locked(link, msg);
}

bool
xc_sink_takes_locked(xc_link *link, xc_msg *msg)
{
    if (msg->code == XC_FIN) {
        end_all_locked(link);
        return false; /* others wait for it, too */
    }
    if (msg->code != XC_DATA && msg->code != XC_CLOSE && msg->code != XC_CLOSE_ERROR && msg->code != XC_LAST_MESSAGE) {
        return false;
    }
    xc_chan *chan = xc_chan_find(&link->table, msg->chan);
    if (chan == NULL || chan->sink == NULL) {
        return false;
    }
    if (msg->code == XC_DATA) {
        give_locked(link, chan, msg);
        return true;
    }
    xc_close_locked(link, chan, msg->code == XC_LAST_MESSAGE);
    end_sink_locked(link, chan, msg->code == XC_LAST_MESSAGE);
    xc_bury_msg_locked(link, msg);
    return true;
}

void
xc_link_set_sink(xc_link *link, xc_chan *chan, xc_sink *sink)
{
    xc_msg *msg;
    xc_lock(&link->mu);
    chan->refs++;
    chan->sink = sink;
    link->n_sinks++;
    while (chan->sink != NULL && (msg = xc_queue_pop(&chan->items)) != NULL) {
        give_locked(link, chan, msg);
    }
    if (chan->sink != NULL && (chan->recv_closed || link->eof)) {
        end_sink_locked(link, chan, !chan->closed && !link->eof);
    }
    xc_unlock(&link->mu);
}

void
xc_link_unset_sink(xc_link *link, xc_chan *chan)
{
    xc_lock(&link->mu);
    if (chan->sink != NULL) {
        chan->sink = NULL;
        link->n_sinks--;
    }
    xc_unhold_locked(link, chan);
    xc_unlock(&link->mu);
}
