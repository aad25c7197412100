/*
 * Invariant: only the pump touches the fds and the messages that are being written. A forward, which any thread may
 * call with the link's mutex held, only queues what came and posts the job.
 *
 * A relay frees itself, at the end of a round on the pump's thread, when both directions have ended, its process (if
 * any) is reaped, and no job of its own is posted.
 */
#include "xc_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "xc_bytes.h"
#include "xc_forkfd.h"
#include "xc_opcodes.h"
#include "xc_trace.h"

enum {
    BYTES_HEAD = 5, /* of a bytes object: opcode and length */
    HEAD = XC_HEADER_SIZE + BYTES_HEAD,
    PIECES = 8, /* read in one turn: other links are served in between */
    PARTS = 16, /* messages in one write */
};

typedef struct {
    xc_forward stream_forward;
    xc_forward control_forward;
    xc_link *link;     /* counted */
    xc_chan *stream;   /* counted by its forward */
    xc_chan *control;  /* likewise; NULL without a process */
    xc_launch *launch; /* counted; NULL without a process */

    xc_mutex mu;
    /* The pump has not seen these yet. A window's worth; what a far end sends without waiting for credit comes on top.
     */
    xc_queue arrived XC_GUARDED(relay);
    bool ended XC_GUARDED(relay);       /* nothing more will arrive */
    bool send_closed XC_GUARDED(relay); /* nothing more may be sent */
    bool posted XC_GUARDED(relay);      /* `job` is posted */
    xc_job job;

    xc_stream fds XC_OF_ROLE(pump); /* owned; -1: that direction has ended */
    xc_watch in_watch XC_OF_ROLE(pump);
    xc_watch out_watch XC_OF_ROLE(pump);
    xc_queue writing XC_OF_ROLE(pump); /* being written; limited as `arrived` */
    size_t written XC_OF_ROLE(pump);   /* bytes of the first one's piece that were written */
    uint32_t taken XC_OF_ROLE(pump);   /* messages that are done with, and not yet counted as taken */
    uint64_t taken_cost XC_OF_ROLE(pump);
    xc_job room XC_OF_ROLE(pump);       /* posted when nothing waits to be written to the link */
    bool awaiting XC_OF_ROLE(pump);     /* `room` will be posted */
    xc_job credit XC_OF_ROLE(pump);     /* posted when `claim` may be granted */
    xc_claim claim XC_OF_ROLE(pump);    /* to send a whole piece */
    bool claiming XC_OF_ROLE(pump);     /* it waits in the line, or `credit` is posted */
    bool process_runs XC_OF_ROLE(pump); /* the process has not ended, as far as is known */
    bool over XC_OF_ROLE(pump);         /* all has ended; the forwards are unset */
    unsigned char frame[HEAD + XC_RELAY_PIECE + 1] XC_OF_ROLE(pump);
} xc_relay;

/* --- the forwards: any thread, with the link's mutex held ------------------------------------------------------- */

static void
post_locked(xc_relay *relay) XC_NEEDS(relay)
{
    if (!relay->posted) {
        relay->posted = true;
        xc_pump_post(&relay->job);
    }
}

static xc_relay *
relay_of_stream(xc_forward *forward)
{
    return (xc_relay *)((char *)forward - offsetof(xc_relay, stream_forward));
}

static void
stream_item(xc_forward *forward, xc_msg *msg)
{
    xc_relay *relay = relay_of_stream(forward);
    xc_lock_relay(&relay->mu);
    xc_queue_push(&relay->arrived, msg);
    post_locked(relay);
    xc_unlock_relay(&relay->mu);
}

static void
stream_end(xc_forward *forward, bool half)
{
    xc_relay *relay = relay_of_stream(forward);
    xc_lock_relay(&relay->mu);
    relay->ended = true;
    relay->send_closed = relay->send_closed || !half;
    post_locked(relay);
    xc_unlock_relay(&relay->mu);
}

