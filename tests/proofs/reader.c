/*
 * xc_reader.c: xc_read_some() from every state, with any number of bytes coming, an end or an error. What is done to a
 * frame, and by xc_read_in_place(), is proved in arrive.c: here the first makes any of the states that are possible
 * then, the second reads any number of bytes.
 *
 * READ: the buffer always has the bytes of the stream from the next frame on, up to the last one that came, in order;
 * or `current` is set, and lacks frame_left bytes up to the next frame. There is always room to read. XC_OK says that
 * something came, XC_AGAIN that nothing did, XC_SPACE for how much memory it asks; any other result is in *err, too.
 *
 * DELIVER: up to three messages take effect in their order, each once; what is behind a goodbye or an error is freed.
 */
#include <string.h>

#include "proof.h"

#define memmove move
static void *move(void *to, const void *from, size_t n);
#include "xc_link_impl.h"
#undef atomic_load
#define atomic_load(place) (*(place))
#ifdef DELIVER
#include "xc_queue.c"
#else
static void turns(xc_status *rc, xc_queue *batch, xc_err *err);
static bool ends(bool condition);
/* clang-format off */
#define while(condition) for (turns(&rc, &batch, err); ends(!(condition));)
/* clang-format on */
#endif
#include "xc_reader.c"
#undef while

static xc_link it;

void
xc_lock(xc_mutex *mu)
{
    PROVE(mu == &it.mu);
}

void
xc_unlock(xc_mutex *mu)
{
    PROVE(mu == &it.mu);
}

void
xc_wake_locked(xc_link *link)
{
}

bool
xc_tracing(void)
{
    return nondet_bool();
}

void
xc_trace_frame(const char *what, uint8_t code, uint32_t chan, size_t size)
{
}

#ifdef DELIVER
static xc_msg msgs[3];
static unsigned next; /* the message that comes next */
static unsigned scanned, freed;
static bool over; /* nothing more takes effect */
static xc_status expected;

void
xc_scan_ids(xc_msg *msg)
{
    PROVE(msg == &msgs[scanned] && next == 0);
    scanned++;
}

/* A message takes effect. */
static void
takes_effect(xc_msg *msg)
{
    PROVE(msg == &msgs[next] && msg->next == NULL && scanned > next && !over && freed == 0);
    next++;
}

void
xc_arrive_locked(xc_link *link, xc_msg *msg)
{
    PROVE(msg->code != XC_CREDIT && msg->code != XC_WAITS);
    takes_effect(msg);
    if (msg->code == XC_TERMINATE) {
        over = true;
        expected = XC_CLOSED;
    }
    msg->code = nondet_byte(); /* it is taken */
}

xc_status
xc_credit_arrives_locked(xc_link *link, xc_msg *msg, xc_err *err)
{
    PROVE(msg->code == XC_CREDIT || msg->code == XC_WAITS);
    takes_effect(msg);
    over = nondet_bool();
    expected = over ? XC_BAD : XC_OK;
    return over ? xc_fail(err, XC_BAD, 0, "") : XC_OK;
}

void
xc_free_later_locked(xc_link *link, xc_msg *msg)
{
    PROVE(msg == &msgs[next + freed] && msg->next == NULL);
    if (!over && freed == 0) { /* a hello too many */
        PROVE(msg->code == XC_HELLO && it.greeting.n_hellos == XC_UNREAD_HELLOS + 1);
        expected = XC_BAD;
    }
    over = true;
    freed++;
}

int
main(void)
{
    xc_queue batch = {NULL};
    xc_err err = {.code = XC_OK};
    unsigned n = nondet_byte() % 4, hellos = nondet_u32();
    ASSUME(hellos <= XC_UNREAD_HELLOS);
    it.greeting.n_hellos = hellos;
    for (unsigned i = 0; i < n; i++) {
        msgs[i].code = nondet_byte();
        ASSUME(msgs[i].code <= XC_INTERRUPT);
        xc_queue_push(&batch, &msgs[i]);
    }
    xc_status rc = deliver(&it, &batch, &err);
    PROVE(batch.head == NULL && batch.count == 0 && scanned == n && next + freed == n);
    PROVE(rc == expected && (over ? err.code == rc : rc == XC_OK && freed == 0));
    PROVE(it.greeting.n_hellos <= XC_UNREAD_HELLOS || rc == XC_BAD);
    PROVE(it.goodbye.heard == (rc == XC_CLOSED));
    return 0;
}
#else
static unsigned char buf[1]; /* only its address is used */
static xc_arrival asks, goes_on;
static xc_msg one;        /* it stands for all of a batch */
static uint64_t base;     /* the place in the stream of the buffer's first byte, */
static uint64_t came;     /* of what comes next, */
static uint64_t frame_at; /* and of the next frame */
static uint64_t begun;    /* came, before the call */
static bool read, parsed, batched, gone, again;

