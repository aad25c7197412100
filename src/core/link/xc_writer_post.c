/*
 * The writer's part for callers that never wait: posted frames, how much is left to write, and the end.
 */
#include <errno.h>

#include "xc_writer_impl.h"

xc_status
xc_writer_post(xc_writer *writer, const void *frames, size_t n)
{
    XC_ASSERT(n >= XC_HEADER_SIZE);
    xc_lock_writer(&writer->mu);
    xc_status rc = xc_writer_refusal_locked(writer, NULL);
    if (rc == XC_OK) {
        rc = xc_buf_add(&writer->outbox, frames, n);
        if (rc != XC_OK) {
            xc_writer_break_for_memory_locked(writer, "for a frame");
        }
        else if (!writer->writing) {
            xc_writer_release_locked(writer);
        }
    }
    xc_unlock_writer(&writer->mu);
    return rc;
}

xc_status
xc_writer_send_soon(xc_writer *writer, xc_sending *sending, xc_err *err)
{
    xc_status rc = xc_writer_try(writer, sending, err);
    return rc == XC_AGAIN ? xc_writer_hand_over(writer, sending, err) : rc;
}

static size_t
left_locked(const xc_writer *writer) XC_NEEDS(writer)
{
    /* `flight` is not counted while somebody writes it: it changes without mu. It is the rest of one frame, or at most
     * as large as the outbox was. */
    size_t left = xc_buf_size(&writer->outbox) + (writer->writing ? 0 : xc_buf_size(&writer->flight));
    return writer->closed ? 0 : left;
}

size_t
xc_writer_left(xc_writer *writer)
{
    xc_lock_writer(&writer->mu);
    size_t left = left_locked(writer);
    xc_unlock_writer(&writer->mu);
    return left;
}

bool
xc_writer_is_full(xc_writer *writer)
{
    xc_lock_writer(&writer->mu);
    bool full = left_locked(writer) > XC_WRITER_MUCH;
    xc_unlock_writer(&writer->mu);
    return full;
}

bool
xc_writer_await_room(xc_writer *writer, xc_job *job)
{
    XC_ASSERT(job->run != NULL);
    xc_lock_writer(&writer->mu);
    bool much = left_locked(writer) > XC_WRITER_MUCH;
    if (much) {
        XC_UNLOCKED(job->next) = writer->awaiting; /* the pump has not got it yet */
        writer->awaiting = job;
    }
    xc_unlock_writer(&writer->mu);
    return much;
}

bool
xc_writer_notify_room(xc_writer *writer, xc_room *room)
{
    XC_ASSERT(room->fd >= 0);
    xc_lock_writer(&writer->mu);
    bool much = left_locked(writer) > XC_WRITER_MUCH;
    if (much) {
        room->waits = true;
        room->next = writer->rooms;
        writer->rooms = room;
    }
    xc_unlock_writer(&writer->mu);
    return much;
}

bool
xc_writer_room_over(xc_writer *writer, const xc_room *room)
{
    xc_lock_writer(&writer->mu);
    bool over = !room->waits;
    xc_unlock_writer(&writer->mu);
    return over;
}

void
xc_writer_forget_room(xc_writer *writer, xc_room *room)
{
    xc_lock_writer(&writer->mu);
    if (room->waits) {
        struct xc_room **p = &writer->rooms;
        while (*p != room) {
            p = &(*p)->next;
        }
        *p = room->next;
        room->waits = false;
    }
    xc_unlock_writer(&writer->mu);
}

bool
xc_writer_end(xc_writer *writer)
{
    xc_lock_writer(&writer->mu);
    bool ends = xc_writer_refusal_locked(writer, NULL) == XC_OK;
    if (!writer->ending) {
        writer->ending = true;
        if (!writer->writing) {
            xc_writer_release_locked(writer);
        }
        xc_writer_wake_all_locked(writer); /* each is refused now, and a refused thread does not wake the next one */
    }
    xc_unlock_writer(&writer->mu);
    return ends;
}

bool
xc_writer_failed_here(xc_writer *writer, xc_err *err)
{
    xc_lock_writer(&writer->mu);
    bool failed = writer->broken.code == XC_NOMEM || writer->broken.sys_errno == EBADF;
    if (failed) {
        *err = writer->broken;
    }
    else {
        failed = xc_stream_check(writer->stream, err) != XC_OK;
    }
    xc_unlock_writer(&writer->mu);
    return failed;
}

void
xc_writer_break(xc_writer *writer, const xc_err *why)
{
    xc_lock_writer(&writer->mu);
    xc_writer_break_locked(writer, why);
    xc_unlock_writer(&writer->mu);
}
