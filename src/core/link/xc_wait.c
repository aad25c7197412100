/*
 * Waiting at a link, and the reader role. What a reader does with what it reads is in xc_reader.c.
 *
 * Four rules keep the role from hanging:
 * - Waiting has one way out, and that hands the role on.
 * - A half-read frame is kept in the link, not on the reader's stack, so the next reader goes on with it.
 * - The reason why the link ended is stored once, and wakes everybody.
 * - Condition, end and deadline are checked in each round: after every wake-up, and after every read, because a far end
 *   that sends to others without end would otherwise keep a waiter here for ever.
 */
#include <poll.h>
#include <unistd.h>

#include "xc_link_impl.h"

enum {
    PAUSES = 8,
    SOON_READS = 2, /* reads in xc_link_take_soon: what comes for other channels may have no end */
};

/* What was here at the deadline still counts if it is reached within this time after it. */
#define GRACE_NS (10 * XC_MS)
/* A thread that reads without a pause notices a signal within this time. */
#define SIGNALS_NS (50 * XC_MS)

/* --- waking ----------------------------------------------------------------------------------------------------- */

static void
write_number(const xc_registration *registration)
{
    ssize_t ignored = write(registration->fd, &registration->number, sizeof registration->number);
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
        write_number((const xc_registration *)waiter);
    }
}

void
xc_ring_all_locked(xc_link *link)
{
    for (xc_waiter *waiter = link->wait.waiters; waiter != NULL; waiter = waiter->next) {
        xc_ring_waiter(waiter);
    }
}

bool
xc_ready_locked(xc_link *link, const xc_wait *wait)
{
    switch (wait->kind) {
    case XC_WAIT_ITEM:
        return wait->chan->items.head != NULL || wait->chan->recv_closed;
    case XC_WAIT_CLOSE:
        return wait->chan->recv_closed;
    case XC_WAIT_FIN:
        return link->end.fin;
    case XC_WAIT_HELLO:
        return link->greeting.hellos.head != NULL || link->end.fin;
    case XC_WAIT_TASK:
        return link->tasks.queue.head != NULL || link->end.fin;
    case XC_WAIT_TASK_SPARE:
        return link->tasks.queue.count > (link->tasks.primary_waits ? 1 : 0) || link->tasks.interrupts.head != NULL ||
               (link->end.fin && link->tasks.queue.head == NULL);
    case XC_WAIT_IDLE:
        return link->tasks.executing == 0;
    case XC_WAIT_BACKLOG:
        return !link->dispatch.running && (link->dispatch.backlog.head != NULL || link->end.fin);
    case XC_WAIT_DISPATCH:
        return !link->dispatch.running;
    case XC_WAIT_GONE:
        return !link->end.owns_peer || atomic_load(&link->end.peer_gone);
    case XC_WAIT_CREDIT:
        return xc_credit_ready_locked(link, wait->chan, wait->claim);
    }
    return true;
}

void
xc_wake_locked(xc_link *link)
{
    for (xc_waiter *waiter = link->wait.waiters; waiter != NULL; waiter = waiter->next) {
        if (!waiter->rung && xc_ready_locked(link, waiter->wait)) {
            xc_ring_waiter(waiter);
        }
    }
}

/* --- the role --------------------------------------------------------------------------------------------------- */

static bool
may_read(const xc_waiter *waiter)
{
    xc_wait_kind kind = waiter->wait->kind;
    return waiter->bell != NULL && kind != XC_WAIT_TASK_SPARE && kind != XC_WAIT_BACKLOG;
}

/* The waiter that shall take the role if nobody has it. */
static xc_waiter *
next_reader_locked(const xc_waiters *all) XC_NEEDS(link)
{
    xc_waiter *waiter = all->waiters;
    while (waiter != NULL && (!may_read(waiter) || waiter->rung)) {
        waiter = waiter->next;
    }
    return waiter;
}

void
xc_hand_on_locked(xc_link *link)
{
    if (link->wait.reading || link->end.eof) {
        return;
    }
    xc_waiter *next = next_reader_locked(&link->wait);
    if (next != NULL) {
        xc_ring_waiter(next);
        return;
    }
    link->pump.used = true;
    if (!xc_watched_locked(link) && !link->pump.rearm_set) {
        link->pump.rearm_set = true;
        xc_pump_set(&link->pump.rearm, xc_after(XC_REARM_NS));
    }
}

