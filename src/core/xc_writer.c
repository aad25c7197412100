/*
 * Invariants: `flight` holds what must come out before anything else, at most one frame's rest or an outbox that was
 * begun; only the thread with the turn touches it. `outbox` holds whole frames only. While either is not empty and
 * nobody has the turn, the pump watches the fd.
 */
#include "xc_writer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "xc_forkfd.h"
#include "xc_pages.h"

/* A thread that waits for the turn. */
struct xc_turn {
    struct xc_turn *next;
    xc_bell *bell;
};

static void writable(xc_watch *watch, short revents);

void
xc_writer_init(xc_writer *writer, xc_stream *stream)
{
    xc_mutex_init(&writer->mu);
    writer->stream = stream;
    writer->watch.fd = stream->out;
    writer->watch.ready = writable;
    writer->watch.owner = writer;
}

void
xc_writer_fini(xc_writer *writer)
{
    xc_buf_fini(&writer->flight);
    xc_buf_fini(&writer->outbox);
    xc_mutex_fini(&writer->mu);
}

static bool
has_leftovers_locked(xc_writer *writer)
{
    return xc_buf_size(&writer->flight) > 0 || xc_buf_size(&writer->outbox) > 0;
}

/* What waits in the outbox goes out first; what comes to it later, when the turn is given back. */
static void
load_flight_locked(xc_writer *writer)
{
    if (xc_buf_size(&writer->flight) == 0 && xc_buf_size(&writer->outbox) > 0) {
        xc_buf empty = writer->flight;
        writer->flight = writer->outbox;
        writer->outbox = empty;
    }
}

static xc_status
refusal_locked(xc_writer *writer, xc_err *err)
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
close_locked(xc_writer *writer)
{
    if (!writer->closed) {
        writer->closed = true;
        (void)xc_pump_arm(&writer->watch, 0);
        xc_forkfd_remove(writer->stream->out);
        xc_stream_close_write(writer->stream);
    }
}

static void
wake_all_locked(xc_writer *writer)
{
    for (struct xc_turn *turn = writer->waiters; turn != NULL; turn = turn->next) {
        xc_bell_ring(turn->bell);
    }
}

static void
post_awaiting_locked(xc_writer *writer)
{
    while (writer->awaiting != NULL && !has_leftovers_locked(writer)) {
        xc_job *job = writer->awaiting;
        writer->awaiting = job->next;
        xc_pump_post(job);
    }
}

static void
break_locked(xc_writer *writer, const xc_err *why)
{
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
    wake_all_locked(writer);
}

