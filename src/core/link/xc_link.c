/*
 * A link's life: how it is made, how it ends, who frees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "xc_fd.h"
#include "xc_forkfd.h"
#include "xc_link_impl.h"
#include "xc_trace.h"

bool
xc_link_forked(const xc_link *link)
{
    return link->forks != xc_fork_count();
}

/* --- the end of a link ---------------------------------------------------------------------------------------- */

static bool
worker_busy(void *arg)
{
    xc_link *link = arg;
    xc_lock_link(&link->mu);
    bool busy = link->tasks.executing > 0;
    xc_unlock_link(&link->mu);
    return busy;
}

/* False: nobody holds the link, it will be freed soon. */
static bool
try_hold(xc_link *link)
{
    unsigned refs = atomic_load(&link->refs);
    while (refs != 0 && !atomic_compare_exchange_weak(&link->refs, &refs, refs + 1)) {
    }
    return refs != 0;
}

void
xc_end_reading(xc_link *link, const xc_err *why)
{
    XC_ASSERT(why->code > XC_SPACE); /* with a smaller one the link would look alive */
    xc_err closed;
    if (xc_stream_check(&link->incoming, &closed) != XC_OK) {
        why = &closed; /* the program has closed our fds; the far end's EOF only follows from that */
    }
    if (xc_tracing()) {
        xc_trace("connection ended: %s%s%s", xc_status_name(why->code), why->detail[0] != '\0' ? " " : "", why->detail);
    }
    xc_lock_link(&link->mu);
    XC_ASSERT(!link->end.eof && link->wait.reading);
    link->end.why = *why;
    /* The writer has failed by a fault of this side: the far end's EOF only follows from that, too. */
    (void)xc_writer_failed_here(&link->writer, &link->end.why);
    link->end.eof = true;
    if (!xc_reads_ring(link) || !xc_is_left_locked(link)) { /* else the far end still tells of room in its ring */
        (void)xc_pump_arm(&link->pump.watch, 0);
    }
    xc_forget_arrivals_locked(link);
    if (link->reader.unmarked) { /* these bytes looked like the start of the marker, but were not */
        xc_preamble_rest(&link->preamble, link->reader.buf + link->reader.start, link->reader.end - link->reader.start);
    }
    if (xc_reads_ring(link)) {
        link->pump.notified = false;
        xc_ring_close(link->incoming.ring); /* the fds are closed by retire(), when nobody writes either */
    }
    else if (link->incoming.in >= 0) {
        xc_forkfd_remove(link->incoming.in);
        xc_fd_close(link->incoming.in);
        link->incoming.in = -1;
    }
    xc_msg *last = link->end.last;
    link->end.last = NULL;
    xc_arrive_locked(link, last);
    bool goodbye = link->goodbye.heard;
    xc_err cause = link->end.why;
    if (!goodbye || !link->opts.worker || atomic_load(&link->pump.fds_say) == XC_FDS_HUNG_UP) {
        xc_writer_break(&link->writer, why); /* first: who learns of the end can send nothing more */
    }
    xc_ring_all_locked(link); /* the link has ended: all check again */
    xc_unlock_link(&link->mu);
    if (link->opts.worker) {
        if (xc_exit_policy_is_ours(&cause)) {
            xc_exit_policy_tell(&cause, atomic_load(&link->end.words));
        }
        xc_exit_policy_begin(&link->end.policy, goodbye);
    }
    else if (try_hold(link)) {
        xc_pump_post(&link->retire_job);
    }
}

/* When nobody reads or writes any more. */
static void
close_streams(xc_link *link) XC_TAKES_FORKFDS
{
    xc_forkfd_remove(link->incoming.in);
    xc_forkfd_remove(link->outgoing.out);
    xc_stream_close(&link->incoming);
    xc_stream_close(&link->outgoing);
    xc_region_close(&link->region);
}

/* On the pump's thread, which does not touch the link's reading side and timers any more. */
static void
forget_by_pump(xc_link *link) XC_NEEDS_ROLE(pump) XC_TAKES_PUMP
{
    xc_pump_forget(&link->pump.watch, &link->pump.rearm);
    xc_pump_forget(NULL, &link->keepalive.timer);
    xc_pump_forget(NULL, &link->tasks.timeout);
    xc_pump_forget(NULL, &link->tasks.kick);
    xc_pump_forget(NULL, &link->answers.pay);
}

/* On the pump's thread, after the end: the link needs the pump no more, even if somebody still holds the link, so the
 * pump may end. */
