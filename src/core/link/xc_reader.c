/*
 * Cuts what arrives into messages.
 *
 * A frame that fits into the buffer is copied out of it. The payload of a larger frame, and of a long message, is read
 * to where it stays: into the memory of its message, or into memory that a waiter lends for it (XC_SPACE). Several long
 * messages may arrive at a time, each into its own memory.
 *
 * Invariant: while `current` is set the buffer is empty, and the stream goes on with `frame_left` bytes of that
 * payload; else it goes on behind the buffer's last byte.
 */
#include <string.h>

#include "xc_link_impl.h"
#include "xc_pages.h"
#include "xc_scan.h"
#include "xc_trace.h"

/* With more long messages at a time a huge page must first be deserved: a far end that begins 64 and sends some bytes
 * of each would have 64 of them. */
enum { HUGE_AT_ONCE = 4, HUGE_DESERVED = 2 * 1024 * 1024 /* bytes of the message that have come */ };

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

/* --- arrivals --------------------------------------------------------------------------------------------------- */

/* A message for `size` bytes of payload; `lost` if there is only memory for the message itself. */
static xc_msg *
new_msg(uint8_t code, uint32_t chan, size_t size)
{
    xc_msg *msg = xc_msg_new(code, chan, size);
    if (msg == NULL && (msg = xc_msg_new(code, chan, 0)) != NULL) {
        msg->lost = true;
        msg->size = size;
        msg->data = NULL;
    }
    return msg;
}

/* The pointer to the long message of that number; it points to NULL if there is none. */
static xc_arrival **
find_long(xc_reader *reader, uint32_t number) XC_NEEDS_ROLE(reader)
{
    xc_arrival **p = &reader->longs;
    while (*p != NULL && (*p)->number != number) {
        p = &(*p)->next;
    }
    return p;
}

static void
unlist_long(xc_reader *reader, xc_arrival **p) XC_NEEDS_ROLE(reader)
{
    xc_arrival *gone = *p;
    *p = gone->next;
    reader->n_longs--;
    xc_free(gone);
}

void
xc_forget_arrivals_locked(xc_link *link)
{
    link->reader.current = link->reader.asking = NULL;
    if (link->reader.oversized.msg != NULL) {
        xc_free_later_locked(link, link->reader.oversized.msg);
        link->reader.oversized.msg = NULL;
    }
    while (link->reader.longs != NULL) {
        if (link->reader.longs->msg != NULL) {
            xc_free_later_locked(link, link->reader.longs->msg);
        }
        unlist_long(&link->reader, &link->reader.longs);
    }
}

/* Bytes of a payload for which there is no memory: what waits for its channels must be told. */
static xc_status
drop(xc_sieve *sieve, xc_msg *msg, const unsigned char *bytes, size_t n)
{
    bool carries = msg->code == XC_DATA || msg->code == XC_EXEC;
    return !carries || xc_sieve_next(sieve, bytes, n, xc_add_id, msg) ? XC_OK : XC_NOMEM;
}

/* The payload of `arrival` is complete. */
static void
finish(xc_reader *reader, xc_arrival *arrival, xc_queue *batch) XC_NEEDS_ROLE(reader)
{
    XC_ASSERT(arrival->got == arrival->head.size);
    xc_queue_push(batch, arrival->msg);
    arrival->msg = NULL;
    if (arrival != &reader->oversized) {
        unlist_long(reader, find_long(reader, arrival->number));
    }
}

/* Where the next bytes of the payload go. */
static unsigned char *
place_in(const xc_arrival *arrival)
{
    XC_ASSERT(arrival->got >= arrival->skip && arrival->got - arrival->skip <= arrival->msg->size);
    return arrival->msg->data + (arrival->got - arrival->skip);
}

/* Chooses the memory for the payload. `payload` has the first `have` bytes of the frame's `size`. XC_AGAIN: more of
 * them must come first. XC_SPACE as in xc_link.h. */
