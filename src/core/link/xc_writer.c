/*
 * Invariants: only the thread with the writer role touches `flight`: the rest of one frame, or an outbox that is being
 * written. It goes out before anything else. `outbox` has whole frames only. While either has bytes and nobody has the
 * role, the pump watches for room.
 */
#include "xc_writer_impl.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "xc_forkfd.h"
#include "xc_pages.h"

static const char REST[] = "for the rest of an interrupted frame";

/* A thread that waits for the writer role. */
struct xc_writer_waiter {
    struct xc_writer_waiter *next;
    xc_bell *bell;
    uint64_t ticket;
};

static void writable(xc_watch *watch, short revents);
static void flush_late(xc_timer *timer);

void
xc_writer_init(xc_writer *writer, xc_stream *stream)
{
    XC_ALONE(writer);
    xc_mutex_init(&writer->mu);
    writer->stream = stream;
    writer->watch.fd = stream->out;
    writer->watch.ready = writable;
    writer->watch.owner = writer;
    writer->flush = (xc_timer){.fire = flush_late, .owner = writer};
}

void
xc_writer_fini(xc_writer *writer)
{
    XC_ASSERT(!XC_UNLOCKED(writer->writing) && XC_UNLOCKED(writer->waiters) == NULL);
    xc_buf_fini(&writer->flight);
    xc_buf_fini(&writer->outbox);
    xc_mutex_fini(&writer->mu);
}

static bool
has_leftovers_locked(const xc_writer *writer) XC_NEEDS(writer)
{
    return xc_buf_size(&writer->flight) > 0 || xc_buf_size(&writer->outbox) > 0;
}

/* Takes the outbox out first; frames that join it later go out when the role is given back. */
static void
load_flight_locked(xc_writer *writer) XC_NEEDS(writer) XC_NEEDS_ROLE(writer)
{
    if (xc_buf_size(&writer->flight) == 0 && xc_buf_size(&writer->outbox) > 0) {
        xc_buf empty = writer->flight;
        writer->flight = writer->outbox;
        writer->outbox = empty;
    }
}

xc_status
xc_writer_refusal_locked(xc_writer *writer, xc_err *err)
{
    if (writer->broken.code != XC_OK) {
        if (err != NULL) {
            *err = writer->broken;
        }
        return writer->broken.code;
    }
    if (writer->ending) {
        return xc_fail(err, XC_CLOSED, 0, "send");
    }
    return XC_OK;
}

static void
close_locked(xc_writer *writer) XC_NEEDS(writer)
{
    if (!writer->closed) {
        writer->closed = true;
        (void)xc_pump_arm(&writer->watch, 0);
        if (!writer->stream->kept) {
            xc_forkfd_remove(writer->stream->out);
        }
        xc_stream_close_write(writer->stream);
    }
}

/* The pump shall write what is left when there is room. */
static bool
watch_for_room_locked(xc_writer *writer) XC_NEEDS(writer)
{
    if (writer->stream->ring == NULL) {
        return xc_pump_arm(&writer->watch, POLLOUT) == XC_OK;
    }
    if (!xc_ring_arm(writer->stream->ring)) {
        xc_pump_set(&writer->flush, xc_now()); /* there is room already */
    }
    return true;
}

void
xc_writer_wake_all_locked(xc_writer *writer)
{
    for (struct xc_writer_waiter *waiter = writer->waiters; waiter != NULL; waiter = waiter->next) {
        xc_bell_ring(waiter->bell);
    }
}

static void
tell_room(const xc_room *room)
{
    ssize_t ignored = write(room->fd, &room->number, sizeof room->number);
    (void)ignored;
}

static void
post_awaiting_locked(xc_writer *writer) XC_NEEDS(writer)
{
    while (writer->awaiting != NULL && !has_leftovers_locked(writer)) {
        xc_job *job = writer->awaiting;
        writer->awaiting = XC_UNLOCKED(job->next); /* the pump has not got it yet */
        xc_pump_post(job);
    }
    while (writer->rooms != NULL && !has_leftovers_locked(writer)) {
        xc_room *room = writer->rooms;
        writer->rooms = room->next;
        room->waits = false;
        tell_room(room);
    }
}

void
xc_writer_break_locked(xc_writer *writer, const xc_err *why)
{
    XC_ASSERT(why->code > XC_SPACE);
    if (writer->broken.code == XC_OK) {
        writer->broken = *why;
    }
    xc_buf_take(&writer->outbox, xc_buf_size(&writer->outbox));
    if (!writer->writing) {
        xc_buf_take(&writer->flight, xc_buf_size(&writer->flight));
        close_locked(writer);
        post_awaiting_locked(writer);
    }
    else if (writer->current != NULL && writer->watch.armed != 0) {
        (void)xc_pump_arm(&writer->watch, 0);
    }
    xc_writer_wake_all_locked(writer);
}

