/*
 * The pump's part of a link: it watches and reads the link while nobody waits there, takes the far end's notifications
 * if the frames go through rings, and ends the link when the far end has died.
 *
 * Invariant: a link that has not ended has a reader, or is watched, or its rearm timer is set.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "xc_link_impl.h"

enum { PUMP_READS = 16 };

/* --- watching ------------------------------------------------------------------------------------------------- */

bool
xc_watched_locked(const xc_link *link)
{
    return xc_reads_ring(link) ? link->pump.notified : link->pump.watch.armed != 0;
}

/* Lets the pump watch the link. XC_AGAIN: something has come already. XC_SYS: no memory for that at the moment. */
static xc_status
watch_locked(xc_link *link) XC_NEEDS(link)
{
    if (!xc_reads_ring(link)) {
        return xc_pump_arm(&link->pump.watch, POLLIN);
    }
    link->pump.notified = xc_ring_arm(link->incoming.ring);
    return link->pump.notified ? XC_OK : XC_AGAIN;
}

void
xc_unwatch_locked(xc_link *link)
{
    if (!xc_reads_ring(link)) {
        if (link->pump.watch.armed != 0) {
            (void)xc_pump_arm(&link->pump.watch, 0);
        }
    }
    else if (link->pump.notified) {
        xc_ring_disarm(link->incoming.ring);
        link->pump.notified = false;
    }
}

/* --- reading --------------------------------------------------------------------------------------------------- */

/* The timer calls again soon, when other links have had their turn. */
static void
read_again_soon_locked(xc_link *link) XC_NEEDS(link)
{
    link->pump.rearm_set = true;
    xc_pump_set(&link->pump.rearm, xc_now());
}

/* In the middle of a payload in a ring whose writer is at work: to sleep and be notified for each part of it would take
 * ten times as long (64 MiB: 250 ms, not 20). Other links wait for at most PUMP_READS of these. */
static bool
more_is_near(const xc_link *link) XC_NEEDS_ROLE(reader)
{
    return xc_reads_ring(link) && link->reader.current != NULL && xc_cpu_count() > 1 &&
           xc_ring_spin(link->incoming.ring, XC_SPIN_RING_NS);
}

/* On the pump's thread: reads what is there, unless somebody else reads. */
static void
drain(xc_link *link) XC_TAKES_LINK
{
    xc_err err = {.code = XC_OK};
    size_t space;
    xc_lock_link(&link->mu);
    if (link->wait.reading || link->end.eof) {
        xc_unwatch_locked(link);
        xc_unlock_link(&link->mu);
        return;
    }
    link->wait.reading = true;
    XC_HAS_ROLE(reader);
    link->pump.notified = false;
    link->incoming.polling = false;
    xc_unlock_link(&link->mu);
    xc_status rc = XC_OK;
    for (int i = 0; i < PUMP_READS && rc == XC_OK; i++) {
        rc = xc_read_some(link, false, &space, &err);
        if (rc == XC_AGAIN && more_is_near(link)) {
            rc = XC_OK;
        }
    }
    if (rc != XC_OK && rc != XC_AGAIN) {
        xc_end_reading(link, &err);
    }
    xc_lock_link(&link->mu);
    link->wait.reading = false;
    if (xc_reads_ring(link) && !link->end.eof && (rc == XC_OK || watch_locked(link) == XC_AGAIN)) {
        read_again_soon_locked(link);
    }
    xc_hand_on_locked(link);
    xc_unlock_link(&link->mu);
}

/* Keeps bytes from the fds that are no notifications: a print in a start-up file, before the far end had moved its fds
 * out of the way. False: there are too many. */
static bool
keep_stray(xc_link *link, const unsigned char *bytes, size_t n) XC_TAKES_LINK
{
    xc_lock_link(&link->mu);
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0) {
            xc_preamble_rest(&link->preamble, bytes + i, 1);
        }
    }
    bool fine = xc_buf_size(&link->preamble) < XC_PREAMBLE_MAX;
    xc_unlock_link(&link->mu);
    return fine;
}

