/*
 * How a link comes to its rings: it begins with them, or it moves to them. Each side announces its move by a frame;
 * what it sends behind that goes through the ring, and through the fds go only notifications of a pump.
 *
 * Invariant: `incoming.ring` and `outgoing.ring` are NULL or point into `region`, and once set they never change.
 */
#include <errno.h>
#include <poll.h>

#include "xc_link_impl.h"
#include "xc_trace.h"

/* How long nine bytes may take to be written into a pipe that the far end has emptied. */
#define MOVE_NS (10 * XC_S)

static void
keep_locked(xc_link *link, xc_region *region) XC_NEEDS(link)
{
    XC_ASSERT(region->map != NULL && link->region.map == NULL);
    link->region = *region;
    *region = (xc_region){.fd = -1};
    xc_lock_writer(&link->writer.mu);
    link->region.in.notify_fd = link->region.out.notify_fd = link->outgoing.out;
    link->outgoing.kept = true;
    xc_unlock_writer(&link->writer.mu);
}

/* From now on the pump watches the fds as long as the link lives. */
static xc_status
read_ring_locked(xc_link *link, xc_err *err) XC_NEEDS(link)
{
    if (xc_pump_arm(&link->pump.watch, POLLIN) != XC_OK) {
        return xc_fail(err, XC_SYS, ENOMEM, "watch a pipe");
    }
    link->incoming.ring = &link->region.in;
    return XC_OK;
}

xc_status
xc_begin_with_rings(xc_link *link, xc_region *region, xc_err *err)
{
    link->reader.unmarked = false;
    xc_lock_link(&link->mu);
    keep_locked(link, region);
    link->outgoing.ring = &link->region.out;
    xc_status rc = read_ring_locked(link, err);
    xc_unlock_link(&link->mu);
    return rc;
}

bool
xc_link_offer(xc_link *link, xc_region *region)
{
    xc_lock_link(&link->mu);
    bool first = link->region.map == NULL;
    if (first) {
        keep_locked(link, region);
    }
    xc_unlock_link(&link->mu);
    xc_region_close(region);
    return first;
}

void
xc_link_withdraw(xc_link *link)
{
    xc_lock_link(&link->mu);
    if (!xc_reads_ring(link)) {
        xc_lock_writer(&link->writer.mu);
        link->outgoing.kept = false;
        xc_unlock_writer(&link->writer.mu);
        xc_region_close(&link->region);
    }
    xc_unlock_link(&link->mu);
}

xc_status
xc_link_move_nogil(xc_link *link, xc_err *err)
{
    unsigned char frame[XC_HEADER_SIZE];
    struct iovec part = {frame, sizeof frame};
    xc_sending sending = {.parts = &part, .n = 1, .moves_to = &link->region.out};
    int64_t until = xc_after(MOVE_NS);
    xc_frame_pack(frame, XC_MOVE, 0, 0);
    xc_status rc = XC_OK;
    xc_lock_link(&link->mu);
    if (link->end.eof) {
        *err = link->end.why;
        rc = err->code;
    }
    else if (link->region.map == NULL) {
        rc = xc_failf(err, XC_BAD, "move", "no memory was offered");
    }
    xc_region_close_fd(&link->region);
    xc_unlock_link(&link->mu);
    if (rc != XC_OK) {
        return rc;
    }
    if (xc_tracing()) {
        xc_trace_frame("sent", XC_MOVE, 0, 0);
    }
    do {
        rc = xc_writer_send_nogil(&link->writer, &sending, until, err);
    } while (rc == XC_INTR);
    if (rc == XC_TIMEOUT) {
        rc = xc_fail(err, XC_SYS, ETIMEDOUT, "move to shared memory");
        xc_writer_break(&link->writer, err);
        xc_writer_spill(&link->writer, &sending);
    }
    return rc;
}

xc_status
xc_take_move(xc_link *link, xc_err *err)
{
    xc_status rc;
    if (xc_tracing()) {
        xc_trace_frame("received", XC_MOVE, 0, 0);
    }
    xc_lock_link(&link->mu);
    if (link->region.map == NULL || xc_reads_ring(link)) {
        rc = xc_failf(err, XC_BAD, "read", "the far end moved to memory that nobody had offered");
    }
    else {
        rc = read_ring_locked(link, err);
    }
    xc_unlock_link(&link->mu);
    link->reader.start = link->reader.end = 0;
    xc_pump_set(&link->writer.flush, xc_now()); /* a notification of room may have been thrown away with the buffer */
    return rc;
}