/* Not before the role is free: a frame that has it was taken before the end, and its sender is told that it is sent. */
static void
say_goodbye_locked(xc_writer *writer) XC_NEEDS(writer)
{
    unsigned char goodbye[XC_HEADER_SIZE];
    xc_frame_pack(goodbye, XC_TERMINATE, 0, 0);
    writer->parted = true;
    if (xc_buf_add(&writer->outbox, goodbye, sizeof goodbye) != XC_OK) {
        xc_writer_break_for_memory_locked(writer, "for a goodbye");
    }
}

void
xc_writer_release_locked(xc_writer *writer)
{
    writer->writing = false;
    writer->current = NULL;
    if (writer->ending && !writer->parted && writer->broken.code == XC_OK) {
        say_goodbye_locked(writer);
    }
    if (writer->broken.code != XC_OK) {
        xc_buf_take(&writer->flight, xc_buf_size(&writer->flight));
        close_locked(writer);
    }
    else if (has_leftovers_locked(writer)) {
        if (!watch_for_room_locked(writer)) {
            xc_err err;
            (void)xc_fail(&err, XC_SYS, ENOMEM, "watch a pipe for writing");
            xc_writer_break_locked(writer, &err);
        }
    }
    else if (writer->ending) {
        close_locked(writer);
    }
    else {
        (void)xc_pump_arm(&writer->watch, 0);
    }
    post_awaiting_locked(writer);
    if (writer->waiters != NULL) {
        xc_bell_ring(writer->waiters->bell);
    }
}

/* Keeps the rest of a frame. XC_NOMEM: nothing of it was kept. */
static xc_status
keep_locked(xc_writer *writer, xc_sending *sending) XC_NEEDS(writer)
{
    xc_buf *into = sending->started ? &writer->flight : &writer->outbox;
    size_t left = 0;
    for (int i = 0; i < sending->n; i++) {
        left += sending->parts[i].iov_len;
    }
    if (xc_buf_room(into, left) != XC_OK) {
        return XC_NOMEM;
    }
    xc_pages_fill(into->data + into->end, left); /* a Ctrl-C waits until this copy is done */
    for (int i = 0; i < sending->n; i++) {
        (void)xc_buf_add(into, sending->parts[i].iov_base, sending->parts[i].iov_len);
    }
    sending->n = 0;
    return XC_OK;
}

void
xc_writer_break_for_memory_locked(xc_writer *writer, const char *what)
{
    xc_err err;
    (void)xc_failf(&err, XC_NOMEM, "send", "no memory %s", what);
    xc_writer_break_locked(writer, &err);
}

/* The sender stops, or its thread sends another frame from a signal handler. */
void
xc_writer_spill_locked(xc_writer *writer, xc_sending *sending)
{
    XC_ASSERT(sending->mine && writer->writing);
    if (keep_locked(writer, sending) != XC_OK) {
        xc_writer_break_for_memory_locked(writer, REST);
    }
    sending->n = 0;
    sending->mine = false;
    xc_writer_release_locked(writer);
}

void
xc_writer_spill(xc_writer *writer, xc_sending *sending)
{
    xc_lock_writer(&writer->mu);
    if (sending->mine) {
        xc_writer_spill_locked(writer, sending);
    }
    xc_unlock_writer(&writer->mu);
}

xc_status
xc_writer_hand_over(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    xc_status rc = XC_OK;
    xc_lock_writer(&writer->mu);
    if (sending->n > 0) { /* else our own signal handler spilled it */
        /* A frame with the role was accepted before xc_writer_end, if that was called. */
        rc = sending->mine && writer->broken.code == XC_OK ? XC_OK : xc_writer_refusal_locked(writer, err);
        if (rc == XC_OK && keep_locked(writer, sending) != XC_OK) {
            rc = xc_fail(err, XC_NOMEM, 0, "keep a frame");
            if (sending->started) {
                xc_writer_break_for_memory_locked(writer, REST);
            }
        }
        bool release = sending->mine || !writer->writing;
        sending->mine = false;
        if (release) {
            xc_writer_release_locked(writer); /* so that the pump writes it */
        }
    }
    xc_unlock_writer(&writer->mu);
    return rc;
}

void
xc_writer_spill_own_locked(xc_writer *writer)
{
    if (writer->writing && writer->current != NULL && pthread_equal(writer->writer, pthread_self())) {
        xc_writer_spill_locked(writer, writer->current);
    }
}

