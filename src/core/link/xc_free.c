/*
 * Refcounts of channels, and how messages are freed.
 *
 * Freeing is iterative: a message may hold channels whose queues hold messages, and a hostile far end could make that
 * chain as deep as it likes. Messages to be freed go to a queue, and one loop empties it.
 */
#include "xc_link_impl.h"

void
xc_orphan_locked(xc_link *link, xc_msg *msg)
{
    if (link->opts.orphan_error != NULL && !msg->lost) {
        link->opts.orphan_error(link->opts.arg, msg);
    }
    else {
        xc_free_later_locked(link, msg);
    }
}

/* Nobody holds the channel any more. */
static void
free_chan_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link)
{
    xc_chan_remove(&link->chans.table, chan);
    if (link->tasks.primary == chan) {
        link->tasks.primary = NULL;
    }
    for (xc_msg *msg; (msg = xc_queue_pop(&chan->items)) != NULL;) {
        xc_queue_push(&link->deferred.queue, msg);
    }
    for (xc_msg *msg; (msg = xc_queue_pop(&chan->errors)) != NULL;) {
        if (chan->closed && chan->had_object) {
            xc_orphan_locked(link, msg);
        }
        else {
            xc_queue_push(&link->deferred.queue, msg);
        }
    }
    xc_chan_free(chan);
}

static void
free_msg_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link)
{
    if (msg->space == NULL || link->opts.drop_space == NULL) {
        xc_msg_free(msg);
        return;
    }
    xc_free(msg->carried);
    xc_free(msg->ids);
    msg->carried = NULL;
    msg->ids = NULL;
    link->opts.drop_space(link->opts.arg, msg);
}

static void
release_carried_locked(xc_link *link, const xc_msg *msg) XC_NEEDS(link)
{
    for (size_t i = 0; msg->carried != NULL && i < msg->n_ids; i++) {
        XC_ASSERT(link->chans.n_carried > 0);
        link->chans.n_carried--;
        xc_unhold_locked(link, msg->carried[i]);
    }
}

static void
empty_free_queue_locked(xc_link *link) XC_NEEDS(link)
{
    if (link->deferred.freeing) {
        return;
    }
    link->deferred.freeing = true;
    for (xc_msg *msg; (msg = xc_queue_pop(&link->deferred.queue)) != NULL;) {
        release_carried_locked(link, msg);
        free_msg_locked(link, msg);
    }
    link->deferred.freeing = false;
}

bool
xc_is_left_locked(const xc_link *link)
{
    return link->opts.worker && link->goodbye.heard;
}

bool
xc_may_tell_locked(const xc_link *link, const xc_chan *chan)
{
    return !chan->closed && (!chan->recv_closed || (chan->cut && xc_is_left_locked(link)));
}

void
xc_unhold_locked(xc_link *link, xc_chan *chan)
{
    XC_ASSERT(chan->refs > (chan->callback ? 1U : 0U)); /* what is released is not the callback's count */
    uint32_t holders = --chan->refs - (chan->callback ? 1 : 0);
    if (holders == 0 && xc_may_tell_locked(link, chan)) {
        /* As in execnet: the far end learns that nobody listens here, or, once, that only a callback does. */
        if (chan->task && !chan->callback) {
            xc_link_post_error(link, chan->id, XC_UNTOLD);
        }
        else if (!chan->callback || !chan->half_told) {
            chan->half_told = chan->callback;
            (void)xc_link_post(link, chan->callback ? XC_LAST_MESSAGE : XC_CLOSE, chan->id, NULL, 0);
        }
    }
    if (chan->refs == 0) {
        free_chan_locked(link, chan);
        empty_free_queue_locked(link);
    }
}

void
xc_free_later_locked(xc_link *link, xc_msg *msg)
{
    xc_queue_push(&link->deferred.queue, msg);
    empty_free_queue_locked(link);
}

/* Does not count: so a channel and a message in its own queue that carries it, which hold each other in a cycle, are
 * freed, too. */
void
xc_free_all_locked(xc_link *link)
{
    xc_queue *queues[] = {&link->dispatch.backlog, &link->tasks.queue, &link->tasks.interrupts, &link->greeting.hellos,
                          &link->deferred.queue};
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++) {
        for (xc_msg *msg; (msg = xc_queue_pop(queues[i])) != NULL;) {
            free_msg_locked(link, msg);
        }
    }
    if (link->end.last != NULL) {
        free_msg_locked(link, link->end.last);
    }
    xc_chan_remove_all(&link->chans.table);
    for (xc_chan *chan; (chan = link->chans.table.all) != NULL;) {
        for (xc_msg *msg; (msg = xc_queue_pop(&chan->items)) != NULL || (msg = xc_queue_pop(&chan->errors)) != NULL;) {
            free_msg_locked(link, msg);
        }
        xc_chan_free(chan);
    }
}

void
xc_link_free_msg(xc_link *link, xc_msg *msg)
{
    if (msg == NULL) {
        return;
    }
    if (msg->carried == NULL && msg->space == NULL) {
        xc_msg_free(msg);
        return;
    }
    xc_lock_link(&link->mu);
    xc_free_later_locked(link, msg);
    xc_unlock_link(&link->mu);
}

void
xc_link_strip_msg(xc_link *link, xc_msg *msg)
{
    xc_lock_link(&link->mu);
    release_carried_locked(link, msg);
    xc_unlock_link(&link->mu);
    xc_free(msg->carried);
    xc_free(msg->ids);
    msg->carried = NULL;
    msg->ids = NULL;
}
