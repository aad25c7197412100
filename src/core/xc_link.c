/*
 * A link's life, the reader role, and waiting. What a reader does is in xc_reader.c.
 *
 * Four rules keep the role from hanging: (1) waiting has one way out, and it hands the role on; (2) a half-read frame
 * lives in the link, not on the reader's stack, so whoever reads next goes on with it; (3) what ended the link is
 * stored once and wakes everybody; (4) condition, end and deadline are looked at again after every wake.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "xc_forkfd.h"
#include "xc_link_impl.h"
#include "xc_trace.h"

enum {
    PAUSES = 8,
    SOON_READS = 2, /* by who takes an item soon: what comes for others may have no end */
};

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
    xc_lock(&link->mu);
    bool busy = link->executing > 0;
    xc_unlock(&link->mu);
    return busy;
}

/* False: nobody holds it any more, its burial is on the way. */
static bool
hold_alive(xc_link *link)
{
    unsigned refs = atomic_load(&link->refs);
    while (refs != 0 && !atomic_compare_exchange_weak(&link->refs, &refs, refs + 1)) {
    }
    return refs != 0;
}

static void
write_number(const xc_vigil *vigil)
{
    ssize_t ignored = write(vigil->fd, &vigil->number, sizeof vigil->number);
    (void)ignored;
}

void
xc_ring_waiter(xc_waiter *waiter)
{
    bool first = !waiter->rung;
    waiter->rung = true;
    if (waiter->bell != NULL) {
        xc_bell_ring(waiter->bell);
    }
    else if (first) {
        write_number((const xc_vigil *)waiter);
    }
}

static void
ring_all_locked(xc_link *link)
{
    for (xc_waiter *waiter = link->waiters; waiter != NULL; waiter = waiter->next) {
        xc_ring_waiter(waiter);
    }
}

void
xc_end_reading(xc_link *link, const xc_err *why)
{
    if (xc_tracing()) {
        xc_trace("connection ended: %s%s%s", xc_status_name(why->code), why->detail[0] != '\0' ? " " : "", why->detail);
    }
    xc_lock(&link->mu);
    link->ended_by = *why;
    link->eof = true;
    (void)xc_pump_arm(&link->watch, 0);
    xc_forget_arrivals_locked(link);
    if (link->unmarked) { /* what looked like the start of the marker was none */
        xc_noise_rest(&link->noise, link->inbuf + link->in_start, link->in_end - link->in_start);
    }
    if (xc_reads_ring(link)) {
        link->called = false;
        xc_ring_close(link->stream.ring); /* the fds are closed when nobody writes either: see retire() */
    }
    else if (link->stream.in >= 0) {
        xc_forkfd_remove(link->stream.in);
        close(link->stream.in);
        link->stream.in = -1;
    }
    xc_msg *last = link->last;
    link->last = NULL;
    xc_arrive_locked(link, last);
    bool goodbye = link->heard_goodbye;
    ring_all_locked(link); /* whatever they wait for */
    xc_unlock(&link->mu);
    if (!goodbye || !link->opts.worker) {
        xc_writer_break(&link->writer, why);
    }
    if (link->opts.worker) {
        xc_fate_begin(&link->fate, goodbye);
    }
    else if (hold_alive(link)) {
        xc_pump_post(&link->retirement);
    }
}

/* Nobody reads or writes any more. */
static void
close_streams(xc_link *link)
{
    xc_forkfd_remove(link->stream.in);
    xc_forkfd_remove(link->sink.out);
    xc_stream_close(&link->stream);
    xc_stream_close(&link->sink);
    xc_region_close(&link->region);
}

/* The link needs the pump no more, however long somebody still holds it: the I/O thread may end. On its thread. */
static void
retire(xc_job *job)
{
    xc_link *link = job->owner;
    xc_lock(&link->writer.mu);
    xc_pump_forget(&link->writer.watch, &link->writer.flush);
    bool closed = link->writer.closed;
    xc_unlock(&link->writer.mu);
    xc_lock(&link->mu);
    xc_pump_forget(&link->watch, &link->rearm);
    xc_pump_forget(NULL, &link->alive.timer);
    xc_pump_forget(NULL, &link->patience);
    link->retired = true;
    if (closed) { /* else somebody is still writing, and the last one who holds the link closes it all */
        close_streams(link);
    }
    xc_unlock(&link->mu);
    xc_link_release(link);
    xc_pump_leave();
}