/* XC_OK: `sending` has the role. XC_AGAIN: another frame has it. */
static xc_status
take_role_locked(xc_writer *writer, xc_sending *sending, xc_err *err) XC_NEEDS(writer)
{
    if (sending->mine) {
        return XC_OK;
    }
    xc_status rc = xc_writer_refusal_locked(writer, err);
    if (rc != XC_OK) {
        return rc;
    }
    xc_writer_spill_own_locked(writer);
    if (writer->writing) {
        return XC_AGAIN;
    }
    writer->writing = true;
    writer->writer = pthread_self();
    writer->current = sending;
    sending->mine = true;
    XC_HAS_ROLE(writer);
    load_flight_locked(writer);
    return XC_OK;
}

static xc_status
write_flight(xc_writer *writer, xc_err *err) XC_NEEDS_ROLE(writer) XC_HOLDS_NONE
{
    xc_status rc = XC_OK;
    while (rc == XC_OK && xc_buf_size(&writer->flight) > 0) {
        struct iovec part = {(void *)xc_buf_head(&writer->flight), xc_buf_size(&writer->flight)};
        size_t put = 0;
        rc = xc_stream_write(writer->stream, &part, 1, &put, err);
        xc_buf_take(&writer->flight, put);
    }
    return rc;
}

/* Writes leftovers, then the frame. */
static xc_status
write_on(xc_writer *writer, xc_sending *sending, xc_err *err) XC_NEEDS_ROLE(writer) XC_HOLDS_NONE
{
    xc_status rc = XC_OK;
    while (rc == XC_OK && xc_buf_size(&writer->flight) > 0) {
        rc = write_flight(writer, err);
        xc_lock_writer(&writer->mu);
        load_flight_locked(writer); /* `flight` was the rest of a frame: now the outbox comes */
        xc_unlock_writer(&writer->mu);
    }
    while (rc == XC_OK && sending->n > 0) {
        size_t put = 0;
        rc = xc_stream_write(writer->stream, sending->parts, sending->n, &put, err);
        xc_iov_advance(&sending->parts, &sending->n, put);
        sending->started = sending->started || put > 0;
    }
    return rc;
}

/* Writes once. Keeps the role only to wait for room. */
static xc_status
write_and_release(xc_writer *writer, xc_sending *sending, xc_err *err) XC_NEEDS_ROLE(writer) XC_HOLDS_NONE
{
    xc_err why = {.code = XC_OK};
    xc_status rc = write_on(writer, sending, &why);
    if (rc == XC_AGAIN) {
        return rc;
    }
    xc_lock_writer(&writer->mu);
    if (rc != XC_OK) {
        xc_writer_break_locked(writer, &why);
        if (err != NULL) {
            *err = writer->broken;
        }
    }
    else if (sending->moves_to != NULL) {
        (void)xc_pump_arm(&writer->watch, 0);
        writer->stream->ring = sending->moves_to;
    }
    sending->mine = false;
    xc_writer_release_locked(writer);
    xc_unlock_writer(&writer->mu);
    return rc;
}

/* True: nobody waits for the role, and writing cannot block: mu may be held. */
static bool
is_idle_ring_locked(const xc_writer *writer) XC_NEEDS(writer)
{
    return writer->stream->ring != NULL && !writer->writing && writer->waiters == NULL && !writer->ending &&
           writer->broken.code == XC_OK && !has_leftovers_locked(writer);
}

/* True: all of it is out. */
static bool
write_now_locked(xc_writer *writer, xc_sending *sending) XC_NEEDS(writer)
{
    size_t put = 0;
    /* After an error the next write meets the same one. */
    (void)xc_stream_write(writer->stream, sending->parts, sending->n, &put, NULL);
    xc_iov_advance(&sending->parts, &sending->n, put);
    sending->started = put > 0;
    return sending->n == 0;
}

xc_status
xc_writer_try(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    xc_status rc = XC_OK;
    XC_ASSERT(sending->n > 0);
    xc_lock_writer(&writer->mu);
    bool out = is_idle_ring_locked(writer) && write_now_locked(writer, sending);
    if (!out) {
        rc = take_role_locked(writer, sending, err);
    }
    xc_unlock_writer(&writer->mu);
    if (out || rc != XC_OK) {
        return rc;
    }
    XC_HAS_ROLE(writer);
    return write_and_release(writer, sending, err);
}

/* In the order of tickets. The thread that has the role and waits for room stands first, with ticket 0. */
static void
join_line_locked(xc_writer *writer, struct xc_writer_waiter *self) XC_NEEDS(writer)
{
    struct xc_writer_waiter **p = &writer->waiters;
    while (*p != NULL && (*p)->ticket < self->ticket) {
        p = &(*p)->next;
    }
    self->next = *p;
    *p = self;
}

static void
leave_line_locked(xc_writer *writer, struct xc_writer_waiter *self) XC_NEEDS(writer)
{
    struct xc_writer_waiter **p = &writer->waiters;
    while (*p != self) {
        p = &(*p)->next;
    }
    *p = self->next;
}

