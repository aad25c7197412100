#include "xc_keepalive.h"

#include "xc_link_impl.h"

enum { QUARTERS = 4, TO_ANSWER = 2 };

/* Notes how many of our bytes have been taken. True: some of those that waited a quarter ago have been. */
static bool
backlog_shrank_locked(xc_link *link) XC_NEEDS(link)
{
    xc_keepalive *keepalive = &link->keepalive;
    xc_writer *writer = &link->writer;
    xc_lock_writer(&writer->mu);
    size_t unread = xc_stream_unread(writer->stream);
    bool waits = writer->writing || xc_buf_size(&writer->flight) > 0 || xc_buf_size(&writer->outbox) > 0;
    xc_unlock_writer(&writer->mu);
    size_t taken = atomic_load_explicit(&writer->stream->wrote, memory_order_relaxed) - unread;
    bool shrank = keepalive->backlog && taken != keepalive->taken;
    keepalive->backlog = waits || unread > 0;
    keepalive->taken = taken;
    return shrank;
}

/* Something has arrived, or waits to be read: it may be this process that was stopped. */
static bool
heard_locked(xc_link *link) XC_NEEDS(link)
{
    return atomic_exchange_explicit(&link->incoming.heard, false, memory_order_relaxed) ||
           xc_stream_has_more(&link->incoming);
}

/* At the end of a quarter. True: the far end is silent. */
static bool
judge_locked(xc_link *link) XC_NEEDS(link)
{
    xc_keepalive *keepalive = &link->keepalive;
    bool shrank = backlog_shrank_locked(link);
    if (heard_locked(link)) {
        keepalive->asked = false;
        return false;
    }
    if (!keepalive->asked) {
        /* After our goodbye nothing can be asked, and a far end that was not asked is not judged. */
        keepalive->asked = xc_link_post(link, XC_STATUS, 0, NULL, 0) == XC_OK;
        keepalive->left = TO_ANSWER;
        keepalive->held_up = 0;
        return false;
    }
    if (shrank) {
        keepalive->held_up++;
        keepalive->left = TO_ANSWER + (keepalive->backlog ? 0 : keepalive->held_up);
        return false;
    }
    return --keepalive->left <= 0;
}

void
xc_keepalive_tick(xc_timer *timer)
{
    xc_link *link = timer->owner;
    xc_keepalive *keepalive = &link->keepalive;
    bool silent = false;
    xc_lock_link(&link->mu);
    if (keepalive->quarter > 0 && !link->end.eof && !atomic_load(&link->end.peer_gone)) {
        silent = judge_locked(link);
        if (!silent) {
            xc_pump_set(timer, xc_after(keepalive->quarter));
        }
        atomic_store_explicit(&keepalive->silent, silent, memory_order_release);
    }
    xc_unlock_link(&link->mu);
    if (silent) {
        xc_poll_soon(link);
        /* `silent` is set: these do not change any more. */
        if (XC_UNLOCKED(keepalive->give_up) != NULL) {
            XC_UNLOCKED(keepalive->give_up)(XC_UNLOCKED(keepalive->arg));
        }
    }
}

xc_status
xc_keepalive_verdict(const xc_link *link, xc_err *err)
{
    if (!atomic_load_explicit(&link->keepalive.silent, memory_order_acquire)) {
        return XC_OK;
    }
    double seconds = (double)XC_UNLOCKED(link->keepalive.quarter) * QUARTERS / (double)XC_S;
    return xc_failf(err, XC_SILENT, "read", "the far end was silent for %g seconds", seconds);
}

void
xc_link_keepalive(xc_link *link, int64_t silence, void (*give_up)(void *arg), void *arg)
{
    xc_keepalive *keepalive = &link->keepalive;
    XC_ASSERT(silence >= 0);
    xc_lock_link(&link->mu);
    if (!link->end.eof && !atomic_load(&keepalive->silent)) {
        keepalive->quarter = silence > 0 && silence < QUARTERS ? 1 : silence / QUARTERS;
        keepalive->give_up = give_up;
        keepalive->arg = arg;
        keepalive->asked = false;
        atomic_store(&link->incoming.heard, true);
        if (keepalive->quarter > 0) {
            xc_pump_set(&keepalive->timer, xc_after(keepalive->quarter));
        }
    }
    xc_unlock_link(&link->mu);
}