static void
control_item(xc_forward *forward, xc_msg *msg)
{
    xc_relay *relay = (xc_relay *)((char *)forward - offsetof(xc_relay, control_forward));
    if (msg->size == 6 && msg->data[0] == XC_OP_INT && msg->data[5] == XC_OP_STOP) {
        xc_launch_signal(relay->launch, (int)xc_get_u32(msg->data + 1));
    }
    xc_msg_free(msg);
}

/* The gateway that asked for the process is gone: `stream` has ended, too, so the process will end. */
static void
control_end(xc_forward *forward, bool half)
{
    (void)forward;
    (void)half;
}

/* --- from the link to the fd: on the pump's thread ---------------------------------------------------------------- */

/* The message was written, or nobody will read it; so the other end may send more. */
static void
done_with(xc_relay *relay, xc_msg *msg) XC_NEEDS_ROLE(pump)
{
    relay->taken++;
    relay->taken_cost += xc_msg_cost(msg);
    xc_msg_free(msg);
}

static void
count_taken(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    if (relay->taken > 0) {
        xc_link_taken(relay->link, relay->stream, relay->taken, relay->taken_cost);
        relay->taken = 0;
        relay->taken_cost = 0;
    }
}

static void
drop_all(xc_relay *relay, xc_queue *queue) XC_NEEDS_ROLE(pump)
{
    for (xc_msg *msg; (msg = xc_queue_pop(queue)) != NULL;) {
        done_with(relay, msg);
    }
}