static xc_status
choose_memory(xc_reader *reader, xc_arrival *arrival, const unsigned char *payload, size_t have, size_t size,
              bool can_give) XC_NEEDS_ROLE(reader)
{
    const xc_long_frame *head = &arrival->head;
    reader->asking = NULL;
    if (arrival->msg != NULL) {
        return XC_OK;
    }
    arrival->skip = 0;
    if (head->code == XC_DATA && head->size >= XC_BIG && size >= XC_BYTES_HEAD_MAX) {
        if (have < XC_BYTES_HEAD_MAX) {
            return XC_AGAIN;
        }
        arrival->skip = can_give ? xc_scan_bytes_head(payload, head->size) : 0;
        if (arrival->skip > 0) {
            reader->asking = arrival;
            reader->unparsed = true;
            return XC_SPACE;
        }
    }
    arrival->msg = new_msg(head->code, head->chan, (size_t)head->size);
    return arrival->msg == NULL ? XC_NOMEM : XC_OK;
}

/* The frame at reader->start has `size` bytes of this payload; `have` of them are in the buffer. */
static xc_status
take_front(xc_reader *reader, xc_arrival *arrival, size_t have, size_t size, bool can_give, xc_queue *batch)
    XC_NEEDS_ROLE(reader)
{
    const unsigned char *payload = reader->buf + reader->start + XC_HEADER_SIZE;
    xc_status rc = choose_memory(reader, arrival, payload, have, size, can_give);
    if (rc != XC_OK) {
        return rc;
    }
    reader->start += XC_HEADER_SIZE + have;
    if (!arrival->msg->lost) {
        size_t skip = arrival->got < arrival->skip ? arrival->skip : 0; /* a lent memory has no room for these */
        arrival->got += skip;
        memcpy(place_in(arrival), payload + skip, have - skip);
        arrival->got -= skip;
    }
    else if (drop(&arrival->sieve, arrival->msg, payload, have) != XC_OK) {
        return XC_NOMEM;
    }
    arrival->got += have;
    if (have < size) {
        reader->current = arrival;
        reader->frame_left = size - have;
    }
    else if (arrival->got == arrival->head.size) {
        finish(reader, arrival, batch);
    }
    return XC_OK;
}

bool
xc_link_give_space(xc_link *link, void *owner, unsigned char *ptr, size_t space)
{
    XC_ASSERT(owner != NULL && ptr != NULL);
    xc_msg *msg = xc_msg_new(XC_DATA, 0, 0);
    bool taken = false;
    xc_lock_link(&link->mu);
    /* If nobody has the role, nobody takes it while mu is held. */
    xc_arrival *arrival = link->wait.reading || link->end.eof ? NULL : XC_UNLOCKED(link->reader.asking);
    if (msg != NULL && arrival != NULL && arrival->head.size - arrival->skip == space) {
        msg->chan = arrival->head.chan;
        msg->size = space;
        msg->data = ptr;
        msg->space = owner;
        msg->skipped = (uint8_t)arrival->skip;
        arrival->msg = msg;
        XC_UNLOCKED(link->reader.asking) = NULL;
        taken = true;
    }
    xc_unlock_link(&link->mu);
    if (!taken) {
        xc_msg_free(msg);
    }
    return taken;
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

/* A LONG or a DROP that is in the buffer completely. */
static xc_status
begin_or_drop(xc_link *link, const xc_frame *frame, const unsigned char *payload, xc_err *err)
    XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    xc_arrival **p = find_long(&link->reader, frame->chan);
    if (frame->code == XC_DROP) {
        if (*p == NULL) {
            return xc_failf(err, XC_BAD, "read", "long message %u is dropped, and there is none", frame->chan);
        }
        if ((*p)->msg != NULL) {
            xc_lock_link(&link->mu);
            xc_free_later_locked(link, (*p)->msg);
            xc_unlock_link(&link->mu);
        }
        unlist_long(&link->reader, p);
        return XC_OK;
    }
    if (*p != NULL) {
        return xc_failf(err, XC_BAD, "read", "long message %u begins, and there is one", frame->chan);
    }
    if (link->reader.n_longs == XC_LONG_COUNT) {
        return xc_failf(err, XC_BAD, "read", "more than %d long messages at a time", XC_LONG_COUNT);
    }
    xc_arrival arrival = {.number = frame->chan};
    xc_status rc = xc_long_unpack(payload, &arrival.head, err);
    if (rc != XC_OK || (rc = check_hello(arrival.head.code, arrival.head.size, err)) != XC_OK) {
        return rc;
    }
    *p = xc_alloc(sizeof **p);
    if (*p == NULL) {
        return XC_NOMEM;
    }
    **p = arrival;
    link->reader.n_longs++;
    return XC_OK;
}

