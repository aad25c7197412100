/*
 * The actors of the near end: each talk has a caller, which opens the channel and asks for a task.
 */
#include "ends.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

/* Sends and receives in turns, by chance; a receive that has something to be sent behind it does not wait for ever. */
static void
converse(const actor *who, talk *about)
{
    uint32_t left = about->items[DOWN];
    bool more = true, open = true;
    if (about->limit[UP] > 0) {
        op_set_limit(who, about, about->limit[UP]);
    }
    while (open && left > 0) {
        if (about->callback[UP] || !more || sim_chance(2)) {
            open = op_send_item(who, about, DOWN, 0);
            left--;
        }
        else {
            more = op_receive(who, about, xc_after(sim_random(2000000))) != CLOSED;
        }
    }
    about->sending[DOWN]--;
    sim_look();
    while (!about->callback[UP] && more) {
        change_limit(who, about, UP);
        more = op_receive(who, about, some_deadline()) != CLOSED;
    }
}

/* Asks for the task, or for the status. A task may bring another channel. */
static bool
ask(const actor *who, talk *about)
{
    unsigned char payload[] = {XC_OP_BYTES,
                               0,
                               0,
                               0,
                               1,
                               (unsigned char)about->number, /* then what is carried: */
                               XC_OP_CHANNEL,
                               0,
                               0,
                               0,
                               0,
                               XC_OP_TUPLE,
                               0,
                               0,
                               0,
                               2,
                               XC_OP_STOP};
    size_t n = sizeof payload;
    if (about->kind == STATUS) {
        return op_send_frame(who, XC_STATUS, about->id, payload, sim_chance(2) ? n : 0);
    }
    if (about->carries != NULL) {
        xc_put_u32(payload + 7, about->carries->id);
    }
    else {
        n = 7;
        payload[6] = XC_OP_STOP;
    }
    about->asked_at = sim_now();
    if (!op_send_frame(who, XC_EXEC, about->id, payload, n)) {
        return false;
    }
    about->on->tasks_sent++;
    return true;
}

/* A new channel for that talk. */
static bool
open_channel(const actor *who, talk *about)
{
    side *at = who->at;
    xc_err err;
    if (xc_link_new_chan(at->link, &about->chan[0], &err) != XC_OK) {
        if (!at->on->may_end) {
            sim_fail("no channel can be opened");
        }
        return false;
    }
    about->id = about->chan[0]->id;
    (void)xc_link_object(at->link, about->chan[0], about, keep);
    return true;
}

static void
call(const actor *who, talk *about)
{
    talk *carries = about->carries;
    bool asked = false, opened = open_channel(who, about), carried = carries != NULL && open_channel(who, carries);
    if (opened && about->callback[UP]) {
        op_set_callback(who, about);
    }
    if (opened && (carries == NULL || carried)) {
        asked = ask(who, about);
    }
    if (carries != NULL) {
        carries->not_asked = false;
        carries->asked = asked;
        sim_look();
    }
    if (asked) {
        start_senders(who->at, about, DOWN);
        converse(who, about);
        while (!op_wait(who, XC_WAIT_CLOSE, about, some_deadline())) {
        }
    }
    if (opened && sim_chance(2)) {
        op_close(who, about);
    }
    if (opened) {
        let_go(who, about, DOWN);
    }
}

static bool
is_asked(const void *what)
{
    return !((const talk *)what)->not_asked;
}

/* The channel is opened by the caller of the talk that carries it. */
static void
call_carried(const actor *who, talk *about)
{
    (void)sim_block(about, SIM_NEVER, false, is_asked);
    if (about->asked && about->callback[UP]) {
        op_set_callback(who, about);
    }
    if (about->asked) {
        start_senders(who->at, about, DOWN);
        converse(who, about);
        while (!op_wait(who, XC_WAIT_CLOSE, about, some_deadline())) {
        }
    }
    if (about->id != 0) {
        let_go(who, about, DOWN);
    }
}

static void
run_caller(void *arg)
{
    talk *about = arg;
    const actor who = {.at = &about->on->ends[0], .is_main = sim_chance(3), .parks = sim_chance(5)};
    if (sim_chance(3)) {
        sim_sleep(sim_random(20000000));
    }
    if (about->kind == CARRIED) {
        call_carried(&who, about);
    }
    else {
        call(&who, about);
    }
    who.at->on->callers--;
    leave(who.at);
}

void
run_near(side *at)
{
    const actor who = {.at = at, .is_main = true};
    connection *on = at->on;
    for (int i = 0; i < on->n_talks; i++) {
        (void)start_beside(at, "caller", run_caller, &on->talks[i]);
    }
    start_others(at);
    if (sim_chance(4)) {
        sim_sleep(sim_random(60000000));
    }
    else {
        await_zero(&on->callers);
    }
    ledger_leaving(at);
    xc_link_goodbye(at->link);
    (void)op_wait(&who, XC_WAIT_FIN, NULL, XC_FOREVER);
    if (sim_chance(4)) {
        (void)op_wait(&who, XC_WAIT_GONE, NULL, XC_FOREVER);
    }
    await_zero(&at->users);
}