/* The turn is free again: the next one in the line gets it, or the pump where something is left to write. */
static void
release_locked(xc_writer *writer)
{
    writer->writing = false;
    writer->current = NULL;
    if (writer->broken.code != XC_OK) {
        xc_buf_take(&writer->flight, xc_buf_size(&writer->flight));
        close_locked(writer);
    }
    else if (has_leftovers_locked(writer)) {
        if (xc_pump_arm(&writer->watch, POLLOUT) != XC_OK) {
            xc_err err;
            (void)xc_fail(&err, XC_SYS, ENOMEM, "watch a pipe for writing");
            break_locked(writer, &err);
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

/* Keeps what is left of a frame whose sender goes away or sends another frame from a signal handler. */
static void
spill_locked(xc_writer *writer, xc_sending *sending)
{
    xc_status rc = XC_OK;
    xc_buf *into = sending->started ? &writer->flight : &writer->outbox;
    size_t left = 0;
    for (int i = 0; i < sending->n; i++) {
        left += sending->parts[i].iov_len;
    }
    rc = xc_buf_room(into, left);
    if (rc == XC_OK) {
        xc_pages_fill(into->data + into->end, left); /* Ctrl-C waits for this copy */
    }
    for (int i = 0; i < sending->n && rc == XC_OK; i++) {
        rc = xc_buf_add(into, sending->parts[i].iov_base, sending->parts[i].iov_len);
    }
    sending->n = 0;
    sending->mine = false;
    if (rc != XC_OK) {
        xc_err err;
        (void)xc_fail(&err, XC_NOMEM, 0, "keep the rest of an interrupted frame");
        break_locked(writer, &err);
    }
    release_locked(writer);
}

void
xc_writer_spill(xc_writer *writer, xc_sending *sending)
{
    xc_lock(&writer->mu);
    if (sending->mine) {
        spill_locked(writer, sending);
    }
    xc_unlock(&writer->mu);
}

/* XC_OK: `sending` has the turn. XC_AGAIN: somebody else has it. A frame with nothing left needs no turn. */
static xc_status
take_turn_locked(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    if (sending->mine) {
        return XC_OK;
    }
    xc_status rc = refusal_locked(writer, err);
    if (rc != XC_OK) {
        return rc;
    }
    if (writer->writing && writer->current != NULL && pthread_equal(writer->writer, pthread_self())) {
        spill_locked(writer, writer->current); /* we run inside a signal handler of that frame's sender */
    }
    if (writer->writing) {
        return XC_AGAIN;
    }
    writer->writing = true;
    writer->writer = pthread_self();
    writer->current = sending;
    sending->mine = true;
    load_flight_locked(writer);
    sending->behind = xc_buf_size(&writer->outbox) > 0;
    return XC_OK;
}

/* Writes what must come out before anything else. The turn is ours, mu is not held. */
static xc_status
write_flight(xc_writer *writer, xc_err *err)
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

/* Writes leftovers, then the frame. The turn is ours, mu is not held. */
static xc_status
write_on(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    xc_status rc = write_flight(writer, err);
    if (rc == XC_OK && sending->behind) {
        xc_lock(&writer->mu);
        load_flight_locked(writer);
        sending->behind = false;
        xc_unlock(&writer->mu);
        rc = write_flight(writer, err);
    }
    while (rc == XC_OK && sending->n > 0) {
        size_t put = 0;
        rc = xc_stream_write(writer->stream, sending->parts, sending->n, &put, err);
        xc_iov_advance(&sending->parts, &sending->n, put);
        sending->started = sending->started || put > 0;
    }
    return rc;
}

/* One go of writing with the turn held; gives the turn back unless it must wait. */
static xc_status
write_and_release(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    xc_err why = {.code = XC_OK};
    xc_status rc = write_on(writer, sending, &why);
    if (rc == XC_AGAIN) {
        return rc;
    }
    xc_lock(&writer->mu);
    if (rc != XC_OK) {
        break_locked(writer, &why);
        if (err != NULL) {
            *err = writer->broken;
        }
    }
    sending->mine = false;
    release_locked(writer);
    xc_unlock(&writer->mu);
    return rc;
}

xc_status
xc_writer_try(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    xc_lock(&writer->mu);
    xc_status rc = take_turn_locked(writer, sending, err);
    xc_unlock(&writer->mu);
    return rc == XC_OK ? write_and_release(writer, sending, err) : rc;
}

static void
leave_line_locked(xc_writer *writer, struct xc_turn *self)
{
    struct xc_turn **p = &writer->waiters;
    while (*p != self) {
        p = &(*p)->next;
    }
    *p = self->next;
}

/* Waits until the turn may be free. */
static xc_status
wait_turn_locked(xc_writer *writer, int64_t until) XC_NEEDS(writer->mu)
{
    struct xc_turn self = {.next = NULL, .bell = xc_bell_mine()};
    struct xc_turn **p = &writer->waiters;
    while (*p != NULL) {
        p = &(*p)->next;
    }
    *p = &self;
    xc_unlock(&writer->mu);
    xc_status rc = xc_bell_sleep_nogil(self.bell, -1, 0, until);
    xc_lock(&writer->mu);
    leave_line_locked(writer, &self);
    if (rc != XC_OK && !writer->writing && writer->waiters != NULL) {
        xc_bell_ring(writer->waiters->bell); /* the ring may have been meant for us: pass it on */
    }
    return rc;
}

xc_status
xc_writer_send_nogil(xc_writer *writer, xc_sending *sending, int64_t until, xc_err *err)
{
    XC_ASSERT_NOGIL();
    for (;;) {
        xc_status rc = XC_OK;
        if (sending->n == 0) {
            return XC_OK; /* a signal handler of ours spilled it */
        }
        xc_lock(&writer->mu);
        while (rc == XC_OK && (rc = take_turn_locked(writer, sending, err)) == XC_AGAIN) {
            rc = wait_turn_locked(writer, until);
        }
        bool broken = sending->mine && writer->broken.code != XC_OK;
        if (broken) {
            if (err != NULL) {
                *err = writer->broken;
            }
            rc = writer->broken.code;
            sending->mine = false;
            release_locked(writer);
        }
        xc_unlock(&writer->mu);
        if (rc != XC_OK) {
            return rc;
        }
        rc = write_and_release(writer, sending, err);
        if (rc != XC_AGAIN) {
            return rc;
        }
        struct xc_turn self = {.bell = xc_bell_mine()};
        xc_lock(&writer->mu);
        self.next = writer->waiters; /* so that a break wakes us; we are no candidate for the turn: we have it */
        writer->waiters = &self;
        bool already = writer->broken.code != XC_OK;
        xc_unlock(&writer->mu);
        if (!already) {
            rc = xc_bell_sleep_nogil(self.bell, writer->stream->out, POLLOUT, until);
        }
        xc_lock(&writer->mu);
        leave_line_locked(writer, &self);
        xc_unlock(&writer->mu);
        if (rc == XC_INTR || rc == XC_TIMEOUT) {
            return rc;
        }
    }
}

xc_status
xc_writer_post(xc_writer *writer, const void *frames, size_t n)
{
    xc_lock(&writer->mu);
    xc_status rc = refusal_locked(writer, NULL);
    if (rc == XC_OK) {
        rc = xc_buf_add(&writer->outbox, frames, n);
    }
    if (rc == XC_OK && !writer->writing) {
        release_locked(writer);
    }
    xc_unlock(&writer->mu);
    return rc;
}

bool
xc_writer_await_room(xc_writer *writer, xc_job *job)
{
    xc_lock(&writer->mu);
    /* Who writes now has its eyes on `flight`, which is no longer than the outbox was when it began. */
    size_t left = xc_buf_size(&writer->outbox) + (writer->writing ? 0 : xc_buf_size(&writer->flight));
    bool much = left > XC_WRITER_MUCH && !writer->closed;
    if (much) {
        job->next = writer->awaiting;
        writer->awaiting = job;
    }
    xc_unlock(&writer->mu);
    return much;
}

void
xc_writer_end(xc_writer *writer)
{
    xc_lock(&writer->mu);
    if (!writer->ending) {
        writer->ending = true;
        if (!writer->writing) {
            release_locked(writer);
        }
        wake_all_locked(writer); /* each is refused now, and whoever is refused rings for nobody else */
    }
    xc_unlock(&writer->mu);
}

void
xc_writer_break(xc_writer *writer, const xc_err *why)
{
    xc_lock(&writer->mu);
    break_locked(writer, why);
    xc_unlock(&writer->mu);
}

/* On the pump's thread: leftovers may go out now. */
static void
writable(xc_watch *watch, short revents)
{
    xc_writer *writer = watch->owner;
    xc_err why = {.code = XC_OK};
    (void)revents;
    xc_lock(&writer->mu);
    if (writer->writing || writer->closed) {
        if (!writer->closed) {
            (void)xc_pump_arm(watch, 0); /* the writer takes care of it when it gives the turn back */
        }
        xc_unlock(&writer->mu);
        return;
    }
    writer->writing = true;
    load_flight_locked(writer);
    xc_unlock(&writer->mu);
    xc_status rc = write_flight(writer, &why);
    xc_lock(&writer->mu);
    if (rc != XC_OK && rc != XC_AGAIN) {
        break_locked(writer, &why);
    }
    release_locked(writer);
    xc_unlock(&writer->mu);
}