static void
close_out(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_FORKFDS
{
    if (relay->fds.out >= 0) {
        xc_pump_forget(&relay->out_watch, NULL);
        xc_forkfd_remove(relay->fds.out);
        xc_stream_close_write(&relay->fds);
    }
    drop_all(relay, &relay->writing);
    relay->written = 0;
}

static void
close_in(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    if (relay->fds.in >= 0) {
        relay->claiming = relay->claiming && xc_link_unclaim(relay->link, relay->stream, &relay->claim);
        xc_pump_forget(&relay->in_watch, NULL);
        xc_forkfd_remove(relay->fds.in);
        xc_fd_close(relay->fds.in);
        relay->fds.in = -1;
    }
}

/* n more bytes of `writing` were written. */
static void
advance(xc_relay *relay, size_t n) XC_NEEDS_ROLE(pump)
{
    relay->written += n;
    while (relay->writing.head != NULL && relay->written >= relay->writing.head->size - 6) {
        xc_msg *msg = xc_queue_pop(&relay->writing);
        relay->written -= msg->size - 6;
        done_with(relay, msg);
    }
}

/* Writes without waiting. XC_AGAIN: some is left. */
static xc_status
write_arrived(xc_relay *relay) XC_NEEDS_ROLE(pump)
{
    xc_status rc = XC_OK;
    xc_err err;
    while (rc == XC_OK && relay->writing.head != NULL) {
        struct iovec parts[PARTS];
        size_t skip = relay->written, put = 0;
        int n = 0;
        for (xc_msg *msg = relay->writing.head; msg != NULL && n < PARTS; msg = msg->next, n++) {
            parts[n] = (struct iovec){msg->data + BYTES_HEAD + skip, msg->size - BYTES_HEAD - 1 - skip};
            skip = 0;
        }
        rc = xc_stream_write(&relay->fds, parts, n, &put, &err);
        advance(relay, put);
    }
    return rc;
}

static void
write_side(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    xc_queue arrived;
    xc_lock_relay(&relay->mu);
    arrived = relay->arrived;
    relay->arrived = (xc_queue){.head = NULL};
    bool ended = relay->ended, send_closed = relay->send_closed;
    xc_unlock_relay(&relay->mu);
    for (xc_msg *msg; (msg = xc_queue_pop(&arrived)) != NULL;) {
        if (relay->fds.out >= 0 && xc_scan_bytes(msg->data, msg->size) == BYTES_HEAD) {
            xc_queue_push(&relay->writing, msg);
            continue;
        }
        if (relay->fds.out >= 0) { /* a relay never sends that */
            (void)xc_link_post(relay->link, XC_CLOSE, relay->stream->id, NULL, 0);
            close_out(relay);
            send_closed = true;
        }
        done_with(relay, msg);
    }
    if (relay->fds.out >= 0) {
        xc_status rc = write_arrived(relay);
        if (rc == XC_AGAIN) {
            rc = xc_pump_arm(&relay->out_watch, POLLOUT);
        }
        else if (rc == XC_OK && ended) {
            rc = XC_EOF;
        }
        else if (rc == XC_OK) {
            (void)xc_pump_arm(&relay->out_watch, 0);
        }
        if (rc != XC_OK) {
            close_out(relay);
        }
    }
    if (send_closed) {
        close_in(relay);
    }
}

/* --- from the fd to the link: on the pump's thread ---------------------------------------------------------------- */

static xc_status
send_piece(xc_relay *relay, size_t n) XC_NEEDS_ROLE(pump) XC_TAKES_WRITER
{
    xc_writer *writer = xc_link_writer(relay->link);
    unsigned char *frame = relay->frame;
    xc_frame_pack(frame, XC_DATA, relay->stream->id, (uint32_t)n + 6);
    frame[XC_HEADER_SIZE] = XC_OP_BYTES;
    xc_put_u32(frame + XC_HEADER_SIZE + 1, (uint32_t)n);
    frame[HEAD + n] = XC_OP_STOP;
    struct iovec part = {frame, HEAD + n + 1};
    xc_sending sending = {.parts = &part, .n = 1};
    xc_status rc = xc_writer_try(writer, &sending, NULL);
    if (rc == XC_AGAIN && sending.mine) {
        xc_writer_spill(writer, &sending);
        rc = XC_OK;
    }
    else if (rc == XC_AGAIN) {
        rc = xc_writer_post(writer, frame, HEAD + n + 1);
    }
    if (rc == XC_OK && xc_tracing()) {
        xc_trace_frame("sent", XC_DATA, relay->stream->id, n + 6);
    }
    return rc;
}

/* XC_OK: it goes on when the fd or the link is ready. XC_EOF: nothing more comes, or can be sent. */
static xc_status
read_some(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    xc_err err;
    for (int i = 0; i < PIECES; i++) {
        size_t got = 0;
        relay->awaiting = xc_writer_await_room(xc_link_writer(relay->link), &relay->room);
        relay->claiming = !relay->awaiting && !xc_link_claim(relay->link, relay->stream, &relay->claim);
        if (relay->awaiting || relay->claiming) {
            (void)xc_pump_arm(&relay->in_watch, 0);
            return XC_OK;
        }
        bool ended = relay->launch != NULL && !relay->process_runs;
        if (ended) {
            xc_stream_end_here(&relay->fds); /* all that it wrote is in the pipe */
        }
        xc_status rc = xc_stream_read(&relay->fds, relay->frame + HEAD, XC_RELAY_PIECE, &got, &err);
        size_t less = rc == XC_OK ? XC_RELAY_PIECE - got : relay->claim.cost;
        if (less > 0) {
            xc_link_unsent(relay->link, relay->stream, less);
        }
        if (rc == XC_OK) {
            rc = send_piece(relay, got);
        }
        else if (rc == XC_AGAIN && !ended) {
            break;
        }
        if (rc != XC_OK) {
            return XC_EOF;
        }
    }
    return xc_pump_arm(&relay->in_watch, POLLIN) == XC_OK ? XC_OK : XC_EOF;
}

static void
read_side(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    if (relay->fds.in >= 0 && !relay->awaiting && !relay->claiming && read_some(relay) != XC_OK) {
        close_in(relay);
        (void)xc_link_post(relay->link, XC_LAST_MESSAGE, relay->stream->id, NULL, 0);
    }
}

/* --- the process: on the pump's thread ---------------------------------------------------------------------------- */

/* Sends (status or None, end of its stderr). */
static void
tell_end(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LAUNCH
{
    unsigned char frame[XC_HEADER_SIZE + 5 + 5 + XC_STDERR_TAIL + 6];
    unsigned char *p = frame + XC_HEADER_SIZE;
    xc_launch_state state;
    xc_launch_get_state(relay->launch, &state);
    if (state.known) {
        *p++ = XC_OP_INT;
        xc_put_u32(p, (uint32_t)state.status);
        p += 4;
    }
    else {
        *p++ = XC_OP_NONE;
    }
    *p++ = XC_OP_BYTES;
    xc_put_u32(p, (uint32_t)state.n_tail);
    memcpy(p + 4, state.tail, state.n_tail);
    p += 4 + state.n_tail;
    *p++ = XC_OP_TUPLE;
    xc_put_u32(p, 2);
    p[4] = XC_OP_STOP;
    p += 5;
    xc_frame_pack(frame, XC_DATA, relay->control->id, (uint32_t)(p - frame) - XC_HEADER_SIZE);
    (void)xc_writer_post(xc_link_writer(relay->link), frame, (size_t)(p - frame));
    (void)xc_link_post(relay->link, XC_CLOSE, relay->control->id, NULL, 0);
}

/* --- rounds ------------------------------------------------------------------------------------------------------ */

static void
free_relay(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    drop_all(relay, &relay->arrived);
    close_out(relay);
    close_in(relay);
    xc_launch_release(relay->launch);
    xc_link_release(relay->link);
    xc_mutex_fini(&relay->mu);
    xc_free(relay);
}

static void
run_round(xc_relay *relay) XC_NEEDS_ROLE(pump) XC_TAKES_LINK
{
    if (!relay->over) {
        write_side(relay);
        read_side(relay);
        if (relay->launch != NULL && !relay->process_runs && relay->fds.in < 0) {
            close_out(relay); /* nobody reads this any more */
        }
        count_taken(relay);
        if (relay->fds.in >= 0 || relay->fds.out >= 0 || relay->awaiting || relay->claiming || relay->process_runs) {
            return;
        }
        relay->over = true;
        xc_link_unset_forward(relay->link, relay->stream);
        if (relay->control != NULL) {
            xc_link_unset_forward(relay->link, relay->control);
        }
    }
    xc_lock_relay(&relay->mu);
    bool posted = relay->posted; /* final: the forwards, which could post it, are unset */
    xc_unlock_relay(&relay->mu);
    if (!posted) {
        free_relay(relay);
        xc_pump_leave();
    }
}

static void
run_job(xc_job *job)
{
    XC_HAS_ROLE(pump);
    xc_relay *relay = job->owner;
    xc_lock_relay(&relay->mu);
    relay->posted = false;
    xc_unlock_relay(&relay->mu);
    run_round(relay);
}

static void
run_room(xc_job *job)
{
    XC_HAS_ROLE(pump);
    xc_relay *relay = job->owner;
    relay->awaiting = false;
    run_round(relay);
}

static void
run_credit(xc_job *job)
{
    XC_HAS_ROLE(pump);
    xc_relay *relay = job->owner;
    relay->claiming = false;
    run_round(relay);
}

static void
ready(xc_watch *watch, short revents)
{
    XC_HAS_ROLE(pump);
    (void)revents;
    run_round(watch->owner);
}

static void
process_over(void *arg)
{
    XC_HAS_ROLE(pump);
    xc_relay *relay = arg;
    relay->process_runs = false;
    tell_end(relay);
    run_round(relay);
}

/* --- the start -------------------------------------------------------------------------------------------------- */

/* A relay that has not begun; the fds are taken. */
static xc_status
new_relay(xc_link *link, xc_chan *stream, int in, int out, xc_relay **result, xc_err *err) XC_TAKES_FORKFDS
{
    XC_HAS_ROLE(pump);
    xc_stream fds;
    xc_status rc = xc_stream_open(&fds, in, out, err);
    if (rc != XC_OK) {
        return rc;
    }
    rc = xc_pump_join(err);
    if (rc != XC_OK) {
        xc_stream_close(&fds);
        return rc;
    }
    xc_relay *relay = xc_alloc(sizeof *relay);
    if (relay == NULL || xc_forkfd_add(fds.in) != XC_OK || xc_forkfd_add(fds.out) != XC_OK) {
        xc_forkfd_remove(fds.in);
        xc_free(relay);
        xc_stream_close(&fds);
        xc_pump_leave();
        return xc_fail(err, XC_NOMEM, 0, "make a relay");
    }
    memset(relay, 0, sizeof *relay);
    xc_mutex_init(&relay->mu);
    xc_link_hold(link);
    relay->link = link;
    relay->stream = stream;
    relay->fds = fds;
    relay->stream_forward = (xc_forward){.item = stream_item, .end = stream_end};
    relay->control_forward = (xc_forward){.item = control_item, .end = control_end};
    relay->in_watch = (xc_watch){.fd = fds.in, .ready = ready, .owner = relay};
    relay->out_watch = (xc_watch){.fd = fds.out, .ready = ready, .owner = relay};
    relay->job = (xc_job){.run = run_job, .owner = relay};
    relay->room = (xc_job){.run = run_room, .owner = relay};
    relay->credit = (xc_job){.run = run_credit, .owner = relay};
    relay->claim = (xc_claim){.cost = XC_RELAY_PIECE + 6 + XC_ITEM_COST, .owner = relay, .job = &relay->credit};
    *result = relay;
    return XC_OK;
}

static void
begin(xc_relay *relay) XC_TAKES_LINK
{
    xc_lock_relay(&relay->mu);
    relay->posted = true; /* the first round may free the relay, so nothing here touches it after the job is posted */
    xc_unlock_relay(&relay->mu);
    xc_link_set_window(relay->link, relay->stream, XC_RELAY_WINDOW);
    xc_link_set_forward(relay->link, relay->stream, &relay->stream_forward);
    xc_pump_post(&relay->job);
}

xc_status
xc_relay_fds(xc_link *link, xc_chan *stream, int in, int out, xc_err *err)
{
    xc_relay *relay;
    xc_status rc = new_relay(link, stream, in, out, &relay, err);
    if (rc == XC_OK) {
        begin(relay);
    }
    return rc;
}

xc_status
xc_relay_link(xc_link *outer, xc_chan *stream, const xc_link_opts *opts, xc_link **link, xc_err *err)
{
    XC_ASSERT(err != NULL);
    int down[2], up[2];
    if (!xc_make_pipe(down)) {
        return xc_fail(err, XC_SYS, errno, "make a pipe");
    }
    if (!xc_make_pipe(up)) {
        (void)xc_fail(err, XC_SYS, errno, "make a pipe");
        close(down[0]);
        close(down[1]);
        return XC_SYS;
    }
    *link = xc_link_new(opts, up[0], down[1], err);
    if (*link == NULL) {
        close(down[0]);
        close(up[1]);
        return err->code;
    }
    xc_status rc = xc_relay_fds(outer, stream, down[0], up[1], err);
    if (rc != XC_OK) {
        xc_link_release(*link);
        *link = NULL;
    }
    return rc;
}

xc_status
xc_relay_process(xc_link *link, xc_chan *stream, xc_chan *control, const xc_program *program, pid_t *pid, xc_err *err)
{
    XC_ASSERT(stream != control);
    XC_HAS_ROLE(pump);
    xc_relay *relay;
    xc_launch *launch;
    int in, out;
    xc_status rc = xc_launch_spawn(program, &launch, pid, &in, &out, err);
    if (rc != XC_OK) {
        return rc;
    }
    rc = new_relay(link, stream, in, out, &relay, err);
    if (rc != XC_OK) {
        xc_launch_abandon(launch);
        return rc;
    }
    relay->launch = launch;
    relay->control = control;
    relay->process_runs = true;
    xc_link_set_forward(link, control, &relay->control_forward);
    begin(relay);
    xc_launch_watch(launch, process_over, relay); /* last, because the end of the process may free the relay */
    return XC_OK;
}
