/*
 * What a frame that arrived does: to channels and their queues, to the worker's tasks, to the backlog in front of the
 * dispatcher.
 *
 * Invariant: frames take effect in the order of their arrival. One takes effect at once only if the backlog is empty
 * and nobody dispatches; else it joins the backlog. What needs Python (items for a callback, an end that an endmarker
 * may go with) always goes through the backlog.
 *
 * Freeing is iterative: a message may hold channels whose queues hold messages, and a hostile far end could make that
 * chain as deep as it likes. Messages to be freed go to the free queue, and one loop empties it.
 */
#include <pthread.h>
#include <string.h>

#include "xc_bytes.h"
#include "xc_link_impl.h"
#include "xc_opcodes.h"
#include "xc_trace.h"

/* --- refcounts, deferred free ---------------------------------------------------------------------------------------
 */

static void
orphan_locked(xc_link *link, xc_msg *msg)
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
free_chan_locked(xc_link *link, xc_chan *chan)
{
    xc_chan_unlist(&link->chans.table, chan);
    for (xc_msg *msg; (msg = xc_queue_pop(&chan->items)) != NULL;) {
        xc_queue_push(&link->deferred.queue, msg);
    }
    for (xc_msg *msg; (msg = xc_queue_pop(&chan->errors)) != NULL;) {
        if (chan->closed && chan->had_object) {
            orphan_locked(link, msg);
        }
        else {
            xc_queue_push(&link->deferred.queue, msg);
        }
    }
    xc_chan_free(chan);
}

static void
free_msg_locked(xc_link *link, xc_msg *msg)
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
empty_free_queue_locked(xc_link *link)
{
    if (link->deferred.freeing) {
        return;
    }
    link->deferred.freeing = true;
    for (xc_msg *msg; (msg = xc_queue_pop(&link->deferred.queue)) != NULL;) {
        for (size_t i = 0; msg->carried != NULL && i < msg->n_ids; i++) {
            link->chans.n_carried--;
            xc_unhold_locked(link, msg->carried[i]);
        }
        free_msg_locked(link, msg);
    }
    link->deferred.freeing = false;
}

/* A worker that has heard a goodbye: nothing more arrives, but what it sends does. */
static bool
is_left_locked(const xc_link *link)
{
    return link->opts.worker && link->goodbye.heard;
}

static bool
may_tell_locked(const xc_link *link, const xc_chan *chan)
{
    return !chan->closed && (!chan->recv_closed || (chan->cut && is_left_locked(link)));
}

void
xc_unhold_locked(xc_link *link, xc_chan *chan)
{
    uint32_t holders = --chan->refs - (chan->callback ? 1 : 0);
    if (holders == 0 && may_tell_locked(link, chan)) {
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

/* Without counting: what holds each other in a ring, a channel and a message in its queue that carries it, goes too. */
void
xc_free_all_locked(xc_link *link)
{
    xc_forget_arrivals_locked(link);
    xc_queue *queues[] = {&link->dispatch.backlog, &link->tasks.queue, &link->greeting.hellos, &link->deferred.queue};
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++) {
        for (xc_msg *msg; (msg = xc_queue_pop(queues[i])) != NULL;) {
            free_msg_locked(link, msg);
        }
    }
    if (link->end.last != NULL) {
        free_msg_locked(link, link->end.last);
    }
    xc_chan_unlist_all(&link->chans.table);
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
    xc_lock(&link->mu);
    xc_free_later_locked(link, msg);
    xc_unlock(&link->mu);
}

/* --- channel ids inside payloads ------------------------------------------------------------------------------ */

struct id_list {
    uint32_t *ids;
    size_t n, cap;
};

static bool
add_id(void *arg, uint32_t id)
{
    struct id_list *list = arg;
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 4 : list->cap * 2;
        uint32_t *ids = xc_realloc(list->ids, cap * sizeof *ids);
        if (ids == NULL) {
            return false;
        }
        list->ids = ids;
        list->cap = cap;
    }
    list->ids[list->n++] = id;
    return true;
}

void
xc_scan_ids(xc_msg *msg)
{
    bool task = msg->code == XC_EXEC;
    if ((msg->code != XC_DATA && !task) || msg->space != NULL || msg->lost) {
        return;
    }
    bool may_carry = xc_scan_may_carry_ids(msg->data, msg->size);
    if (!may_carry && !task) {
        return;
    }
    struct id_list list = {NULL, 0, 0};
    if (may_carry) {
        xc_status rc = xc_scan(msg->data, msg->size, add_id, &list, NULL);
        list.n = rc == XC_OK ? list.n : 0; /* a malformed payload is the loader's to refuse */
        msg->lost = rc == XC_NOMEM;
    }
    if (task && !add_id(&list, msg->chan)) {
        msg->lost = true;
    }
    if (list.n == 0 || msg->lost) {
        xc_free(list.ids);
        return;
    }
    msg->ids = list.ids;
    msg->n_ids = list.n;
}

