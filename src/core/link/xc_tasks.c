/*
 * A worker's tasks: a queue from which the main thread and a spare thread take them. xc_task_timeout.c refuses tasks
 * that wait too long for the main thread.
 *
 * An XC_INTERRUPT marks the channel of a task, also of one that has not begun. Who runs tasks looks at the mark, and
 * raises KeyboardInterrupt: the main thread when the pump sends it SIGURG, whose handler does nothing if there is no
 * mark (see execnet_c/worker.py), and a spare thread, which is woken, for those of other threads. So an interrupt that
 * comes late does nothing.
 */
#include "xc_link_impl.h"

#include <signal.h>
#include <unistd.h>

/* A signal that comes just before a wait does not end it, so it is repeated. */
#define KICK_AGAIN (50 * XC_MS)

void
xc_queue_task_locked(xc_link *link, xc_msg *msg)
{
    xc_make_carried_locked(link, msg);
    if (msg->crowded) {
        xc_owe_locked(link, XC_OWES_TOO_MANY, msg->chan);
        xc_free_later_locked(link, msg);
        return;
    }
    if (msg->lost) {
        xc_refuse_large_task_locked(link, msg->chan, msg->size);
        xc_free_later_locked(link, msg);
        return;
    }
    xc_task_chan(msg)->task = true;
    xc_task_chan(msg)->credit.whole = xc_task_chan(msg)->refs == 1; /* made just now */
    link->tasks.executing++;
    xc_queue_push(&link->tasks.queue, msg);
    if (link->tasks.queue.count == 1) {
        xc_task_timeout_begin_locked(link);
    }
}

xc_status
xc_link_take_task(xc_link *link, bool primary, xc_msg **out, xc_chan **chan)
{
    xc_status rc = XC_AGAIN;
    xc_lock_link(&link->mu);
    if (link->tasks.queue.count > (!primary && link->tasks.primary_waits ? 1 : 0)) {
        *out = xc_queue_pop(&link->tasks.queue);
        *chan = xc_task_chan(*out);
        (*chan)->refs++;
        link->tasks.primary_waits = link->tasks.primary_waits && !primary;
        link->tasks.primary = primary ? *chan : link->tasks.primary;
        xc_task_timeout_begin_locked(link);
        xc_wake_locked(link);
        rc = XC_OK;
    }
    else if (link->end.fin && link->tasks.queue.head == NULL) {
        rc = XC_CLOSED;
    }
    xc_unlock_link(&link->mu);
    return rc;
}

void
xc_link_task_done(xc_link *link, bool primary)
{
    xc_lock_link(&link->mu);
    XC_ASSERT(link->tasks.executing > link->tasks.queue.count); /* this task runs, and does not wait */
    link->tasks.executing--;
    link->tasks.primary_waits = link->tasks.primary_waits || primary;
    link->tasks.primary = primary ? NULL : link->tasks.primary;
    xc_wake_locked(link);
    xc_unlock_link(&link->mu);
}

void
xc_link_refuse_task(xc_link *link, xc_chan *chan, size_t size, bool primary)
{
    xc_lock_link(&link->mu);
    if (!chan->recv_closed) {
        xc_refuse_large_task_locked(link, chan->id, size);
    }
    xc_close_locked(link, chan, false);
    xc_unlock_link(&link->mu);
    xc_link_task_done(link, primary);
}

/* msg: taken. */
static void
mark_locked(xc_link *link, xc_chan *chan, xc_msg *msg) XC_NEEDS(link)
{
    bool fresh = chan != NULL && chan->task && !chan->interrupted;
    if (fresh) {
        chan->interrupted = true;
    }
    if (fresh && chan == link->tasks.primary) {
        xc_pump_set(&link->tasks.kick, xc_now());
    }
    else if (fresh && link->tasks.model != XC_MODEL_MAIN_ONLY) {
        xc_queue_push(&link->tasks.interrupts, msg);
        xc_wake_locked(link);
        return;
    }
    xc_free_later_locked(link, msg);
}

void
xc_interrupt_locked(xc_link *link, xc_msg *msg)
{
    mark_locked(link, xc_chan_find(&link->chans.table, msg->chan), msg);
}

xc_status
xc_link_interrupt(xc_link *link, xc_chan *chan)
{
    xc_msg *msg = xc_msg_new(XC_INTERRUPT, chan->id, 0);
    if (msg == NULL) {
        return XC_NOMEM;
    }
    xc_lock_link(&link->mu);
    mark_locked(link, chan, msg);
    xc_unlock_link(&link->mu);
    return XC_OK;
}

void
xc_kick_primary(xc_timer *timer)
{
    xc_link *link = timer->owner;
    xc_lock_link(&link->mu);
    bool wanted = link->tasks.primary != NULL && link->tasks.primary->interrupted;
    xc_unlock_link(&link->mu);
    if (wanted) {
        (void)kill(getpid(), SIGURG);
        xc_pump_set(timer, xc_after(KICK_AGAIN));
    }
}

xc_msg *
xc_link_next_interrupt(xc_link *link)
{
    xc_lock_link(&link->mu);
    xc_msg *msg = xc_queue_pop(&link->tasks.interrupts);
    xc_unlock_link(&link->mu);
    return msg;
}

bool
xc_link_take_interrupt(xc_link *link, xc_chan *chan)
{
    xc_lock_link(&link->mu);
    bool taken = chan->interrupted;
    chan->interrupted = false;
    xc_unlock_link(&link->mu);
    return taken;
}
