#include "xc_alive.h"

#include "xc_link_impl.h"

enum { QUARTERS = 4, TO_ANSWER = 2 };

/* Notes how far our own bytes have come. True: of those that lay there a quarter ago some were taken. */
static bool
backlog_shrank_locked(xc_link *link)
{
    xc_alive *alive = &link->alive;
    xc_writer *writer = &link->writer;
    xc_lock(&writer->mu);
    size_t unread = xc_stream_unread(writer->stream);
    bool waits = writer->writing || xc_buf_size(&writer->flight) > 0 || xc_buf_size(&writer->outbox) > 0;
    xc_unlock(&writer->mu);
    size_t taken = atomic_load_explicit(&writer->stream->wrote, memory_order_relaxed) - unread;
    bool shrank = alive->backlog && taken != alive->taken;
    alive->backlog = waits || unread > 0;
    alive->taken = taken;
    return shrank;
}

/* Something has arrived, or has and waits to be read: this process may have been stopped itself. */
static bool
heard_locked(xc_link *link)
{
    return atomic_exchange_explicit(&link->stream.heard, false, memory_order_relaxed) ||
           xc_stream_has_more(&link->stream);
}

/* The end of a quarter. True: the far end is silent. */
static bool
judge_locked(xc_link *link)
{
    xc_alive *alive = &link->alive;
    bool shrank = backlog_shrank_locked(link);
    if (heard_locked(link)) {
        alive->asked = false;
        return false;
    }
    if (!alive->asked) {
        /* After our goodbye nothing can be asked: what is asked no more is not judged. */
        alive->asked = xc_link_post(link, XC_STATUS, 0, NULL, 0) == XC_OK;
        alive->left = TO_ANSWER;
        alive->held_up = 0;
        return false;
    }
    if (shrank) {
        alive->held_up++;
        alive->left = TO_ANSWER + (alive->backlog ? 0 : alive->held_up);
        return false;
    }
    return --alive->left <= 0;
}

void
xc_alive_tick(xc_timer *timer)
{
    xc_link *link = timer->owner;
    xc_alive *alive = &link->alive;
    bool silent = false;
    xc_lock(&link->mu);
    if (alive->quarter > 0 && !link->eof && !atomic_load(&link->peer_gone)) {
        silent = judge_locked(link);
        if (!silent) {
            xc_pump_set(timer, xc_after(alive->quarter));
        }
        atomic_store_explicit(&alive->silent, silent, memory_order_release);
    }
    xc_unlock(&link->mu);
    if (silent) {
        xc_look_again(link);
        if (alive->give_up != NULL) {
            alive->give_up(alive->arg);
        }
    }
}

xc_status
xc_alive_verdict(const xc_link *link, xc_err *err)
{
    if (!atomic_load_explicit(&link->alive.silent, memory_order_acquire)) {
        return XC_OK;
    }
    double seconds = (double)link->alive.quarter * QUARTERS / (double)XC_S;
    return xc_failf(err, XC_SILENT, "read", "the far end was silent for %g seconds", seconds);
}

void
xc_link_keepalive(xc_link *link, int64_t silence, void (*give_up)(void *arg), void *arg)
{
    xc_alive *alive = &link->alive;
    xc_lock(&link->mu);
    if (!link->eof && !atomic_load(&alive->silent)) {
        alive->quarter = silence > 0 && silence < QUARTERS ? 1 : silence / QUARTERS;
        alive->give_up = give_up;
        alive->arg = arg;
        alive->asked = false;
        atomic_store(&link->stream.heard, true);
        if (alive->quarter > 0) {
            xc_pump_set(&alive->timer, xc_after(alive->quarter));
        }
    }
    xc_unlock(&link->mu);
}