static bool
take_role_locked(xc_link *link, xc_waiter *self) XC_NEEDS(link)
{
    if (link->wait.reading || link->end.eof || !may_read(self)) {
        return false;
    }
    link->wait.reading = true;
    self->reader = true;
    xc_unwatch_locked(link);
    return true;
}

/* --- a round of the reader -------------------------------------------------------------------------------------- */

/* One read. XC_OK: something came. XC_AGAIN: nothing is there. XC_SPACE. XC_CLOSED: the link has ended. */
static xc_status
read_once(xc_link *link, bool can_give, size_t *space) XC_NEEDS_ROLE(reader) XC_TAKES_LINK
{
    xc_err err = {.code = XC_OK};
    xc_status rc = xc_read_some(link, can_give, space, &err);
    if (rc == XC_OK || rc == XC_AGAIN || rc == XC_SPACE) {
        return rc;
    }
    xc_end_reading(link, &err);
    return XC_CLOSED;
}

/* One call of xc_link_wait_nogil. */
typedef struct {
    const xc_wait *wait;
    xc_bell *bell;
    int64_t dry_since;  /* when the stream was found empty; 0: it was not */
    int64_t over_at;    /* when to stop though there is more to read; 0: nothing has come yet */
    int64_t signals_at; /* by then there may have been signals that ended no sleep; XC_FOREVER: does not matter */
} wait_state;

/* Nothing is there: spins for a while, then sleeps. XC_OK: read again. XC_TIMEOUT, XC_INTR. */
static xc_status
await_more(xc_link *link, wait_state *state) XC_NEEDS_ROLE(reader) XC_HOLDS_NONE
{
    int64_t now = xc_now(), until = state->wait->until < state->signals_at ? state->wait->until : state->signals_at;
    bool first = state->dry_since == 0, spins = !state->wait->no_spin;
    state->dry_since = first ? now : state->dry_since;
    if (now >= until) {
        return XC_TIMEOUT;
    }
    if (xc_reads_ring(link)) {
        if (now - state->dry_since >= XC_S) { /* about once a second: see xc_ring_sleep_nogil */
            xc_pump_check();
        }
        int64_t spin = first && spins ? xc_spin_begin_ring(&link->reader.spin) : 0;
        if (spin > 0 && xc_ring_spin(link->incoming.ring, spin)) {
            return XC_OK;
        }
    }
    else if (spins && now < state->dry_since + xc_spin_begin(&link->reader.spin)) {
        for (int i = 0; i < PAUSES; i++) {
            xc_pause();
        }
        return XC_OK;
    }
    return xc_stream_sleep_nogil(&link->incoming, state->bell, POLLIN, until);
}

/* Something else came than what is waited for. XC_OK: read on. XC_TIMEOUT, XC_INTR: it has taken long enough. */
static xc_status
check_clock(wait_state *state)
{
    int64_t now = xc_now();
    if (state->over_at == 0) {
        int64_t until = state->wait->until > now ? state->wait->until : now;
        state->over_at = until < XC_FOREVER - GRACE_NS ? until + GRACE_NS : XC_FOREVER;
        state->signals_at = state->wait->signals ? now + SIGNALS_NS : XC_FOREVER;
    }
    return now >= state->over_at ? XC_TIMEOUT : now >= state->signals_at ? XC_INTR : XC_OK;
}

