/*
 * Cuts what arrives into messages.
 *
 * A frame that fits into the buffer is copied out of it. The payload of a larger frame, and of a long message, is read
 * to where it stays, see xc_arrival.c.
 *
 * Invariant: while `current` is set the buffer is empty, and the stream goes on with `frame_left` bytes of that
 * payload; else it goes on behind the buffer's last byte.
 */
#include <string.h>

#include "xc_link_impl.h"
#include "xc_scan.h"
#include "xc_trace.h"

/* --- messages take effect ------------------------------------------------------------------------------------- */

/* One message of a batch. XC_OK: more may follow. XC_CLOSED: it was a goodbye. XC_BAD: the far end breaks the rules. */
static xc_status
deliver_one_locked(xc_link *link, xc_msg *msg, xc_err *err) XC_NEEDS(link)
{
    uint8_t code = msg->code;
    if (code == XC_HELLO && link->greeting.n_hellos++ == XC_UNREAD_HELLOS) {
        xc_free_later_locked(link, msg);
        return xc_failf(err, XC_BAD, "read", "more than %d hellos, and nobody takes them", XC_UNREAD_HELLOS);
    }
    if (code == XC_CREDIT || code == XC_WAITS) {
        return xc_credit_arrives_locked(link, msg, err);
    }
    xc_arrive_locked(link, msg);
    if (code == XC_TERMINATE) {
        link->goodbye.heard = true;
        return xc_fail(err, XC_CLOSED, 0, "read");
    }
    return XC_OK;
}

/* The messages of one read take effect under one lock. Results as above. */
static xc_status
deliver(xc_link *link, xc_queue *batch, xc_err *err) XC_TAKES_LINK
{
    xc_status rc = XC_OK;
    if (batch->head == NULL) {
        return XC_OK;
    }
    for (xc_msg *msg = batch->head; msg != NULL; msg = msg->next) {
        if (xc_tracing()) {
            xc_trace_frame("received", msg->code, msg->chan, msg->size + msg->skipped);
        }
        xc_scan_ids(msg);
    }
    xc_lock_link(&link->mu);
    for (xc_msg *msg; rc == XC_OK && (msg = xc_queue_pop(batch)) != NULL;) {
        rc = deliver_one_locked(link, msg, err);
    }
    for (xc_msg *msg; (msg = xc_queue_pop(batch)) != NULL;) {
        xc_free_later_locked(link, msg); /* what is behind a goodbye or an error is dropped */
    }
    xc_wake_locked(link); /* the reader wakes those whose items it read */
    xc_unlock_link(&link->mu);
    return rc;
}

/* --- frames ----------------------------------------------------------------------------------------------------- */

/* The far end may send one unasked, and it is loaded before anybody knows who that is. */
static xc_status
check_hello(uint8_t code, uint64_t size, xc_err *err)
{
    if (code != XC_HELLO || size <= XC_HELLO_MAX) {
        return XC_OK;
    }
    return xc_failf(err, XC_BAD, "read", "a hello of %llu bytes, and %d may be", (unsigned long long)size,
                    XC_HELLO_MAX);
}

static xc_status
begin_long(xc_reader *reader, uint32_t number, const unsigned char *payload, xc_err *err) XC_NEEDS_ROLE(reader)
{
    xc_long_frame head;
    xc_status rc = xc_long_unpack(payload, &head, err);
    if (rc != XC_OK || (rc = check_hello(head.code, head.size, err)) != XC_OK) {
        return rc;
    }
    return xc_begin_long(reader, number, &head, err);
}

/* The frame at reader->start. XC_OK: it is done, or `current` goes on with it. XC_AGAIN: more of it must come first. */
static xc_status
parse_one(xc_link *link, bool can_give, xc_queue *batch, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    xc_frame frame;
    const unsigned char *payload = link->reader.buf + link->reader.start + XC_HEADER_SIZE;
    size_t have = link->reader.end - link->reader.start - XC_HEADER_SIZE;
    xc_status rc = xc_frame_unpack(link->reader.buf + link->reader.start, &frame, err);
    if (rc != XC_OK || (rc = check_hello(frame.code, frame.size, err)) != XC_OK) {
        return rc;
    }
    if (frame.code == XC_MOVE) {
        return xc_take_move(link, err);
    }
    if (frame.code == XC_PIECE) {
        return xc_take_piece(&link->reader, &frame, have, can_give, batch, err);
    }
    if (have < frame.size) {
        if (frame.size + XC_HEADER_SIZE <= XC_INBUF) {
            return XC_AGAIN;
        }
        return xc_take_oversized(&link->reader, &frame, have, can_give, batch);
    }
    if (frame.code == XC_LONG) {
        rc = begin_long(&link->reader, frame.chan, payload, err);
    }
    else if (frame.code == XC_DROP) {
        rc = xc_drop_long(link, frame.chan, err);
    }
    else {
        xc_msg *msg = xc_msg_new_or_lost(frame.code, frame.chan, frame.size);
        if (msg == NULL || (msg->lost && frame.code == XC_CREDIT)) { /* somebody may wait for just that credit */
            xc_msg_free(msg);
            return XC_NOMEM;
        }
        xc_queue_push(batch, msg);
        if (!msg->lost) {
            memcpy(msg->data, payload, frame.size);
        }
        else {
            xc_sieve sieve = {.skip = 0};
            rc = xc_drop_payload(&sieve, msg, payload, frame.size);
        }
    }
    link->reader.start += XC_HEADER_SIZE + frame.size;
    return rc;
}