/* --- waiting -------------------------------------------------------------------------------------------------- */

bool
xc_ready_locked(xc_link *link, const xc_wait *wait)
{
    switch (wait->kind) {
    case XC_WAIT_ITEM:
        return wait->chan->items.head != NULL || wait->chan->recv_closed;
    case XC_WAIT_CLOSE:
        return wait->chan->recv_closed;
    case XC_WAIT_FIN:
        return link->fin;
    case XC_WAIT_HELLO:
        return link->hellos.head != NULL || link->fin;
    case XC_WAIT_TASK:
        return link->tasks.head != NULL || link->fin;
    case XC_WAIT_TASK_SPARE:
        return link->tasks.count > (link->primary_waits ? 1 : 0) || (link->fin && link->tasks.head == NULL);
    case XC_WAIT_IDLE:
        return link->executing == 0;
    case XC_WAIT_BACKLOG:
        return !link->dispatching && (link->backlog.head != NULL || link->fin);
    case XC_WAIT_DISPATCH:
        return !link->dispatching;
    case XC_WAIT_GONE:
        return !link->owns_peer || atomic_load(&link->peer_gone);
    }
    return true;
}

static bool
may_read(const xc_waiter *waiter)
{
    xc_wait_kind kind = waiter->wait->kind;
    return waiter->bell != NULL && kind != XC_WAIT_TASK_SPARE && kind != XC_WAIT_BACKLOG;
}

void
xc_wake_locked(xc_link *link)
{
    for (xc_waiter *waiter = link->waiters; waiter != NULL; waiter = waiter->next) {
        if (!waiter->rung && xc_ready_locked(link, waiter->wait)) {
            xc_ring_waiter(waiter);
        }
    }
}

/* Who is to have the role if nobody has it. */
static xc_waiter *
next_reader_locked(xc_link *link)
{
    xc_waiter *waiter = link->waiters;
    while (waiter != NULL && (!may_read(waiter) || waiter->rung)) {
        waiter = waiter->next;
    }
    return waiter;
}

void
xc_hand_on_locked(xc_link *link)
{
    if (link->reading || link->eof) {
        return;
    }
    xc_waiter *next = next_reader_locked(link);
    if (next != NULL) {
        xc_ring_waiter(next);
        return;
    }
    link->used = true;
    if (!xc_watched_locked(link) && !link->rearm_set) {
        link->rearm_set = true;
        xc_pump_set(&link->rearm, xc_after(XC_REARM_NS));
    }
}

static bool
take_role_locked(xc_link *link, xc_waiter *self)
{
    if (link->reading || link->eof || !may_read(self)) {
        return false;
    }
    link->reading = true;
    self->reader = true;
    xc_unwatch_locked(link);
    return true;
}

/* One step of reading by a waiter: reads, or looks again, or sleeps; *began: when the stream was found empty, 0: it was
 * not. XC_OK: look at the condition again. */
static xc_status
read_step(xc_link *link, const xc_wait *wait, xc_bell *bell, int64_t *began, size_t *space)
{
    xc_err err = {.code = XC_OK};
    xc_status rc = xc_read_some(link, wait->can_give, space, &err);
    if (rc == XC_OK || rc == XC_SPACE) {
        if (*began != 0 && !wait->no_look) {
            xc_spin_learn(&link->spin, xc_now() - *began);
        }
        *began = 0;
        return rc;
    }
    if (rc != XC_AGAIN) {
        xc_end_reading(link, &err);
        return XC_OK;
    }
    int64_t now = xc_now();
    bool first = *began == 0;
    *began = first ? now : *began;
    if (xc_reads_ring(link)) {
        int64_t look = first && !wait->no_look ? xc_spin_begin_ring(&link->spin) : 0;
        if (look > 0 && xc_ring_look(link->stream.ring, look)) {
            return XC_OK;
        }
    }
    else if (!wait->no_look && now < *began + xc_spin_begin(&link->spin) && now < wait->until) {
        for (int i = 0; i < PAUSES; i++) {
            xc_pause();
        }
        return XC_OK;
    }
    return xc_stream_sleep_nogil(&link->stream, bell, POLLIN, wait->until);
}