/* With rings: a notification of the far end, or its hang-up. */
static void
take_notifications(xc_link *link) XC_TAKES_LINK
{
    unsigned char bytes[256];
    size_t got = 0;
    xc_err err;
    xc_stream fds = {.in = link->incoming.in};
    xc_status rc = xc_stream_read(&fds, bytes, sizeof bytes, &got, &err); /* if there is more, the pump comes back */
    bool stray = rc == XC_OK && !keep_stray(link, bytes, got);
    if (stray || (rc != XC_OK && rc != XC_AGAIN)) {
        atomic_store(&link->pump.fds_say, stray ? XC_FDS_STRAY : XC_FDS_HUNG_UP);
        xc_lock_link(&link->mu);
        (void)xc_pump_arm(&link->pump.watch, 0);
        bool over = link->end.eof;
        xc_unlock_link(&link->mu);
        xc_poll_soon(link);
        if (over && !stray) { /* after a goodbye: no reader will notice this, and a full ring stays full */
            xc_writer_break(&link->writer, &err);
        }
    }
    xc_writer_flush(&link->writer); /* there may be room */
}

void
xc_readable(xc_watch *watch, short revents)
{
    xc_link *link = watch->owner;
    (void)revents;
    xc_lock_link(&link->mu);
    bool rings = xc_reads_ring(link);
    xc_unlock_link(&link->mu);
    if (rings) {
        take_notifications(link);
    }
    drain(link);
}

void
xc_rearm(xc_timer *timer)
{
    xc_link *link = timer->owner;
    bool over = atomic_load(&link->end.peer_gone) || atomic_load(&link->pump.fds_say) != XC_FDS_FINE ||
                xc_keepalive_verdict(link, NULL) != XC_OK;
    bool drains = over;
    xc_lock_link(&link->mu);
    link->pump.rearm_set = false;
    if (link->end.eof || link->wait.reading) {
        drains = false; /* the reader notices, and sets the timer again when it stops reading */
    }
    else if (link->pump.used && !over) {
        link->pump.used = false;
        link->pump.rearm_set = true;
        xc_pump_set(timer, xc_after(XC_REARM_NS));
    }
    else if (!over) {
        xc_status rc = watch_locked(link);
        drains = rc == XC_AGAIN;
        if (rc == XC_SYS) {
            link->pump.rearm_set = true;
            xc_pump_set(timer, xc_after(20 * XC_REARM_NS)); /* no memory in the kernel just now */
        }
    }
    xc_unlock_link(&link->mu);
    if (!drains) {
        return;
    }
    drain(link);
    xc_lock_link(&link->mu);
    if (over && !link->end.eof && !link->wait.reading) {
        read_again_soon_locked(link); /* no event will come if another process holds the pipe open */
    }
    xc_unlock_link(&link->mu);
}

void
xc_poll_soon(xc_link *link)
{
    xc_lock_link(&link->mu);
    for (xc_waiter *waiter = link->wait.waiters; waiter != NULL; waiter = waiter->next) {
        /* A registration is rung only once, so only if its wait is over. */
        if (waiter->bell != NULL || xc_ready_locked(link, waiter->wait)) {
            xc_ring_waiter(waiter); /* the reader must poll again: no event may come */
        }
    }
    if (!link->end.eof) {
        read_again_soon_locked(link);
    }
    xc_unlock_link(&link->mu);
}

void
xc_link_peer_gone(xc_link *link)
{
    atomic_store(&link->end.peer_gone, true);
    xc_poll_soon(link);
}

/* The shutdown comes first: otherwise a far end that never stops sending would keep the link alive. */
void
xc_link_hang_up(xc_link *link)
{
    xc_lock_link(&link->mu);
    if (link->incoming.in >= 0 && xc_fd_ours(link->incoming.in)) {
        (void)shutdown(link->incoming.in, SHUT_RDWR);
    }
    xc_unlock_link(&link->mu);
    xc_link_peer_gone(link);
}