/* Cuts the buffer into messages. XC_OK: all complete ones were delivered. */
static xc_status
parse(xc_link *link, bool can_give, size_t *space, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    xc_queue batch = {.head = NULL};
    xc_status rc = XC_OK;
    link->reader.unparsed = false;
    while (rc == XC_OK && link->reader.current == NULL && link->reader.end - link->reader.start >= XC_HEADER_SIZE) {
        rc = parse_one(link, can_give, &batch, err);
    }
    if (link->reader.start == link->reader.end) {
        link->reader.start = link->reader.end = 0;
    }
    xc_err why;
    xc_status delivered = deliver(link, &batch, &why);
    if (delivered != XC_OK) {
        *err = why; /* it happened before the error that stopped the loop */
        return delivered;
    }
    if (rc == XC_NOMEM) {
        return xc_failf(err, XC_NOMEM, "read", "no memory for a message that arrived");
    }
    if (rc == XC_SPACE) {
        *space = (size_t)link->reader.asking->head.size - link->reader.asking->skip;
    }
    return rc == XC_AGAIN ? XC_OK : rc;
}

/* Behind a piece of a long message this also reads the next frame's header, so that the next piece can be read in
 * place, too. */
static xc_status
go_on(xc_link *link, bool can_give, size_t *space, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    xc_queue batch = {.head = NULL};
    xc_status rc = xc_read_in_place(link, &batch, err);
    if (rc == XC_OK) {
        rc = deliver(link, &batch, err);
    }
    return rc == XC_OK && link->reader.end > 0 ? parse(link, can_give, space, err) : rc;
}

/* Skips the preamble. XC_OK: frames begin at reader->start. XC_AGAIN: more must come. */
static xc_status
skip_preamble(xc_link *link, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    size_t used = 0;
    xc_lock_link(&link->mu);
    xc_status rc = xc_preamble_skip(&link->preamble, link->reader.buf + link->reader.start,
                                    link->reader.end - link->reader.start, &used, err);
    xc_unlock_link(&link->mu);
    link->reader.start += used;
    link->reader.unmarked = rc != XC_OK;
    return rc;
}

size_t
xc_link_preamble(xc_link *link, void *into, size_t max)
{
    xc_lock_link(&link->mu);
    size_t n = xc_buf_size(&link->preamble);
    if (n > 0 && max > 0) {
        memcpy(into, xc_buf_head(&link->preamble), n < max ? n : max);
    }
    xc_unlock_link(&link->mu);
    return n;
}

xc_status
xc_read_some(xc_link *link, bool can_give, size_t *space, xc_err *err)
{
    XC_ASSERT(link->reader.current == NULL || (link->reader.end == 0 && link->reader.frame_left > 0));
    XC_ASSERT(link->reader.asking == NULL || link->reader.unparsed);
    size_t got = 0;
    /* Asked before the read: so all that a dead process wrote is there when we read. */
    int fds_say = atomic_load(&link->pump.fds_say);
    bool gone = atomic_load(&link->end.peer_gone) || fds_say == XC_FDS_HUNG_UP;
    xc_status rc = xc_keepalive_verdict(link, err);
    if (rc == XC_OK && fds_say == XC_FDS_STRAY) {
        rc = xc_preamble_too_much(err);
    }
    if (rc != XC_OK) {
        return rc;
    }
    if (gone) {
        xc_stream_end_here(&link->incoming);
    }
    if (link->reader.unparsed) {
        rc = parse(link, can_give, space, err);
        if (rc != XC_OK) {
            return rc;
        }
    }
    if (link->reader.current != NULL) {
        rc = go_on(link, can_give, space, err);
    }
    else {
        if (link->reader.start > 0) {
            memmove(link->reader.buf, link->reader.buf + link->reader.start, link->reader.end - link->reader.start);
            link->reader.end -= link->reader.start;
            link->reader.start = 0;
        }
        rc = xc_stream_read(&link->incoming, link->reader.buf + link->reader.end, XC_INBUF - link->reader.end, &got,
                            err);
        link->reader.end += got;
        if (rc == XC_OK && link->reader.unmarked) {
            rc = skip_preamble(link, err);
            if (rc == XC_AGAIN) {
                return XC_OK; /* something came */
            }
        }
        if (rc == XC_OK) {
            rc = parse(link, can_give, space, err);
        }
    }
    if (rc == XC_AGAIN && gone) {
        return xc_fail(err, XC_EOF, 0, "read");
    }
    return rc;
}