static xc_status
take_piece(xc_reader *reader, const xc_frame *frame, size_t have, bool can_give, xc_queue *batch, xc_err *err)
    XC_NEEDS_ROLE(reader)
{
    xc_arrival *arrival = *find_long(reader, frame->chan);
    if (arrival == NULL) {
        return xc_failf(err, XC_BAD, "read", "a piece of long message %u, and there is none", frame->chan);
    }
    if (frame->size > arrival->head.size - arrival->got) {
        return xc_failf(err, XC_BAD, "read", "a piece of %u bytes, of which long message %u lacks %llu", frame->size,
                        frame->chan, (unsigned long long)(arrival->head.size - arrival->got));
    }
    return take_front(reader, arrival, have < frame->size ? have : frame->size, frame->size, can_give, batch);
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
        return take_piece(&link->reader, &frame, have, can_give, batch, err);
    }
    if (have < frame.size) {
        if (frame.size + XC_HEADER_SIZE <= XC_INBUF) {
            return XC_AGAIN;
        }
        if (link->reader.oversized.msg == NULL) { /* else memory was lent for this frame */
            link->reader.oversized = (xc_arrival){.head = {.code = frame.code, .chan = frame.chan, .size = frame.size}};
        }
        return take_front(&link->reader, &link->reader.oversized, have, frame.size, can_give, batch);
    }
    if (frame.code == XC_LONG || frame.code == XC_DROP) {
        rc = begin_or_drop(link, &frame, payload, err);
    }
    else {
        xc_msg *msg = new_msg(frame.code, frame.chan, frame.size);
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
            rc = drop(&sieve, msg, payload, frame.size);
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

static void
choose_pages(const xc_link *link, xc_arrival *arrival) XC_NEEDS_ROLE(reader)
{
    xc_msg *msg = arrival->msg;
    size_t kept = arrival->got - arrival->skip;
    if (kept < arrival->paged || msg->lost) {
        return;
    }
    if (link->reader.n_longs > HUGE_AT_ONCE && kept < HUGE_DESERVED) {
        return;
    }
    if (xc_reads_ring(link) && kept < XC_PAGES_MUCH) {
        arrival->paged = msg->size < XC_PAGES_MUCH ? msg->size : XC_PAGES_MUCH;
        xc_pages_fill(msg->data + kept, arrival->paged - kept);
    }
    else {
        arrival->paged = xc_pages_ahead(msg->data, msg->size, kept);
    }
}

/* Goes on with a payload that is read in place. Behind a piece of a long message it also reads the next frame's header,
 * so that the next piece can be read in place, too. */
static xc_status
read_in_place(xc_link *link, bool can_give, size_t *space, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    xc_arrival *arrival = link->reader.current;
    xc_queue batch = {.head = NULL};
    size_t got = 0;
    xc_status rc;
    choose_pages(link, arrival);
    if (arrival->msg->lost) {
        size_t most = link->reader.frame_left < XC_INBUF ? link->reader.frame_left : XC_INBUF;
        rc = xc_stream_read(&link->incoming, link->reader.buf, most, &got, err);
        if (rc == XC_OK && drop(&arrival->sieve, arrival->msg, link->reader.buf, got) != XC_OK) {
            return xc_failf(err, XC_NOMEM, "read", "no memory for a message that arrived");
        }
    }
    else if (arrival == &link->reader.oversized) {
        rc = xc_stream_read(&link->incoming, place_in(arrival), link->reader.frame_left, &got, err);
    }
    else {
        struct iovec parts[2] = {{place_in(arrival), link->reader.frame_left}, {link->reader.buf, XC_HEADER_SIZE}};
        rc = xc_stream_read_two(&link->incoming, parts, &got, err);
    }
    size_t mine = got < link->reader.frame_left ? got : link->reader.frame_left;
    arrival->got += mine;
    link->reader.frame_left -= mine;
    link->reader.end = got - mine;
    if (rc != XC_OK || link->reader.frame_left > 0) {
        return rc;
    }
    link->reader.current = NULL;
    if (arrival->got == arrival->head.size) {
        finish(&link->reader, arrival, &batch);
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
        rc = read_in_place(link, can_give, space, err);
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
