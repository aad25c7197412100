/*
 * Messages that arrive in parts: long ones, and frames that are larger than the buffer. The first bytes of a frame are
 * copied out of the buffer; the rest is read to where it stays: into the memory of its message, or into memory that a
 * waiter lends for it (XC_SPACE). Several long messages may arrive at a time, each into its own memory.
 *
 * Invariant: an arrival without a message has got nothing yet. One with a message lacks bytes; those that have come and
 * are kept fill the front of its memory. It owns the message until the last byte has come.
 */
#include <string.h>

#include "xc_link_impl.h"
#include "xc_pages.h"

/* With more long messages at a time a huge page must first be deserved: a far end that begins 64 and sends some bytes
 * of each would have 64 of them. */
enum { HUGE_AT_ONCE = 4, HUGE_DESERVED = 2 * 1024 * 1024 /* bytes of the message that have come */ };

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

xc_status
xc_drop_payload(xc_sieve *sieve, xc_msg *msg, const unsigned char *bytes, size_t n)
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
    arrival->msg = xc_msg_new_or_lost(head->code, head->chan, (size_t)head->size);
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
    else if (xc_drop_payload(&arrival->sieve, arrival->msg, payload, have) != XC_OK) {
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

xc_status
xc_begin_long(xc_reader *reader, uint32_t number, const xc_long_frame *head, xc_err *err)
{
    xc_arrival **p = find_long(reader, number);
    if (*p != NULL) {
        return xc_failf(err, XC_BAD, "read", "long message %u begins, and there is one", number);
    }
    if (reader->n_longs == XC_LONG_COUNT) {
        return xc_failf(err, XC_BAD, "read", "more than %d long messages at a time", XC_LONG_COUNT);
    }
    *p = xc_alloc(sizeof **p);
    if (*p == NULL) {
        return XC_NOMEM;
    }
    **p = (xc_arrival){.number = number, .head = *head};
    reader->n_longs++;
    return XC_OK;
}

xc_status
xc_drop_long(xc_link *link, uint32_t number, xc_err *err)
{
    xc_arrival **p = find_long(&link->reader, number);
    if (*p == NULL) {
        return xc_failf(err, XC_BAD, "read", "long message %u is dropped, and there is none", number);
    }
    if ((*p)->msg != NULL) {
        xc_lock_link(&link->mu);
        xc_free_later_locked(link, (*p)->msg);
        xc_unlock_link(&link->mu);
    }
    unlist_long(&link->reader, p);
    return XC_OK;
}

xc_status
xc_take_oversized(xc_reader *reader, const xc_frame *frame, size_t have, bool can_give, xc_queue *batch)
{
    xc_arrival *arrival = &reader->oversized;
    if (arrival->msg == NULL) { /* else memory was lent for this frame */
        *arrival = (xc_arrival){.head = {.code = frame->code, .chan = frame->chan, .size = frame->size}};
    }
    return take_front(reader, arrival, have, frame->size, can_give, batch);
}

xc_status
xc_take_piece(xc_reader *reader, const xc_frame *frame, size_t have, bool can_give, xc_queue *batch, xc_err *err)
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

xc_status
xc_read_in_place(xc_link *link, xc_queue *batch, xc_err *err)
{
    xc_reader *reader = &link->reader;
    xc_arrival *arrival = reader->current;
    size_t got = 0;
    xc_status rc;
    choose_pages(link, arrival);
    if (arrival->msg->lost) {
        size_t most = reader->frame_left < XC_INBUF ? reader->frame_left : XC_INBUF;
        rc = xc_stream_read(&link->incoming, reader->buf, most, &got, err);
        if (rc == XC_OK && xc_drop_payload(&arrival->sieve, arrival->msg, reader->buf, got) != XC_OK) {
            return xc_failf(err, XC_NOMEM, "read", "no memory for a message that arrived");
        }
    }
    else if (arrival == &reader->oversized) {
        rc = xc_stream_read(&link->incoming, place_in(arrival), reader->frame_left, &got, err);
    }
    else {
        struct iovec parts[2] = {{place_in(arrival), reader->frame_left}, {reader->buf, XC_HEADER_SIZE}};
        rc = xc_stream_read_two(&link->incoming, parts, &got, err);
    }
    size_t mine = got < reader->frame_left ? got : reader->frame_left;
    arrival->got += mine;
    reader->frame_left -= mine;
    reader->end = got - mine;
    if (rc == XC_OK && reader->frame_left == 0) {
        reader->current = NULL;
        if (arrival->got == arrival->head.size) {
            finish(reader, arrival, batch);
        }
    }
    return rc;
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
