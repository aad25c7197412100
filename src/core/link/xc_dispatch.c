/*
 * The dispatcher role: its owner runs callbacks and works off the backlog. That thread may take the role again (a
 * callback that receives). Frames that arrive meanwhile wait in the backlog, see xc_inbox.c.
 */
#include <pthread.h>

#include "xc_link_impl.h"

static xc_msg *
next_behind_locked(xc_link *link) XC_NEEDS(link)
{
    xc_msg *msg = xc_queue_pop(&link->dispatch.backlog);
    if (msg != NULL && !xc_needs_python_locked(link, msg)) {
        xc_credit_behind_locked(link, msg, false); /* else it stays behind until its callback has returned */
    }
    return msg;
}

/* This thread has the role. */
static bool
is_mine_locked(const xc_link *link) XC_NEEDS(link)
{
    return link->dispatch.running && pthread_equal(link->dispatch.thread, pthread_self());
}

xc_status
xc_link_dispatch_enter(xc_link *link)
{
    xc_status rc = XC_AGAIN;
    xc_lock_link(&link->mu);
    if (!link->dispatch.running || is_mine_locked(link)) {
        link->dispatch.running = true;
        link->dispatch.thread = pthread_self();
        link->dispatch.depth++;
        rc = XC_OK;
    }
    xc_unlock_link(&link->mu);
    return rc;
}

void
xc_link_dispatch_leave(xc_link *link)
{
    xc_lock_link(&link->mu);
    XC_ASSERT(is_mine_locked(link) && link->dispatch.depth > 0);
    if (--link->dispatch.depth == 0) {
        link->dispatch.running = false;
        while (link->dispatch.backlog.head != NULL && !xc_needs_python_locked(link, link->dispatch.backlog.head)) {
            xc_apply_locked(link, next_behind_locked(link));
        }
        xc_wake_locked(link);
    }
    xc_unlock_link(&link->mu);
}

bool
xc_link_dispatching(xc_link *link)
{
    xc_lock_link(&link->mu);
    bool mine = is_mine_locked(link);
    xc_unlock_link(&link->mu);
    return mine;
}

bool
xc_link_set_callback(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    bool more = !chan->closed && !chan->recv_closed;
    if (more) {
        XC_ASSERT(!chan->callback);
        chan->callback = true;
        chan->refs++;
        link->dispatch.n_callbacks++;
    }
    xc_unlock_link(&link->mu);
    return more;
}

void
xc_link_end_callback(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    if (chan->callback) {
        chan->callback = false;
        link->dispatch.n_callbacks--;
        xc_unhold_locked(link, chan);
    }
    xc_unlock_link(&link->mu);
}

xc_msg *
xc_link_backlog_next(xc_link *link, xc_chan **chan)
{
    xc_msg *msg;
    *chan = NULL;
    xc_lock_link(&link->mu);
    XC_ASSERT(is_mine_locked(link));
    while ((msg = next_behind_locked(link)) != NULL) {
        if (xc_needs_python_locked(link, msg)) {
            xc_make_carried_locked(link, msg);
            if (msg->code != XC_FIN) {
                *chan = xc_chan_find(&link->chans.table, msg->chan);
                (*chan)->refs++;
            }
            else {
                xc_cut_all_locked(link); /* before any endmarker is called, which may ask why */
            }
            if (msg->code == XC_DATA) {
                msg->coerce = (*chan)->coerce;
            }
            break;
        }
        xc_apply_locked(link, msg);
    }
    xc_wake_locked(link);
    xc_unlock_link(&link->mu);
    return msg;
}

void
xc_link_settle(xc_link *link, xc_msg *msg)
{
    xc_lock_link(&link->mu);
    XC_ASSERT(is_mine_locked(link));
    xc_apply_locked(link, msg);
    xc_wake_locked(link);
    xc_unlock_link(&link->mu);
}

xc_chan *
xc_link_any_callback(xc_link *link)
{
    xc_chan *chan;
    size_t at = 0;
    xc_lock_link(&link->mu);
    while ((chan = xc_chan_next(&link->chans.table, &at)) != NULL && !chan->callback) {
    }
    if (chan != NULL) {
        chan->refs++;
    }
    xc_unlock_link(&link->mu);
    return chan;
}