static void
retire(xc_job *job)
{
    XC_HAS_ROLE(pump);
    xc_link *link = job->owner;
    xc_lock_writer(&link->writer.mu);
    xc_pump_forget(&link->writer.watch, &link->writer.flush);
    bool closed = link->writer.closed;
    xc_unlock_writer(&link->writer.mu);
    xc_lock_link(&link->mu);
    forget_by_pump(link);
    link->pump.retired = true;
    if (closed) { /* else somebody still writes, and the last count to be released closes the streams */
        close_streams(link);
    }
    xc_unlock_link(&link->mu);
    xc_link_release(link);
    xc_pump_leave();
}

/* --- sending ----------------------------------------------------------------------------------------------------- */

xc_writer *
xc_link_writer(xc_link *link)
{
    return &link->writer;
}

xc_status
xc_link_post(xc_link *link, xc_code code, uint32_t id, const void *payload, size_t size)
{
    unsigned char frame[XC_HEADER_SIZE + 160];
    if (size > sizeof frame - XC_HEADER_SIZE) {
        return XC_LIMIT;
    }
    xc_frame_pack(frame, code, id, (uint32_t)size);
    if (size > 0) {
        memcpy(frame + XC_HEADER_SIZE, payload, size);
    }
    xc_status rc = xc_writer_post(&link->writer, frame, XC_HEADER_SIZE + size);
    if (rc == XC_OK && xc_tracing()) {
        xc_trace_frame("sent", (uint8_t)code, id, size);
    }
    return rc;
}

void
xc_link_goodbye(xc_link *link)
{
    xc_lock_link(&link->mu);
    bool first = !link->goodbye.leaves;
    link->goodbye.leaves = true;
    link->goodbye.said = link->goodbye.said || (first && !link->end.eof);
    xc_wake_locked(link); /* those who wait for credit are refused now */
    xc_unlock_link(&link->mu);
    if (first) {
        bool ends = xc_writer_end(&link->writer);
        if (ends && xc_tracing()) {
            xc_trace_frame("sent", XC_TERMINATE, 0, 0);
        }
    }
}

/* --- the far end's process -------------------------------------------------------------------------------------- */

void
xc_link_owns_peer(xc_link *link)
{
    xc_lock_link(&link->mu);
    link->end.owns_peer = true;
    xc_unlock_link(&link->mu);
}

void
xc_link_set_words(xc_link *link, int fd)
{
    xc_fd_own(fd);
    atomic_store(&link->end.words, fd);
}

/* --- how it stands ------------------------------------------------------------------------------------------------ */

void
xc_link_get_state(xc_link *link, xc_link_state *out)
{
    xc_lock_link(&link->mu);
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
    xc_unlock_link(&link->mu);
}

xc_msg *
xc_link_take_hello(xc_link *link)
{
    xc_lock_link(&link->mu);
    xc_msg *msg = xc_queue_pop(&link->greeting.hellos);
    link->greeting.n_hellos -= msg != NULL;
    xc_unlock_link(&link->mu);
    return msg;
}

/* --- lives ---------------------------------------------------------------------------------------------------- */

/* Nobody knows the link any more, not even the pump. */
static void
free_link(xc_link *link) XC_TAKES_LINK
{
    XC_ASSERT(XC_UNLOCKED(link->wait.waiters) == NULL && !XC_UNLOCKED(link->wait.reading));
    XC_HAS_ROLE(reader);
    close_streams(link);
    xc_lock_link(&link->mu);
    xc_forget_arrivals_locked(link);
    xc_free_all_locked(link);
    xc_unlock_link(&link->mu);
    XC_ALONE(link);
    xc_buf_fini(&link->preamble);
    xc_buf_fini(&link->answers.facts);
    xc_buf_fini(&link->answers.owed);
    xc_chan_table_fini(&link->chans.table);
    xc_writer_fini(&link->writer);
    xc_mutex_fini(&link->mu);
    xc_free(link->reader.buf);
    xc_free(link);
}

/* On the pump's thread: frees a link that was released before it had ended. */
static void
free_on_pump(xc_job *job)
{
    XC_HAS_ROLE(pump);
    xc_link *link = job->owner;
    forget_by_pump(link);
    xc_pump_forget(&link->writer.watch, &link->writer.flush);
    xc_pump_forget(NULL, &link->end.policy.timer);
    free_link(link);
    xc_pump_leave();
}

/* Takes both fds, also on failure. */
static xc_status
open_streams(int in, int out, xc_stream *stream, xc_err *err)
{
    if (in == out) {
        /* Two fds for a socket: reader and writer each close theirs, and epoll watches each for itself. */
        out = fcntl(in, F_DUPFD_CLOEXEC, 3);
        if (out < 0) {
            xc_status rc = xc_fail(err, XC_SYS, errno, "copy the fd of a socket");
            close(in);
            return rc;
        }
    }
    return xc_stream_open(stream, in, out, err);
}