bool
xc_link_ready(xc_link *link, const xc_wait *wait)
{
    xc_lock(&link->mu);
    bool ready = xc_ready_locked(link, wait);
    xc_unlock(&link->mu);
    return ready;
}

/* The rings are looked at for at most `ns`, and read. */
static xc_status
look_and_read(xc_link *link, int64_t ns)
{
    xc_err err = {.code = XC_OK};
    size_t space;
    if (!link->unparsed && !xc_ring_look(link->stream.ring, ns)) {
        return XC_AGAIN;
    }
    xc_status rc = xc_read_some(link, true, &space, &err);
    if (rc != XC_OK && rc != XC_AGAIN && rc != XC_SPACE) {
        xc_end_reading(link, &err);
    }
    return rc;
}

xc_status
xc_link_take_soon(xc_link *link, xc_chan *chan, int64_t ns, xc_msg **out)
{
    const xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = chan};
    xc_waiter self = {.wait = &wait, .bell = xc_bell_mine()};
    xc_lock(&link->mu);
    xc_status rc = xc_take_item_locked(chan, out);
    if (rc == XC_AGAIN && xc_reads_ring(link) && next_reader_locked(link) == NULL && take_role_locked(link, &self)) {
        xc_status read = XC_OK;
        for (int i = 0; i < SOON_READS && rc == XC_AGAIN && read == XC_OK; i++) {
            xc_unlock(&link->mu);
            read = look_and_read(link, ns);
            xc_lock(&link->mu);
            rc = xc_take_item_locked(chan, out);
        }
        link->reading = false;
        xc_hand_on_locked(link);
    }
    xc_unlock(&link->mu);
    return rc;
}

xc_status
xc_link_wait_nogil(xc_link *link, const xc_wait *wait, size_t *space)
{
    XC_ASSERT_NOGIL();
    xc_waiter self = {.wait = wait, .bell = xc_bell_mine()};
    xc_waiter **p;
    xc_status rc = XC_OK;
    int64_t began = 0;
    xc_lock(&link->mu);
    if (wait->kind == XC_WAIT_TASK) {
        link->primary_waits = true; /* until it has taken one: the spare thread leaves the first task to it */
    }
    for (p = &link->waiters; *p != NULL; p = &(*p)->next) {
    }
    *p = &self;
    while (rc == XC_OK && !xc_ready_locked(link, wait)) {
        self.rung = false;
        if (self.reader && link->eof) {
            link->reading = self.reader = false;
        }
        bool reads = self.reader || take_role_locked(link, &self);
        xc_unlock(&link->mu);
        rc = reads ? read_step(link, wait, self.bell, &began, space)
                   : xc_bell_sleep_nogil(self.bell, -1, 0, wait->until);
        xc_lock(&link->mu);
    }
    if (xc_ready_locked(link, wait)) {
        rc = XC_OK;
    }
    for (p = &link->waiters; *p != &self; p = &(*p)->next) {
    }
    *p = self.next; /* out of the waiter list first */
    if (self.reader) {
        if (began != 0 && rc != XC_OK && !wait->no_look) {
            xc_spin_learn(&link->spin, XC_FOREVER);
        }
        link->reading = false;
    }
    xc_hand_on_locked(link); /* every way out hands the role on */
    xc_unlock(&link->mu);
    return rc;
}

/* --- waiting without a thread --------------------------------------------------------------------------------- */

xc_vigil *
xc_link_begin_vigil(xc_link *link, const xc_wait *wait, int fd, uint64_t number)
{
    xc_vigil *vigil = xc_alloc(sizeof *vigil);
    if (vigil == NULL) {
        return NULL;
    }
    *vigil = (xc_vigil){.wait = *wait, .fd = fd, .number = number};
    vigil->waiter.wait = &vigil->wait;
    xc_lock(&link->mu);
    vigil->waiter.rung = xc_ready_locked(link, wait);
    xc_waiter **p = &link->waiters;
    while (*p != NULL) {
        p = &(*p)->next;
    }
    *p = &vigil->waiter;
    xc_unlock(&link->mu);
    return vigil;
}

