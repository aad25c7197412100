/*
 * What src/py does with the core, for the actors of the world: waiting in slices, sending with signals, callbacks.
 */
#include <string.h>

#include "sim_calls.h"
#include "world.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

#define SLICE_MIN (10 * XC_MS)
#define SLICE_MAX (5 * XC_S)
#define GRACE     (10 * XC_MS) /* that of xc_wait.c */
#define SOON_NS   3000

enum { MOST_HANDLED = 4 };

static talk *
talk_of(const side *at, const xc_chan *chan)
{
    for (int i = 0; i < at->on->n_talks; i++) {
        talk *about = &at->on->talks[i];
        if (about->id == chan->id && about->chan[at->number] == chan) {
            return about;
        }
    }
    return NULL;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

static void
give_space(const actor *who, xc_wait *wait, size_t space)
{
    unsigned char *memory = sim_chance(8) ? NULL : xc_alloc(space);
    if (memory == NULL) {
        wait->can_give = false;
    }
    else if (!xc_link_give_space(who->at->link, memory, memory, space)) {
        xc_free(memory);
    }
}

/* A signal handler of the main thread: it may send. */
static void
handle_signal(const actor *who)
{
    talk *about = some_talk(who->at->on);
    int n = who->at->number, direction = n == 0 ? DOWN : UP;
    if (!sim_chance(3) || about->kind == STATUS || !about->open[n] || about->over[n] || about->closing[n] ||
        about->handler_sends[n] || about->begun[direction][HANDLER] == MOST_HANDLED) {
        return;
    }
    about->handler_sends[n] = true;
    about->sending[direction]++;
    /* Several could take all numbers of long messages; a real process has one thread that handles signals. */
    const actor handler = {.at = who->at, .is_main = true, .handles = who->at->handling++ == 0};
    (void)op_send_item(&handler, about, direction, HANDLER);
    who->at->handling--;
    about->sending[direction]--;
    about->handler_sends[n] = false;
    sim_look();
}

static void
check_result(xc_status rc, const xc_wait *wait)
{
    if (rc != XC_OK && rc != XC_TIMEOUT && rc != XC_INTR && rc != XC_SPACE) {
        sim_fail("a wait returned %s", xc_status_name(rc));
    }
    if (rc == XC_TIMEOUT && sim_now() < wait->until && !wait->signals) {
        sim_fail("a wait was over before its time");
    }
}

/* By a registration. False: not now, there is no memory for it. */
static bool
park(const actor *who, const xc_wait *wait, const note *here, int64_t until, bool *held)
{
    const void *outer = sim_note_of(sim_self());
    int fd = sim_eventfd();
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    xc_registration *registration = xc_link_begin_registration(who->at->link, wait, fd, 1);
    if (registration == NULL) {
        sim_close(fd);
        return false;
    }
    int64_t now = sim_now(), left = until > now ? until - now : 0;
    struct timespec span = {.tv_sec = left / XC_S, .tv_nsec = left % XC_S};
    sim_note(here);
    int n = 0;
    if (!xc_registration_over(who->at->link, registration)) {
        do {
            n = __wrap_ppoll(&poller, 1, until == XC_FOREVER ? NULL : &span, NULL);
        } while (n < 0 && until == XC_FOREVER);
    }
    sim_note(outer);
    *held = xc_registration_over(who->at->link, registration);
    if (n > 0 && !*held) {
        sim_fail("a registration says that it is over, and it is not");
    }
    xc_link_end_registration(who->at->link, registration);
    sim_close(fd);
    return true;
}

static bool
wait_for(const actor *who, xc_wait wait, talk *about, int64_t until)
{
    xc_wait_kind kind = wait.kind;
    const note here = {.at = who->at, .kind = kind, .about = about};
    const void *outer = sim_note_of(sim_self());
    bool over;
    if (who->parks && (kind == XC_WAIT_ITEM || kind == XC_WAIT_CLOSE || kind == XC_WAIT_CREDIT) &&
        park(who, &wait, &here, until, &over)) {
        return over;
    }
    int64_t slice = SLICE_MIN;
    bool held = false, late = false;
    while (!held && !late) {
        size_t space = 0;
        int64_t end = wait.signals ? xc_after(slice) : XC_FOREVER;
        wait.until = until < end ? until : end;
        sim_note(&here);
        end = wait.until > sim_now() ? wait.until : sim_now();
        sim_be_through_by(end < XC_FOREVER - GRACE ? end + GRACE : SIM_NEVER);
        xc_status rc = xc_link_wait_nogil(who->at->link, &wait, &space);
        sim_be_through_by(SIM_NEVER);
        sim_note(outer);
        check_result(rc, &wait);
        held = rc == XC_OK;
        if (rc == XC_SPACE) {
            give_space(who, &wait, space);
        }
        if (!held && who->is_main) {
            handle_signal(who);
        }
        late = !held && rc != XC_INTR && sim_now() >= until;
        if (rc != XC_SPACE) {
            wait.no_spin = true;
            slice = slice < SLICE_MAX / 2 ? slice * 2 : SLICE_MAX;
        }
    }
    return held;
}

bool
op_wait(const actor *who, xc_wait_kind kind, talk *about, int64_t until)
{
    const xc_wait wait = {.kind = kind,
                          .chan = about != NULL ? about->chan[who->at->number] : NULL,
                          .can_give = kind == XC_WAIT_ITEM,
                          .signals = who->is_main};
    return wait_for(who, wait, about, until);
}

void
op_wait_for_chan(const actor *who, xc_wait_kind kind, xc_chan *chan, const connection *through)
{
    const xc_wait wait = {.kind = kind, .chan = chan, .until = XC_FOREVER};
    const note here = {.at = who->at, .kind = kind, .through = through};
    size_t space;
    sim_note(&here);
    while (xc_link_wait_nogil(who->at->link, &wait, &space) != XC_OK) {
    }
    sim_note(NULL);
}

static void
free_item(side *at, xc_msg *msg)
{
    xc_link_free_msg(at->link, msg);
}

received
op_receive(const actor *who, talk *about, int64_t until)
{
    side *at = who->at;
    xc_chan *chan = about->chan[at->number];
    for (bool soon = true;; soon = false) {
        xc_msg *msg;
        xc_status rc =
            soon ? xc_link_take_soon(at->link, chan, SOON_NS, &msg) : xc_link_take_item(at->link, chan, &msg);
        if (rc == XC_OK) {
            ledger_got(about, at->number == 0 ? UP : DOWN, msg);
            free_item(at, msg);
            return GOT;
        }
        if (rc == XC_CLOSED) {
            xc_chan_state state = xc_link_chan_state(at->link, chan);
            while ((msg = xc_link_take_error(at->link, chan)) != NULL) {
                xc_link_free_msg(at->link, msg);
            }
            ledger_ended(at, about, &state);
            return CLOSED;
        }
        if (!op_wait(who, XC_WAIT_ITEM, about, until)) {
            return LATE;
        }
    }
}

/* --- sending ---------------------------------------------------------------------------------------------------- */

/* What a sender does whose wait was interrupted. True: it gives up. */
static bool
gives_up(const actor *who)
{
    if (who->is_main) {
        handle_signal(who);
    }
    return who->is_main && !who->handles && sim_chance(4);
}

/* 1: sent; 0: given up, nothing of it was sent; -1: the link has ended. */
static int
send_short(const actor *who, xc_sending *sending)
{
    xc_writer *writer = xc_link_writer(who->at->link);
    xc_err err;
    xc_status rc = sim_chance(4) ? XC_AGAIN : xc_writer_try(writer, sending, &err);
    if (rc == XC_AGAIN && sim_chance(16)) { /* as a greenlet does */
        rc = xc_writer_hand_over(writer, sending, &err);
        return rc == XC_OK ? 1 : rc == XC_NOMEM && sending->n > 0 ? 0 : -1;
    }
    int64_t slice = SLICE_MIN;
    while (rc == XC_AGAIN) {
        rc = xc_writer_send_nogil(writer, sending, who->is_main ? xc_after(slice) : XC_FOREVER, &err);
        if (rc == XC_INTR || rc == XC_TIMEOUT) {
            if (gives_up(who)) {
                xc_writer_spill(writer, sending);
                return sending->n == 0;
            }
            slice *= 2;
            rc = XC_AGAIN;
        }
    }
    return rc == XC_OK || sending->n == 0 ? 1 : -1;
}

static int
send_long(const actor *who, xc_long_sending *sending)
{
    xc_writer *writer = xc_link_writer(who->at->link);
    xc_err err;
    for (;;) {
        xc_status rc =
            xc_writer_send_long_nogil(writer, sending, who->is_main ? xc_after(50 * XC_MS) : XC_FOREVER, &err);
        bool ended = rc != XC_OK && rc != XC_INTR && rc != XC_TIMEOUT;
        if (rc == XC_OK) {
            return 1;
        }
        if (ended || gives_up(who)) {
            bool sent = xc_writer_drop(writer, sending);
            return sent ? 1 : ended ? -1 : 0;
        }
    }
}

/* A payload behind room for its header. Results as above. */
static int
send_message(const actor *who, xc_code code, uint32_t id, unsigned char *data, size_t size)
{
    struct iovec parts[4] = {{NULL, 0}};
    size_t first = size > 64 ? sim_random((uint32_t)size) : size, second = sim_random((uint32_t)(size - first + 1));
    const note sends = {.at = who->at, .kind = -1};
    const void *outer = sim_note_of(sim_self());
    int n = 1;
    parts[1] = (struct iovec){data, XC_HEADER_SIZE + first};
    if (second > 0) {
        parts[++n] = (struct iovec){data + XC_HEADER_SIZE + first, second};
    }
    if (size > first + second) {
        parts[++n] = (struct iovec){data + XC_HEADER_SIZE + first + second, size - first - second};
    }
    sim_note(&sends);
    int result;
    if (size < XC_LONG_MIN) {
        xc_sending sending = {.parts = parts + 1, .n = n};
        xc_frame_pack(data, code, id, (uint32_t)size);
        result = send_short(who, &sending);
    }
    else {
        xc_long_frame message = {.code = (uint8_t)code, .chan = id, .size = size};
        xc_long_sending sending;
        parts[1].iov_base = data + XC_HEADER_SIZE;
        parts[1].iov_len -= XC_HEADER_SIZE;
        xc_long_begin(&sending, &message, parts + 1);
        result = send_long(who, &sending);
    }
    sim_note(outer);
    return result;
}

bool
op_send_frame(const actor *who, xc_code code, uint32_t id, const void *payload, size_t n)
{
    unsigned char *data = sim_alloc(XC_HEADER_SIZE + n + 1);
    int result;
    do {
        memcpy(data + XC_HEADER_SIZE, payload, n);
        result = send_message(who, code, id, data, n);
    } while (result == 0);
    return result > 0;
}

/* Waits for credit. False: not in time, or the channel is closed. */
static bool
claim(const actor *who, talk *about, uint64_t cost, int64_t until)
{
    xc_chan *chan = about->chan[who->at->number];
    xc_claim it = {.cost = cost, .owner = xc_bell_mine()};
    while (!xc_link_claim(who->at->link, chan, &it)) {
        const xc_wait wait = {.kind = XC_WAIT_CREDIT, .chan = chan, .claim = &it, .signals = who->is_main};
        if (!wait_for(who, wait, about, until)) {
            (void)xc_link_unclaim(who->at->link, chan, &it);
            return false;
        }
    }
    if (atomic_load_explicit(&chan->closed, memory_order_relaxed)) {
        xc_link_unsent(who->at->link, chan, cost);
        return false;
    }
    return true;
}

/* Results as of send_message. A signal handler does not wait for credit for ever: others may wait for its thread. */
static int
send_counted(const actor *who, talk *about, const item *it, int direction, int sender)
{
    xc_chan *chan = about->chan[who->at->number];
    uint64_t cost = it->size + XC_ITEM_COST;
    int64_t until = sender == HANDLER || sim_chance(8) ? xc_after(sim_random(20000000)) : XC_FOREVER;
    if (!xc_chan_count_sent(chan, cost) && !claim(who, about, cost, until)) {
        return atomic_load_explicit(&chan->closed, memory_order_relaxed) ? -1 : 0;
    }
    ledger_claimed(about, direction, cost);
    int result = send_message(who, XC_DATA, about->id, it->data, it->size);
    if (result <= 0) {
        about->under_way[direction] -= cost;
        xc_link_unsent(who->at->link, chan, cost);
    }
    return result;
}

bool
op_send_item(const actor *who, talk *about, int direction, int sender)
{
    int result;
    do { /* an item that was given up is sent again, but by a signal handler */
        item it;
        if (atomic_load_explicit(&about->chan[who->at->number]->closed, memory_order_relaxed)) {
            return false;
        }
        ledger_make(&it, about, direction, sender);
        result = send_counted(who, about, &it, direction, sender);
        if (result >= 0) {
            ledger_sent(about, direction, sender, result > 0);
        }
        sim_trace("%s an item of %zu bytes of talk %d, sender %d",
                  result > 0    ? "has sent"
                  : result == 0 ? "gives up"
                                : "cannot send",
                  it.size, about->number, sender);
    } while (result == 0 && sender != HANDLER);
    if (result < 0 && !about->on->may_end && !about->closing[0] && !about->closing[1] && !ledger_refused(about)) {
        sim_fail("%s cannot send, and the link has no reason to have ended", sim_thread_name(sim_self()));
    }
    return result >= 0;
}

/* --- channels --------------------------------------------------------------------------------------------------- */

/* Removes the callback, and calls it for the last time. */
static void
end_callback(side *at, talk *about)
{
    if (about->has_callback[at->number]) {
        about->has_callback[at->number] = false;
        about->marked[at->number] = true; /* the endmarker */
        progress();
        sim_look();
        xc_link_end_callback(at->link, about->chan[at->number]);
    }
}

void
op_close(const actor *who, talk *about)
{
    side *at = who->at;
    xc_chan *chan = about->chan[at->number];
    bool tell;
    xc_chan_state before = xc_link_chan_state(at->link, chan);
    if (before.closed) {
        return;
    }
    sim_trace("closes talk %d", about->number);
    ledger_closing(at, about);
    static const unsigned char none[] = {XC_OP_NONE, XC_OP_STOP};
    bool error = sim_chance(4);
    if (before.may_tell &&
        !op_send_frame(who, error ? XC_CLOSE_ERROR : XC_CLOSE, about->id, none, error ? sizeof none : 0)) {
        return;
    }
    (void)xc_link_close_chan(at->link, chan, &tell, NULL);
    end_callback(at, about);
}

/* The receiver of that direction sets its limit, or lifts it. */
void
op_set_limit(const actor *who, talk *about, uint64_t limit)
{
    sim_trace("sets the limit %llu for talk %d", (unsigned long long)limit, about->number);
    (void)xc_link_set_limit(who->at->link, about->chan[who->at->number], limit);
}

/* The caller uses the channel no more. */
void
op_drop(const actor *who, talk *about)
{
    side *at = who->at;
    about->over[at->number] = true;
    ledger_closing(at, about);
    xc_link_drop_object(at->link, about->chan[at->number], about);
}

/* --- callbacks -------------------------------------------------------------------------------------------------- */

/* Only where the other end never waits for credit: it might wait for this very callback. */
static bool
may_send_in_callback(const side *at)
{
    const connection *on = at->on;
    bool limited = on->window > 0 || at->number != world.callbacks_send;
    for (int i = 0; i < on->n_talks; i++) {
        limited = limited || on->talks[i].limit[at->number == 0 ? UP : DOWN] > 0;
    }
    return !limited;
}

static void
call_back(const actor *who, talk *about, xc_msg *msg)
{
    side *at = who->at;
    ledger_got(about, at->number == 0 ? UP : DOWN, msg);
    free_item(at, msg);
    sim_look();
    switch (sim_random(16)) {
    case 0:
        sim_sleep(sim_random(30000000));
        break;
    case 1: { /* receives from another channel, whose own receiver reads until its end */
        talk *other = some_talk(at->on);
        if (at->number == 0 && other != about && other->kind != STATUS && other->open[at->number] &&
            !other->over[at->number] && !other->has_callback[at->number] &&
            !other->callback[at->number == 0 ? UP : DOWN]) {
            other->borrowed[at->number]++;
            other->shared = true;
            (void)op_receive(who, other, xc_after(sim_random(20000000)));
            other->borrowed[at->number]--;
            sim_look();
        }
        break;
    }
    case 2: { /* sends, and waits for credit, to a receiver that is no callback */
        talk *other = some_talk(at->on);
        int direction = at->number == 0 ? DOWN : UP;
        if (may_send_in_callback(at) && other->kind != STATUS && other->open[at->number] && !other->over[at->number] &&
            !other->callback[direction] && other->begun[direction][CALLBACK] < MOST_HANDLED) {
            other->sending[direction]++;
            (void)op_send_item(who, other, direction, CALLBACK);
            other->sending[direction]--;
            sim_look();
        }
        break;
    }
    case 3:
        if (about->closes_in_callback) {
            op_close(who, about);
        }
        break;
    default:
        break;
    }
}

static void
dispatch(const actor *who, xc_msg *msg, xc_chan *chan)
{
    side *at = who->at;
    talk *about = chan != NULL ? talk_of(at, chan) : NULL;
    if (msg->code == XC_DATA) {
        uint64_t cost = xc_msg_cost(msg);
        if (about != NULL && about->has_callback[at->number]) {
            call_back(who, about, msg);
        }
        else {
            free_item(at, msg);
        }
        xc_link_called(at->link, chan, cost);
        return;
    }
    if (chan != NULL) {
        if (about != NULL) {
            xc_chan_state state = xc_link_chan_state(at->link, chan);
            ledger_ended(at, about, &state);
            end_callback(at, about);
        }
        xc_link_settle(at->link, msg);
    }
    else {
        for (xc_chan *next; (next = xc_link_any_callback(at->link)) != NULL;) {
            talk *ended = talk_of(at, next);
            if (ended != NULL) {
                end_callback(at, ended);
            }
            xc_link_end_callback(at->link, next);
            xc_link_drop_chan(at->link, next);
        }
        xc_link_settle(at->link, msg);
    }
    if (chan != NULL) {
        xc_link_drop_chan(at->link, chan);
    }
}

void
op_run_callbacks(void *arg)
{
    side *at = arg;
    actor who = {.at = at};
    xc_link_state state = {.fin = false};
    do {
        xc_msg *msg;
        xc_chan *chan;
        (void)op_wait(&who, XC_WAIT_BACKLOG, NULL, XC_FOREVER);
        if (xc_link_dispatch_enter(at->link) != XC_OK) {
            continue;
        }
        while ((msg = xc_link_backlog_next(at->link, &chan)) != NULL) {
            dispatch(&who, msg, chan);
        }
        xc_link_dispatch_leave(at->link);
        xc_link_get_state(at->link, &state);
    } while (!state.fin);
    leave(at);
}

/* Hands out what is there, then installs the callback. */
static void
hand_out(const actor *who, talk *about)
{
    side *at = who->at;
    xc_chan *chan = about->chan[at->number];
    for (;;) {
        xc_msg *msg;
        xc_status rc = xc_link_take_to_call(at->link, chan, &msg);
        if (rc == XC_OK) {
            uint64_t cost = xc_msg_cost(msg);
            ledger_got(about, at->number == 0 ? UP : DOWN, msg);
            free_item(at, msg);
            xc_link_taken(at->link, chan, 1, cost);
            continue;
        }
        about->has_callback[at->number] = rc == XC_AGAIN;
        if (rc == XC_AGAIN && xc_link_set_callback(at->link, chan)) {
            return;
        }
        about->has_callback[at->number] = false;
        if (rc == XC_CLOSED) {
            xc_chan_state state = xc_link_chan_state(at->link, chan);
            ledger_ended(at, about, &state);
            about->marked[at->number] = true;
            return;
        }
    }
}

void
op_set_callback(const actor *who, talk *about)
{
    side *at = who->at;
    if (!at->callbacks) {
        at->callbacks = true;
        start_beside(at, "callbacks", op_run_callbacks, at);
    }
    while (xc_link_dispatch_enter(at->link) != XC_OK) {
        (void)op_wait(who, XC_WAIT_DISPATCH, NULL, XC_FOREVER);
    }
    hand_out(who, about);
    xc_link_dispatch_leave(at->link);
}
