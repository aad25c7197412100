/*
 * What a frame that arrived does: to channels and their queues, to the worker's tasks, to the link itself.
 *
 * Invariant: frames take effect in the order of their arrival. A frame takes effect at once only if the backlog is
 * empty and nobody has the dispatcher role; else it joins the backlog. A frame that needs Python (an item for a
 * callback, an end for which an endmarker may be called) always goes through the backlog.
 */
#include <string.h>

#include "xc_link_impl.h"
#include "xc_opcodes.h"

/* --- channel ids inside payloads ------------------------------------------------------------------------------ */

bool
xc_add_id(void *arg, uint32_t id)
{
    xc_msg *msg = arg;
    size_t n = msg->n_ids;
    if ((n & (n - 1)) == 0) { /* there is room for the next power of two */
        uint32_t *ids = xc_realloc(msg->ids, (n == 0 ? 1 : 2 * n) * sizeof *ids);
        if (ids == NULL) {
            return false;
        }
        msg->ids = ids;
    }
    msg->ids[msg->n_ids++] = id;
    return true;
}

static void
forget_ids(xc_msg *msg)
{
    xc_free(msg->ids);
    msg->ids = NULL;
    msg->n_ids = 0;
}

void
xc_scan_ids(xc_msg *msg)
{
    XC_ASSERT((msg->ids == NULL || msg->lost) && msg->carried == NULL);
    bool task = msg->code == XC_EXEC;
    if ((msg->code != XC_DATA && !task) || msg->space != NULL || msg->lost) {
        return;
    }
    xc_status rc = XC_OK;
    if (xc_scan_may_carry_ids(msg->data, msg->size)) {
        rc = xc_scan(msg->data, msg->size, xc_add_id, msg, NULL);
    }
    if (rc != XC_OK) { /* the loader will refuse a malformed payload */
        forget_ids(msg);
    }
    if (rc == XC_NOMEM || (task && !xc_add_id(msg, msg->chan))) {
        msg->lost = true;
        forget_ids(msg);
    }
}

/* --- frames take effect --------------------------------------------------------------------------------------- */

/* The payload is (bool, bool), or (bool, bool, bool); any other is ignored. */
static void
reconfigure_locked(xc_link *link, const xc_msg *msg) XC_NEEDS(link)
{
    size_t n = msg->size == 9 ? 3 : 2;
    const unsigned char tail[] = {XC_OP_TUPLE, 0, 0, 0, (unsigned char)n, XC_OP_STOP};
    int bits = 0;
    if (msg->lost || msg->size != n + sizeof tail || memcmp(msg->data + n, tail, sizeof tail) != 0) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        bits |= msg->data[i] == XC_OP_TRUE ? 1 << i : 0;
    }
    xc_chan *chan = msg->chan == 0 ? NULL : xc_chan_find(&link->chans.table, msg->chan);
    if (chan != NULL) {
        chan->coerce = (signed char)bits;
    }
    else if (msg->chan == 0) {
        link->chans.coerce = bits;
    }
}

void
xc_cut_all_locked(xc_link *link)
{
    size_t at = 0;
    for (xc_chan *chan; (chan = xc_chan_next(&link->chans.table, &at)) != NULL;) {
        chan->cut = true;
    }
}

static void
finish_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link)
{
    XC_ASSERT(link->end.eof && !link->end.fin);
    size_t at = 0;
    xc_cut_all_locked(link);
    for (xc_chan *chan; (chan = xc_chan_next(&link->chans.table, &at)) != NULL;) {
        chan->recv_closed = true;
    }
    xc_chan_remove_all(&link->chans.table);
    link->end.fin = true;
    xc_free_later_locked(link, msg);
}

void
xc_apply_locked(xc_link *link, xc_msg *msg)
{
    XC_ASSERT(msg->code < XC_LONG || msg->code > XC_MOVE); /* the reader has taken those */
    xc_chan *chan = xc_chan_find(&link->chans.table, msg->chan);
    switch (msg->code) {
    case XC_DATA:
        if (chan == NULL) { /* nobody holds that channel any more */
            xc_refuse_carried_locked(link, msg);
            break;
        }
        msg->coerce = chan->coerce;
        if (msg->ids != NULL || msg->lost) {
            xc_make_carried_locked(link, msg);
        }
        xc_queue_push(&chan->items, msg);
        return;
    case XC_CLOSE:
    case XC_LAST_MESSAGE:
        if (chan != NULL) {
            xc_close_locked(link, chan, msg->code == XC_LAST_MESSAGE);
        }
        break;
    case XC_CLOSE_ERROR:
        if (chan == NULL || (chan->had_object && chan->object == NULL)) {
            if (chan != NULL) {
                xc_close_locked(link, chan, false);
            }
            xc_orphan_locked(link, msg);
            return;
        }
        xc_close_locked(link, chan, false);
        xc_queue_push(&chan->errors, msg);
        return;
    case XC_EXEC:
        if (link->opts.worker) {
            xc_queue_task_locked(link, msg);
            return;
        }
        xc_owe_locked(link, XC_OWES_NO_TASKS, msg->chan);
        xc_refuse_carried_locked(link, msg);
        break;
    case XC_STATUS:
        xc_owe_locked(link, msg->size > 0 ? XC_OWES_FACTS : XC_OWES_STATUS, msg->chan);
        break;
    case XC_RECONFIGURE:
        reconfigure_locked(link, msg);
        break;
    case XC_HELLO:
        link->greeting.greeted = true;
        xc_queue_push(&link->greeting.hellos, msg);
        return;
    case XC_CREDIT:
    case XC_WAITS:
        xc_credit_apply_locked(link, msg);
        break;
    case XC_INTERRUPT:
        xc_interrupt_locked(link, msg);
        return;
    case XC_FIN:
        finish_locked(link, msg);
        return;
    default: /* XC_TERMINATE: the reader ends the link */
        break;
    }
    xc_free_later_locked(link, msg);
}

bool
xc_needs_python_locked(xc_link *link, const xc_msg *msg)
{
    if (link->dispatch.n_callbacks == 0) {
        return false;
    }
    if (msg->code == XC_FIN) {
        return true;
    }
    if (msg->code != XC_DATA && msg->code != XC_CLOSE && msg->code != XC_CLOSE_ERROR && msg->code != XC_LAST_MESSAGE) {
        return false;
    }
    xc_chan *chan = xc_chan_find(&link->chans.table, msg->chan);
    return chan != NULL && chan->callback;
}

void
xc_arrive_locked(xc_link *link, xc_msg *msg)
{
    if (msg->code == XC_CLOSE || msg->code == XC_CLOSE_ERROR || msg->code == XC_FIN) {
        xc_credit_end_locked(link, msg); /* whoever waits for credit waits no more */
    }
    if (link->chans.n_forwards > 0 && xc_forward_takes_locked(link, msg)) {
        return;
    }
    bool sign = msg->code == XC_STATUS && msg->chan == 0;
    bool interrupts = msg->code == XC_INTERRUPT && xc_chan_find(&link->chans.table, msg->chan) != NULL;
    if (sign || interrupts) { /* a callback must not delay a sign of life or an interrupt, however long it takes */
        xc_apply_locked(link, msg);
    }
    else if (link->dispatch.running || link->dispatch.backlog.head != NULL || xc_needs_python_locked(link, msg)) {
        xc_credit_behind_locked(link, msg, true);
        xc_queue_push(&link->dispatch.backlog, msg);
    }
    else {
        xc_apply_locked(link, msg);
    }
}