static void
init_link(xc_link *link, const xc_link_opts *opts, const xc_stream *stream, unsigned char *inbuf, xc_msg *last)
{
    XC_ALONE(link);
    XC_HAS_ROLE(reader);
    memset(link, 0, sizeof *link);
    atomic_init(&link->refs, 1);
    link->forks = xc_fork_count();
    link->opts = *opts;
    link->opts.region = NULL;
    link->incoming = (xc_stream){.in = stream->in, .out = -1};
    link->outgoing = (xc_stream){.in = -1, .out = stream->out};
    link->region = (xc_region){.fd = -1};
    link->reader.buf = inbuf;
    link->end.last = last;
    link->reader.unmarked = opts->marked;
    link->chans.next_id = opts->worker ? 2 : 1;
    link->chans.coerce = XC_COERCE_DEFAULT;
    link->chans.limit = XC_NO_LIMIT;
    xc_mutex_init(&link->mu);
    xc_writer_init(&link->writer, &link->outgoing);
    link->pump.watch = (xc_watch){.fd = stream->in, .ready = xc_readable, .owner = link};
    link->pump.rearm = (xc_timer){.fire = xc_rearm, .owner = link};
    link->end.policy = (xc_exit_policy){.busy = worker_busy, .arg = link};
    atomic_init(&link->end.words, STDERR_FILENO);
    link->keepalive.timer = (xc_timer){.fire = xc_keepalive_tick, .owner = link};
    link->tasks.timeout = (xc_timer){.fire = xc_task_timeout_over, .owner = link};
    link->tasks.kick = (xc_timer){.fire = xc_kick_primary, .owner = link};
    link->answers.pay = (xc_timer){.fire = xc_pay, .owner = link};
    link->free_job = (xc_job){.run = free_on_pump, .owner = link};
    link->retire_job = (xc_job){.run = retire, .owner = link};
}

/* NULL: the fds are closed. The caller has joined the pump. */
static xc_link *
make_link(const xc_link_opts *opts, xc_stream *stream, xc_err *err) XC_TAKES_FORKFDS
{
    xc_link *link = xc_alloc(sizeof *link);
    unsigned char *inbuf = xc_alloc(XC_INBUF);
    xc_msg *last = xc_msg_new(XC_FIN, 0, 0);
    if (link == NULL || inbuf == NULL || last == NULL || xc_forkfd_add(stream->in) != XC_OK ||
        xc_forkfd_add(stream->out) != XC_OK) {
        xc_forkfd_remove(stream->in);
        xc_free(link);
        xc_free(inbuf);
        xc_msg_free(last);
        xc_stream_close(stream);
        (void)xc_fail(err, XC_NOMEM, 0, "make a link");
        return NULL;
    }
    init_link(link, opts, stream, inbuf, last);
    return link;
}

xc_link *
xc_link_new(const xc_link_opts *opts, int in, int out, xc_err *err)
{
    xc_stream stream = {.in = -1, .out = -1};
    xc_link *link = NULL;
    bool rings = opts->region != NULL;
    xc_status rc = open_streams(in, out, &stream, err);
    if (rc == XC_OK && (rc = xc_pump_join(err)) != XC_OK) {
        xc_stream_close(&stream);
    }
    if (rc == XC_OK && (link = make_link(opts, &stream, err)) == NULL) {
        xc_pump_leave();
    }
    XC_HAS_ROLE(reader);
    if (link != NULL && rings && xc_begin_with_rings(link, opts->region, err) != XC_OK) {
        xc_link_release(link);
        link = NULL;
    }
    if (link == NULL) {
        if (rings) {
            xc_region_close(opts->region);
        }
        return NULL;
    }
    xc_lock_link(&link->mu);
    xc_hand_on_locked(link); /* so the pump watches the link unless somebody reads it soon */
    xc_unlock_link(&link->mu);
    return link;
}

void
xc_link_hold(xc_link *link)
{
    XC_ASSERT(atomic_load(&link->refs) > 0);
    atomic_fetch_add(&link->refs, 1);
}

void
xc_link_release(xc_link *link)
{
    XC_ASSERT(atomic_load(&link->refs) > 0);
    if (atomic_fetch_sub(&link->refs, 1) != 1 || xc_link_forked(link)) {
        return;
    }
    xc_lock_link(&link->mu);
    bool retired = link->pump.retired;
    xc_unlock_link(&link->mu);
    if (retired) {
        free_link(link);
    }
    else {
        xc_pump_post(&link->free_job);
    }
}
