/*
 * Sending long messages: cut into pieces, each of them a frame that is sent when the writer role is free.
 *
 * Invariant: a bit of `numbers` is set while a message has that number: until its last byte or its DROP.
 */
#include "xc_writer_impl.h"

/* While XC_LONG_COUNT long messages are being sent, another one looks so often for a free number. */
#define NUMBER_NS (5 * XC_MS)

void
xc_long_begin(xc_long_sending *sending, const xc_long_frame *message, struct iovec *parts)
{
    *sending = (xc_long_sending){.frame = {.polite = true}};
    xc_cut_begin(&sending->cut, message, parts);
}

static bool
take_number_locked(xc_writer *writer, xc_long_sending *sending) XC_NEEDS(writer)
{
    for (uint32_t i = 0; i < XC_LONG_COUNT && !sending->numbered; i++) {
        if ((writer->numbers >> i & 1) == 0) {
            writer->numbers |= UINT64_C(1) << i;
            sending->number = i;
            sending->numbered = true;
        }
    }
    return sending->numbered;
}

static void
free_number_locked(xc_writer *writer, xc_long_sending *sending) XC_NEEDS(writer)
{
    if (sending->numbered) {
        XC_ASSERT((writer->numbers >> sending->number & 1) != 0);
        writer->numbers &= ~(UINT64_C(1) << sending->number);
        sending->numbered = false;
    }
}

static xc_status
get_number_nogil(xc_writer *writer, xc_long_sending *sending, int64_t until, xc_err *err) XC_HOLDS_NONE
{
    for (;;) {
        xc_lock_writer(&writer->mu);
        xc_status rc = xc_writer_refusal_locked(writer, err);
        bool got = rc == XC_OK && take_number_locked(writer, sending);
        if (rc == XC_OK && !got) {
            xc_writer_spill_own_locked(writer); /* or those who have the numbers would wait for us, and we for them */
        }
        xc_unlock_writer(&writer->mu);
        if (got || rc != XC_OK) {
            return rc;
        }
        int64_t next = xc_after(NUMBER_NS);
        rc = xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, next < until ? next : until);
        if (rc == XC_INTR || (rc == XC_TIMEOUT && next >= until)) {
            return rc;
        }
    }
}

xc_status
xc_writer_send_long_nogil(xc_writer *writer, xc_long_sending *sending, int64_t until, xc_err *err)
{
    xc_sending *frame = &sending->frame;
    XC_ASSERT(!sending->numbered || sending->number < XC_LONG_COUNT);
    xc_status rc = sending->numbered ? XC_OK : get_number_nogil(writer, sending, until, err);
    while (rc == XC_OK) {
        if (frame->n == 0) {
            sending->begun = frame->parts != NULL;
            *frame = (xc_sending){.polite = true};
            frame->n = xc_cut_next(&sending->cut, sending->number, &frame->parts);
            if (frame->n == 0) {
                xc_lock_writer(&writer->mu);
                free_number_locked(writer, sending);
                xc_unlock_writer(&writer->mu);
                return XC_OK;
            }
        }
        rc = xc_writer_send_nogil(writer, frame, until, err);
        if (rc == XC_OK && sending->cut.message.size > 0 && until != XC_FOREVER && xc_now() >= until) {
            rc = XC_TIMEOUT; /* a sender that never waits for room must check for signals, too */
        }
    }
    return rc;
}

bool
xc_writer_drop(xc_writer *writer, xc_long_sending *sending)
{
    xc_sending *frame = &sending->frame;
    unsigned char drop[XC_HEADER_SIZE];
    xc_lock_writer(&writer->mu);
    if (frame->mine && frame->started) {
        xc_writer_spill_locked(writer, frame);
    }
    else if (frame->mine) {
        frame->mine = false;
        xc_writer_release_locked(writer);
    }
    bool kept = frame->parts != NULL && frame->n == 0; /* or written */
    bool sent = kept && sending->cut.message.size == 0;
    if (sending->numbered && (kept || sending->begun) && !sent && xc_writer_refusal_locked(writer, NULL) == XC_OK) {
        xc_frame_pack(drop, XC_DROP, sending->number, 0);
        if (xc_buf_add(&writer->outbox, drop, sizeof drop) != XC_OK) {
            /* The number could never be used again. */
            xc_writer_break_for_memory_locked(writer, "to give up a long message");
        }
        else if (!writer->writing) {
            xc_writer_release_locked(writer);
        }
    }
    free_number_locked(writer, sending);
    xc_unlock_writer(&writer->mu);
    return sent;
}