/* XC_OK: check the condition again. Other results as of xc_link_wait_nogil. */
static xc_status
read_round(xc_link *link, wait_state *state, size_t *space) XC_NEEDS_ROLE(reader) XC_HOLDS_NONE
{
    xc_status rc = read_once(link, state->wait->can_give, space);
    if (rc == XC_CLOSED) {
        return XC_OK;
    }
    if (rc == XC_AGAIN) {
        return await_more(link, state);
    }
    if (state->dry_since != 0 && !state->wait->no_spin) {
        xc_spin_learn(&link->reader.spin, xc_now() - state->dry_since);
    }
    state->dry_since = 0;
    return rc;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

bool
xc_link_ready(xc_link *link, const xc_wait *wait)
{
    xc_lock_link(&link->mu);
    bool ready = xc_ready_locked(link, wait);
    xc_unlock_link(&link->mu);
    return ready;
}

static void
join_waiters_locked(xc_waiters *all, xc_waiter *self) XC_NEEDS(link)
{
    xc_waiter **p = &all->waiters;
    while (*p != NULL) {
        p = &(*p)->next;
    }
    *p = self;
}

static void
leave_waiters_locked(xc_waiters *all, xc_waiter *self) XC_NEEDS(link)
{
    xc_waiter **p = &all->waiters;
    while (*p != self) {
        p = &(*p)->next;
    }
    *p = self->next;
}

xc_status
xc_link_take_soon(xc_link *link, xc_chan *chan, int64_t ns, xc_msg **out)
{
    const xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = chan};
    xc_waiter self = {.wait = &wait, .bell = xc_bell_mine()};
    size_t space;
    xc_lock_link(&link->mu);
    xc_status rc = xc_take_item_locked(link, chan, out);
    if (rc == XC_AGAIN && xc_reads_ring(link) && next_reader_locked(&link->wait) == NULL &&
        take_role_locked(link, &self)) {
        XC_HAS_ROLE(reader);
        xc_status read = XC_OK;
        for (int i = 0; i < SOON_READS && rc == XC_AGAIN && read == XC_OK; i++) {
            xc_unlock_link(&link->mu);
            bool there = link->reader.unparsed || xc_ring_spin(link->incoming.ring, ns);
            read = there ? read_once(link, true, &space) : XC_AGAIN;
            xc_lock_link(&link->mu);
            rc = xc_take_item_locked(link, chan, out);
        }
        link->wait.reading = false;
        xc_hand_on_locked(link);
    }
    xc_unlock_link(&link->mu);
    return rc;
}

xc_status
xc_link_wait_nogil(xc_link *link, const xc_wait *wait, size_t *space)
{
    XC_ASSERT_NOGIL();
    XC_ASSERT(xc_locks_held() == 0 && (space != NULL || !wait->can_give));
    xc_waiter self = {.wait = wait, .bell = xc_bell_mine()};
    wait_state state = {.wait = wait, .bell = self.bell, .signals_at = XC_FOREVER};
    xc_status rc = XC_OK;
    bool woken = false; /* by something that it did not wait for */
    xc_lock_link(&link->mu);
    if (wait->kind == XC_WAIT_TASK) {
        link->tasks.primary_waits = true; /* until it has taken a task: the spare thread leaves the first one to it */
    }
    join_waiters_locked(&link->wait, &self);
    while (rc == XC_OK && !xc_ready_locked(link, wait)) {
        if (woken && (rc = check_clock(&state)) != XC_OK) {
            break;
        }
        self.rung = false;
        if (self.reader && link->end.eof) {
            link->wait.reading = self.reader = false;
        }
        bool reads = self.reader || take_role_locked(link, &self);
        xc_unlock_link(&link->mu);
        if (reads) {
            XC_HAS_ROLE(reader);
            rc = read_round(link, &state, space);
        }
        else {
            rc = xc_bell_sleep_nogil(self.bell, -1, 0, wait->until);
        }
        woken = state.dry_since == 0;
        xc_lock_link(&link->mu);
    }
    if (xc_ready_locked(link, wait)) {
        rc = XC_OK;
    }
    leave_waiters_locked(&link->wait, &self); /* before xc_hand_on_locked, which must not choose us */
    if (self.reader) {
        if (state.dry_since != 0 && rc != XC_OK && !wait->no_spin) {
            xc_spin_learn(&link->reader.spin, XC_FOREVER);
        }
        link->wait.reading = false;
    }
    xc_hand_on_locked(link); /* every way out hands the role on */
    xc_unlock_link(&link->mu);
    return rc;
}

/* --- waiting without a thread --------------------------------------------------------------------------------- */

xc_registration *
xc_link_begin_registration(xc_link *link, const xc_wait *wait, int fd, uint64_t number)
{
    XC_ASSERT(fd >= 0);
    xc_registration *registration = xc_alloc(sizeof *registration);
    if (registration == NULL) {
        return NULL;
    }
    *registration = (xc_registration){.wait = *wait, .fd = fd, .number = number};
    registration->waiter.wait = &registration->wait;
    xc_lock_link(&link->mu);
    registration->waiter.rung = xc_ready_locked(link, wait);
    join_waiters_locked(&link->wait, &registration->waiter);
    xc_unlock_link(&link->mu);
    return registration;
}

bool
xc_registration_over(xc_link *link, const xc_registration *registration)
{
    xc_lock_link(&link->mu);
    bool over = registration->waiter.rung;
    xc_unlock_link(&link->mu);
    return over;
}

void
xc_link_end_registration(xc_link *link, xc_registration *registration)
{
    xc_lock_link(&link->mu);
    leave_waiters_locked(&link->wait, &registration->waiter);
    xc_unlock_link(&link->mu);
    xc_free(registration);
}