/* Where everything stands. `asking`: memory was asked for a frame, whose first bytes are in the buffer. */
static bool
stands(void)
{
    const xc_reader *r = &it.reader;
    if (r->start > r->end || r->end > XC_INBUF) {
        return false;
    }
    if (r->current != NULL) {
        return r->start == r->end && came + r->frame_left == frame_at && r->frame_left > 0 && !r->unmarked;
    }
    return r->start == r->end ? frame_at == came : base + r->start == frame_at && base + r->end == came;
}

/* The same between two calls. */
static bool
rests(void)
{
    const xc_reader *r = &it.reader;
    size_t filled = r->end - r->start;
    return stands() && (r->current == NULL || r->end == 0) && (r->asking == NULL || r->unparsed) &&
           (r->unparsed ? r->current == NULL && !r->unmarked && filled >= XC_HEADER_SIZE + XC_BYTES_HEAD_MAX
                        : filled < XC_INBUF);
}

static void
any_arrival(void)
{
    it.reader.current = nondet_bool() ? NULL : &goes_on;
    it.reader.frame_left = nondet_size();
    it.reader.asking = nondet_bool() ? NULL : &asks;
    asks.head.size = nondet_u64();
    asks.skip = nondet_byte();
    ASSUME(asks.head.size >= XC_BIG && asks.head.size <= XC_MAX_LONG && (asks.skip == 5 || asks.skip == 9));
}

/* Any number of turns of the loop, as arrive.c has them: each takes a frame, or ends the loop. */
static void
turns(xc_status *rc, xc_queue *batch, xc_err *err)
{
    xc_reader *r = &it.reader;
    PROVE(stands() && !r->unmarked && !r->unparsed && *rc == XC_OK && batch->head == NULL);
    size_t start = r->start, end = r->end;
    bool asked = r->asking != NULL, could = r->current == NULL && end - start >= XC_HEADER_SIZE;
    PROVE(!asked || could);
    parsed = true;
    if (!could || nondet_bool()) {
        r->asking = could ? NULL : r->asking;
        *rc = could ? XC_AGAIN : XC_OK; /* AGAIN: of the first frame more must come */
        ASSUME(!could || end - start < XC_INBUF);
        return;
    }
    any_arrival();
    r->start = nondet_size();
    r->end = nondet_bool() ? end : 0;
    *rc = nondet_u32() % (XC_SYS + 1);
    if (nondet_bool()) { /* one of the frames was a MOVE: the stream is another one now */
        r->end = 0;
        came = nondet_u64();
    }
    frame_at = nondet_u64();
    if (*rc > XC_SPACE && *rc != XC_NOMEM) {
        xc_fail(err, *rc, 0, "");
    }
    ASSUME(*rc != XC_TIMEOUT && *rc != XC_INTR && r->start <= r->end);
    ASSUME(r->end == 0 || (r->end == end && r->start >= start));
    ASSUME(*rc > XC_SPACE || stands());
    ASSUME(r->current == NULL || *rc == XC_OK);
    ASSUME((r->asking != NULL) == (*rc == XC_SPACE));
    r->unparsed = *rc == XC_SPACE;
    ASSUME(*rc != XC_AGAIN || r->end - r->start < XC_INBUF);
    ASSUME(*rc != XC_SPACE || r->end - r->start >= XC_HEADER_SIZE + XC_BYTES_HEAD_MAX);
    batch->head = nondet_bool() ? &one : NULL;
    batched = batch->head != NULL;
}

static bool
ends(bool condition)
{
    ASSUME(condition);
    return false;
}

void
xc_scan_ids(xc_msg *msg)
{
}

xc_msg *
xc_queue_pop(xc_queue *queue)
{
    xc_msg *msg = queue->head;
    queue->head = NULL;
    return msg;
}

static void
takes_effect(const xc_msg *msg)
{
    PROVE(msg == &one && batched);
    batched = false;
}

void
xc_arrive_locked(xc_link *link, xc_msg *msg)
{
    takes_effect(msg);
}

void
xc_free_later_locked(xc_link *link, xc_msg *msg)
{
    takes_effect(msg);
}

xc_status
xc_credit_arrives_locked(xc_link *link, xc_msg *msg, xc_err *err)
{
    takes_effect(msg);
    return nondet_bool() ? XC_OK : xc_fail(err, XC_BAD, 0, "");
}