bool
xc_vigil_over(xc_link *link, const xc_vigil *vigil)
{
    xc_lock(&link->mu);
    bool over = vigil->waiter.rung;
    xc_unlock(&link->mu);
    return over;
}

void
xc_link_end_vigil(xc_link *link, xc_vigil *vigil)
{
    xc_lock(&link->mu);
    xc_waiter **p = &link->waiters;
    while (*p != &vigil->waiter) {
        p = &(*p)->next;
    }
    *p = vigil->waiter.next;
    xc_unlock(&link->mu);
    xc_free(vigil);
}

/* --- the far end's process -------------------------------------------------------------------------------------- */

void
xc_link_owns_peer(xc_link *link)
{
    xc_lock(&link->mu);
    link->owns_peer = true;
    xc_unlock(&link->mu);
}

/* --- lives ---------------------------------------------------------------------------------------------------- */

/* Nobody knows the link any more, the pump included. */
static void
bury(xc_link *link)
{
    close_streams(link);
    xc_lock(&link->mu);
    xc_bury_all_locked(link);
    xc_unlock(&link->mu);
    xc_buf_fini(&link->noise);
    xc_buf_fini(&link->facts);
    xc_chan_table_fini(&link->table);
    xc_writer_fini(&link->writer);
    xc_mutex_fini(&link->mu);
    xc_free(link->inbuf);
    xc_free(link);
}

/* A link that is given up before it has ended. On the pump's thread. */
static void
bury_alive(xc_job *job)
{
    xc_link *link = job->owner;
    xc_pump_forget(&link->watch, &link->rearm);
    xc_pump_forget(&link->writer.watch, &link->writer.flush);
    xc_pump_forget(NULL, &link->fate.timer);
    xc_pump_forget(NULL, &link->alive.timer);
    xc_pump_forget(NULL, &link->patience);
    bury(link);
    xc_pump_leave();
}

/* Both fds are taken, in any case. */
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
    memset(link, 0, sizeof *link);
    atomic_init(&link->refs, 1);
    link->forks = xc_fork_count();
    link->opts = *opts;
    link->opts.region = NULL;
    link->stream = (xc_stream){.in = stream->in, .out = -1};
    link->sink = (xc_stream){.in = -1, .out = stream->out};
    link->region = (xc_region){.fd = -1};
    link->inbuf = inbuf;
    link->last = last;
    link->unmarked = opts->marked;
    link->next_id = opts->worker ? 2 : 1;
    link->coerce = XC_COERCE_DEFAULT;
    xc_mutex_init(&link->mu);
    xc_writer_init(&link->writer, &link->sink);
    link->watch = (xc_watch){.fd = stream->in, .ready = xc_readable, .owner = link};
    link->rearm = (xc_timer){.fire = xc_rearm, .owner = link};
    link->fate = (xc_fate){.busy = worker_busy, .arg = link};
    link->alive.timer = (xc_timer){.fire = xc_alive_tick, .owner = link};
    link->patience = (xc_timer){.fire = xc_patience_over, .owner = link};
    link->burial = (xc_job){.run = bury_alive, .owner = link};
    link->retirement = (xc_job){.run = retire, .owner = link};
}

/* NULL: the fds are closed. The caller has joined the pump. */
static xc_link *
make_link(const xc_link_opts *opts, xc_stream *stream, xc_err *err)
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
    xc_lock(&link->mu);
    xc_hand_on_locked(link); /* so that the pump watches it unless somebody reads it soon */
    xc_unlock(&link->mu);
    return link;
}

void
xc_link_hold(xc_link *link)
{
    atomic_fetch_add(&link->refs, 1);
}

void
xc_link_release(xc_link *link)
{
    if (atomic_fetch_sub(&link->refs, 1) != 1 || xc_link_forked(link)) {
        return;
    }
    xc_lock(&link->mu);
    bool retired = link->retired;
    xc_unlock(&link->mu);
    if (retired) {
        bury(link);
    }
    else {
        xc_pump_post(&link->burial);
    }
}