static xc_chan *
open_chan_locked(xc_link *link, uint32_t id)
{
    xc_chan *chan = xc_chan_new(&link->chans.table, id);
    if (chan != NULL) {
        chan->coerce = (signed char)link->chans.coerce;
    }
    return chan;
}

/* The channels that the payload carries exist from now on, so that what arrives for them is kept. Also where the stream
 * has ended meanwhile: that takes effect behind this message, and ends them, too. */
static void
make_carried_locked(xc_link *link, xc_msg *msg)
{
    if (msg->ids == NULL || msg->carried != NULL) {
        return;
    }
    msg->crowded = msg->n_ids > XC_CARRIED_MAX - link->chans.n_carried;
    if (msg->crowded) {
        msg->n_ids = 0;
        xc_free(msg->ids);
        msg->ids = NULL;
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
    msg->carried = carried;
    msg->n_ids = n;
    link->chans.n_carried += (uint32_t)n;
    xc_free(msg->ids);
    msg->ids = NULL;
}

/* --- frames take effect --------------------------------------------------------------------------------------- */

/* (bool, bool) or nothing that we take. */
static void
reconfigure_locked(xc_link *link, const xc_msg *msg)
{
    static const unsigned char tail[] = {XC_OP_TUPLE, 0, 0, 0, 2, XC_OP_STOP};
    int bits = 0;
    if (msg->lost || msg->size != 8 || memcmp(msg->data + 2, tail, sizeof tail) != 0) {
        return;
    }
    for (int i = 0; i < 2; i++) {
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
xc_close_locked(xc_link *link, xc_chan *chan, bool send_only)
{
    chan->closed = chan->closed || !send_only;
    chan->recv_closed = true;
    xc_chan_unlist(&link->chans.table, chan);
}

static void
queue_task_locked(xc_link *link, xc_msg *msg)
{
    make_carried_locked(link, msg);
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
    link->tasks.executing++;
    xc_queue_push(&link->tasks.queue, msg);
    if (link->tasks.queue.count == 1) {
        xc_task_timeout_begin_locked(link);
    }
}

static void
cut_all_locked(xc_link *link)
{
    size_t at = 0;
    for (xc_chan *chan; (chan = xc_chan_next(&link->chans.table, &at)) != NULL;) {
        chan->cut = true;
    }
}

static void
finish_locked(xc_link *link, xc_msg *msg)
{
    size_t at = 0;
    cut_all_locked(link);
    for (xc_chan *chan; (chan = xc_chan_next(&link->chans.table, &at)) != NULL;) {
        chan->recv_closed = true;
    }
    xc_chan_unlist_all(&link->chans.table);
    link->end.fin = true;
    xc_free_later_locked(link, msg);
}

static void
apply_locked(xc_link *link, xc_msg *msg)
{
    xc_chan *chan = xc_chan_find(&link->chans.table, msg->chan);
    switch (msg->code) {
    case XC_DATA:
        if (chan == NULL) {
            break; /* nobody holds that channel any more */
        }
        msg->coerce = chan->coerce;
        if (msg->ids != NULL) {
            make_carried_locked(link, msg);
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
            orphan_locked(link, msg);
            return;
        }
        xc_close_locked(link, chan, false);
        xc_queue_push(&chan->errors, msg);
        return;
    case XC_EXEC:
        if (link->opts.worker) {
            queue_task_locked(link, msg);
            return;
        }
        xc_owe_locked(link, XC_OWES_NO_TASKS, msg->chan);
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
    case XC_FIN:
        finish_locked(link, msg);
        return;
    default: /* XC_TERMINATE: the reader ends the link */
        break;
    }
    xc_free_later_locked(link, msg);
}

static bool
needs_python_locked(xc_link *link, const xc_msg *msg)
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
    if (link->chans.n_forwards > 0 && xc_forward_takes_locked(link, msg)) {
        return;
    }
    if (msg->code == XC_STATUS && msg->chan == 0) {
        apply_locked(link, msg); /* a sign of life: no callback, however long it takes, may hold it up */
    }
    else if (link->dispatch.running || link->dispatch.backlog.head != NULL || needs_python_locked(link, msg)) {
        xc_queue_push(&link->dispatch.backlog, msg);
    }
    else {
        apply_locked(link, msg);
    }
}

/* --- the dispatcher ------------------------------------------------------------------------------------------- */

xc_status
xc_link_dispatch_enter(xc_link *link)
{
    xc_status rc = XC_AGAIN;
    xc_lock(&link->mu);
    if (!link->dispatch.running || pthread_equal(link->dispatch.thread, pthread_self())) {
        link->dispatch.running = true;
        link->dispatch.thread = pthread_self();
        link->dispatch.depth++;
        rc = XC_OK;
    }
    xc_unlock(&link->mu);
    return rc;
}

void
xc_link_dispatch_leave(xc_link *link)
{
    xc_lock(&link->mu);
    if (--link->dispatch.depth == 0) {
        link->dispatch.running = false;
        while (link->dispatch.backlog.head != NULL && !needs_python_locked(link, link->dispatch.backlog.head)) {
            apply_locked(link, xc_queue_pop(&link->dispatch.backlog));
        }
        xc_wake_locked(link);
    }
    xc_unlock(&link->mu);
}

bool
xc_link_dispatching(xc_link *link)
{
    xc_lock(&link->mu);
    bool mine = link->dispatch.running && pthread_equal(link->dispatch.thread, pthread_self());
    xc_unlock(&link->mu);
    return mine;
}

bool
xc_link_set_callback(xc_link *link, xc_chan *chan)
{
    xc_lock(&link->mu);
    bool more = !chan->closed && !chan->recv_closed;
    if (more) {
        chan->callback = true;
        chan->refs++;
        link->dispatch.n_callbacks++;
    }
    xc_unlock(&link->mu);
    return more;
}

void
xc_link_end_callback(xc_link *link, xc_chan *chan)
{
    xc_lock(&link->mu);
    if (chan->callback) {
        chan->callback = false;
        link->dispatch.n_callbacks--;
        xc_unhold_locked(link, chan);
    }
    xc_unlock(&link->mu);
}

xc_msg *
xc_link_backlog_next(xc_link *link, xc_chan **chan)
{
    xc_msg *msg;
    *chan = NULL;
    xc_lock(&link->mu);
    while ((msg = xc_queue_pop(&link->dispatch.backlog)) != NULL) {
        if (needs_python_locked(link, msg)) {
            make_carried_locked(link, msg);
            if (msg->code != XC_FIN) {
                *chan = xc_chan_find(&link->chans.table, msg->chan);
                (*chan)->refs++;
            }
            else {
                cut_all_locked(link); /* endmarkers may ask why */
            }
            if (msg->code == XC_DATA) {
                msg->coerce = (*chan)->coerce;
            }
            break;
        }
        apply_locked(link, msg);
    }
    xc_wake_locked(link);
    xc_unlock(&link->mu);
    return msg;
}

void
xc_link_settle(xc_link *link, xc_msg *msg)
{
    xc_lock(&link->mu);
    apply_locked(link, msg);
    xc_wake_locked(link);
    xc_unlock(&link->mu);
}

xc_chan *
xc_link_any_callback(xc_link *link)
{
    xc_chan *chan;
    size_t at = 0;
    xc_lock(&link->mu);
    while ((chan = xc_chan_next(&link->chans.table, &at)) != NULL && !chan->callback) {
    }
    if (chan != NULL) {
        chan->refs++;
    }
    xc_unlock(&link->mu);
    return chan;
}

/* --- channels ------------------------------------------------------------------------------------------------- */

static xc_status
new_chan_locked(xc_link *link, uint32_t id, xc_chan **out, xc_err *err)
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
    xc_lock(&link->mu);
    while (xc_chan_find(&link->chans.table, link->chans.next_id) != NULL) {
        link->chans.next_id += 2;
    }
    xc_status rc = new_chan_locked(link, link->chans.next_id, out, err);
    if (rc == XC_OK) {
        link->chans.next_id += 2;
    }
    xc_unlock(&link->mu);
    return rc;
}

xc_status
xc_link_chan(xc_link *link, uint32_t id, xc_chan **out, xc_err *err)
{
    xc_status rc = XC_OK;
    xc_lock(&link->mu);
    *out = xc_chan_find(&link->chans.table, id);
    if (*out != NULL) {
        (*out)->refs++;
    }
    else {
        rc = new_chan_locked(link, id, out, err);
    }
    xc_unlock(&link->mu);
    return rc;
}

xc_chan *
xc_link_carried(xc_link *link, const xc_msg *msg, size_t n, uint32_t id)
{
    if (msg->carried == NULL || n >= msg->n_ids || msg->carried[n]->id != id) {
        return NULL;
    }
    xc_lock(&link->mu);
    msg->carried[n]->refs++;
    xc_unlock(&link->mu);
    return msg->carried[n];
}

void
xc_link_set_object(xc_link *link, xc_chan *chan, void *object)
{
    xc_lock(&link->mu);
    chan->object = object;
    chan->had_object = true;
    xc_unlock(&link->mu);
}

void
xc_link_drop_object(xc_link *link, xc_chan *chan, const void *object)
{
    xc_lock(&link->mu);
    if (chan->object == object) { /* else there is another one by now */
        chan->object = NULL;
    }
    xc_unhold_locked(link, chan);
    xc_unlock(&link->mu);
}

void
xc_link_drop_chan(xc_link *link, xc_chan *chan)
{
    xc_lock(&link->mu);
    xc_unhold_locked(link, chan);
    xc_unlock(&link->mu);
}

xc_status
xc_take_item_locked(xc_chan *chan, xc_msg **out)
{
    *out = xc_queue_pop(&chan->items);
    return *out != NULL ? XC_OK : chan->recv_closed ? XC_CLOSED : XC_AGAIN;
}

xc_status
xc_link_take_item(xc_link *link, xc_chan *chan, xc_msg **out)
{
    xc_lock(&link->mu);
    xc_status rc = xc_take_item_locked(chan, out);
    xc_unlock(&link->mu);
    return rc;
}

xc_msg *
xc_link_take_error(xc_link *link, xc_chan *chan)
{
    xc_lock(&link->mu);
    xc_msg *msg = xc_queue_pop(&chan->errors);
    xc_unlock(&link->mu);
    return msg;
}

xc_chan_state
xc_link_chan_state(xc_link *link, xc_chan *chan)
{
    xc_lock(&link->mu);
    xc_chan_state state = {
        .closed = chan->closed,
        .recv_closed = chan->recv_closed,
        .callback = chan->callback,
        .cut = chan->cut && !is_left_locked(link),
        .item = chan->items.head != NULL,
        .may_tell = may_tell_locked(link, chan),
    };
    xc_unlock(&link->mu);
    return state;
}

xc_status
xc_link_close_chan(xc_link *link, xc_chan *chan, bool *tell, xc_msg *error)
{
    xc_status rc = XC_OK;
    xc_lock(&link->mu);
    *tell = may_tell_locked(link, chan);
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
    xc_unlock(&link->mu);
    return rc;
}

void
xc_link_set_coerce(xc_link *link, xc_chan *chan, int coerce)
{
    xc_lock(&link->mu);
    if (chan != NULL) {
        chan->coerce = (signed char)coerce;
    }
    else {
        link->chans.coerce = coerce;
    }
    xc_unlock(&link->mu);
}

/* --- tasks, state --------------------------------------------------------------------------------------------- */

xc_status
xc_link_take_task(xc_link *link, bool primary, xc_msg **out, xc_chan **chan)
{
    xc_status rc = XC_AGAIN;
    xc_lock(&link->mu);
    if (link->tasks.queue.count > (!primary && link->tasks.primary_waits ? 1 : 0)) {
        *out = xc_queue_pop(&link->tasks.queue);
        *chan = xc_task_chan(*out);
        (*chan)->refs++;
        link->tasks.primary_waits = link->tasks.primary_waits && !primary;
        xc_task_timeout_begin_locked(link);
        xc_wake_locked(link);
        rc = XC_OK;
    }
    else if (link->end.fin && link->tasks.queue.head == NULL) {
        rc = XC_CLOSED;
    }
    xc_unlock(&link->mu);
    return rc;
}

void
xc_link_task_done(xc_link *link, bool primary)
{
    xc_lock(&link->mu);
    link->tasks.executing--;
    link->tasks.primary_waits = link->tasks.primary_waits || primary;
    xc_wake_locked(link);
    xc_unlock(&link->mu);
}

void
xc_link_refuse_task(xc_link *link, xc_chan *chan, size_t size, bool primary)
{
    xc_lock(&link->mu);
    if (!chan->recv_closed) {
        xc_refuse_large_task_locked(link, chan->id, size);
    }
    xc_close_locked(link, chan, false);
    xc_unlock(&link->mu);
    xc_link_task_done(link, primary);
}

void
xc_link_get_state(xc_link *link, xc_link_state *out)
{
    xc_lock(&link->mu);
    *out = (xc_link_state){
        .fin = link->end.fin,
        .said_goodbye = link->goodbye.said,
        .heard_goodbye = link->goodbye.heard,
        .greeted = link->greeting.greeted,
        .ended_by = link->end.why,
        .executing = link->tasks.executing,
        .channels = (uint32_t)link->chans.table.n_used,
        .rings = xc_reads_ring(link),
    };
    xc_unlock(&link->mu);
}

xc_msg *
xc_link_take_hello(xc_link *link)
{
    xc_lock(&link->mu);
    xc_msg *msg = xc_queue_pop(&link->greeting.hellos);
    link->greeting.n_hellos -= msg != NULL;
    xc_unlock(&link->mu);
    return msg;
}