/* Waits until the role may be free. A polite frame waits until it is free and nobody is before it in the line. */
static xc_status
wait_role_locked(xc_writer *writer, xc_sending *sending, int64_t until) XC_NEEDS(writer) XC_NEEDS_THIS(writer->mu)
{
    xc_status rc = XC_OK;
    if (sending->ticket == 0) {
        sending->ticket = ++writer->last_ticket;
    }
    struct xc_writer_waiter self = {.bell = xc_bell_mine(), .ticket = sending->ticket};
    join_line_locked(writer, &self);
    do {
        xc_unlock_writer(&writer->mu);
        rc = xc_bell_sleep_nogil(self.bell, -1, 0, until);
        xc_lock_writer(&writer->mu);
    } while (rc == XC_OK && sending->polite && (writer->writing || writer->waiters != &self) &&
             xc_writer_refusal_locked(writer, NULL) == XC_OK);
    leave_line_locked(writer, &self);
    if (rc != XC_OK && !writer->writing && writer->waiters != NULL) {
        xc_bell_ring(writer->waiters->bell); /* the bell may have been rung for us: wake the next one instead */
    }
    return rc;
}

/* XC_OK: this frame has the role. */
static xc_status
get_role_locked(xc_writer *writer, xc_sending *sending, int64_t until, xc_err *err) XC_NEEDS(writer)
    XC_NEEDS_THIS(writer->mu)
{
    xc_status rc = XC_OK;
    if (sending->polite && !sending->mine) {
        xc_writer_spill_own_locked(writer); /* or those in the line would wait for us, and we for them */
    }
    bool first = writer->waiters == NULL || (sending->ticket != 0 && sending->ticket < writer->waiters->ticket);
    if (sending->polite && !sending->mine && !first) {
        rc = xc_writer_refusal_locked(writer, err); /* the line was woken for that: nobody would wake us any more */
        rc = rc == XC_OK ? wait_role_locked(writer, sending, until) : rc;
    }
    while (rc == XC_OK && (rc = take_role_locked(writer, sending, err)) == XC_AGAIN) {
        rc = wait_role_locked(writer, sending, until);
    }
    return rc;
}

xc_status
xc_writer_send_nogil(xc_writer *writer, xc_sending *sending, int64_t until, xc_err *err)
{
    XC_ASSERT_NOGIL();
    for (;;) {
        if (sending->n == 0) {
            return XC_OK; /* our own signal handler spilled it */
        }
        xc_lock_writer(&writer->mu);
        xc_status rc = get_role_locked(writer, sending, until, err);
        bool broken = sending->mine && writer->broken.code != XC_OK;
        if (broken) {
            if (err != NULL) {
                *err = writer->broken;
            }
            rc = writer->broken.code;
            sending->mine = false;
            xc_writer_release_locked(writer);
        }
        xc_unlock_writer(&writer->mu);
        if (rc != XC_OK) {
            return rc;
        }
        XC_HAS_ROLE(writer);
        rc = write_and_release(writer, sending, err);
        if (rc != XC_AGAIN) {
            return rc;
        }
        struct xc_writer_waiter self = {.bell = xc_bell_mine()};
        xc_lock_writer(&writer->mu);
        join_line_locked(writer, &self); /* so that a break wakes us; we have the role and do not wait for it */
        bool already = writer->broken.code != XC_OK;
        xc_unlock_writer(&writer->mu);
        if (!already) {
            rc = xc_stream_sleep_nogil(writer->stream, self.bell, POLLOUT, until);
        }
        xc_lock_writer(&writer->mu);
        leave_line_locked(writer, &self);
        xc_unlock_writer(&writer->mu);
        if (rc == XC_INTR || rc == XC_TIMEOUT) {
            return rc;
        }
    }
}

/* --- leftovers --------------------------------------------------------------------------------------------------- */

void
xc_writer_flush(xc_writer *writer)
{
    xc_err why = {.code = XC_OK};
    xc_lock_writer(&writer->mu);
    if (writer->writing || writer->closed || !has_leftovers_locked(writer)) {
        if (!writer->closed) {
            (void)xc_pump_arm(&writer->watch, 0); /* the writer will do this when it gives the role back */
        }
        xc_unlock_writer(&writer->mu);
        return;
    }
    writer->writing = true;
    XC_HAS_ROLE(writer);
    load_flight_locked(writer);
    xc_unlock_writer(&writer->mu);
    xc_status rc = write_flight(writer, &why);
    xc_lock_writer(&writer->mu);
    if (rc != XC_OK && rc != XC_AGAIN) {
        xc_writer_break_locked(writer, &why);
    }
    xc_writer_release_locked(writer);
    xc_unlock_writer(&writer->mu);
}

static void
writable(xc_watch *watch, short revents)
{
    (void)revents;
    xc_writer_flush(watch->owner);
}

static void
flush_late(xc_timer *timer)
{
    xc_writer_flush(timer->owner);
}