static void *
move(void *to, const void *from, size_t n)
{
    size_t at = __CPROVER_POINTER_OFFSET(from);
    PROVE(to == buf && __CPROVER_same_object(from, buf) && at <= XC_INBUF && n <= XC_INBUF - at);
    PROVE(at == it.reader.start && n == it.reader.end - at); /* all that is there */
    base += at;
    return to;
}

/* A read that brings nothing. */
static xc_status
fails(xc_err *err)
{
    again = nondet_bool();
    return again ? XC_AGAIN : xc_fail(err, nondet_bool() ? XC_EOF : XC_SYS, 0, "");
}

xc_status
xc_stream_read(xc_stream *stream, void *into, size_t n, size_t *got, xc_err *err)
{
    size_t at = __CPROVER_POINTER_OFFSET(into);
    PROVE(stream == &it.incoming && __CPROVER_same_object(into, buf) && n > 0 && at <= XC_INBUF && n <= XC_INBUF - at);
    PROVE(it.reader.current == NULL && !read && stream->ends == gone);
    if (it.reader.start == it.reader.end) {
        base = came - at;
    }
    PROVE(base + at == came); /* behind what is there */
    read = true;
    if (nondet_bool()) {
        return fails(err);
    }
    *got = nondet_size();
    ASSUME(*got > 0 && *got <= n);
    came += *got;
    return XC_OK;
}

xc_status
xc_read_in_place(xc_link *link, xc_queue *batch, xc_err *err)
{
    xc_reader *r = &link->reader;
    size_t n = nondet_size();
    PROVE(r->current == &goes_on && stands() && r->end == 0 && !read && link->incoming.ends == gone);
    read = true;
    if (nondet_bool()) {
        return fails(err);
    }
    ASSUME(n > 0 && n <= r->frame_left + XC_HEADER_SIZE);
    came += n;
    if (n < r->frame_left) {
        r->frame_left -= n;
        return XC_OK;
    }
    r->end = n - r->frame_left;
    base = frame_at;
    r->frame_left = 0;
    r->current = NULL;
    batch->head = nondet_bool() ? &one : NULL;
    batched = batch->head != NULL;
    return XC_OK;
}

void
xc_stream_end_here(xc_stream *stream)
{
    PROVE(!read && gone);
    stream->ends = true;
}

xc_status
xc_keepalive_verdict(const xc_link *link, xc_err *err)
{
    return nondet_bool() ? XC_OK : xc_fail(err, XC_SILENT, 0, "");
}

xc_status
xc_preamble_too_much(xc_err *err)
{
    return xc_fail(err, XC_BAD, 0, "");
}

xc_status
xc_preamble_skip(xc_buf *kept, const unsigned char *bytes, size_t n, size_t *used, xc_err *err)
{
    PROVE(kept == &it.preamble && bytes == buf + it.reader.start && n == it.reader.end - it.reader.start);
    *used = nondet_size();
    xc_status rc = nondet_bool() ? XC_OK : nondet_bool() ? XC_AGAIN : XC_BAD;
    ASSUME(*used <= n && (rc != XC_AGAIN || n - *used < XC_MARKER_SIZE));
    frame_at += *used;
    return rc == XC_BAD ? xc_fail(err, XC_BAD, 0, "") : rc;
}

int
main(void)
{
    xc_reader *r = &it.reader;
    xc_err err = {.code = XC_OK};
    size_t space = 0;
    r->buf = buf;
    r->start = nondet_size();
    r->end = nondet_size();
    r->unmarked = nondet_bool();
    r->unparsed = nondet_bool();
    any_arrival();
    base = nondet_u64();
    begun = came = nondet_u64();
    frame_at = nondet_u64();
    ASSUME(rests());
    it.greeting.n_hellos = nondet_u32();
    one.code = nondet_byte();
    it.pump.fds_say = nondet_byte();
    it.end.peer_gone = nondet_bool();
    gone = it.pump.fds_say == XC_FDS_HUNG_UP || it.end.peer_gone;
    xc_status rc = xc_read_some(&it, nondet_bool(), &space, &err);
    PROVE(r->start <= r->end && r->end <= XC_INBUF && !batched);
    if (rc == XC_OK) {
        PROVE(rests() && !r->unparsed && read && !again);
    }
    else if (rc == XC_AGAIN) {
        PROVE(rests() && !r->unparsed && again && !gone);
    }
    else if (rc == XC_SPACE) {
        PROVE(rests() && r->asking == &asks && space == asks.head.size - asks.skip);
    }
    else {
        PROVE(err.code == rc && rc > XC_SPACE);
    }
    return 0;
}
#endif
