/*
 * The actors of the worker: the main thread and some spare threads run tasks.
 */
#include "ends.h"

/* Until as many items have come as the near end has to send, or none comes any more. */
static void
take_all(const actor *who, talk *about)
{
    uint32_t all = about->items[DOWN] * about->senders[DOWN];
    change_limit(who, about, DOWN);
    while (count_got(about, DOWN) < all && !about->lossy && op_receive(who, about, some_deadline()) != CLOSED) {
    }
}

static void
answer(const actor *who, talk *about)
{
    bool open = true, more = true;
    uint32_t left = about->items[UP], all = about->items[DOWN] * about->senders[DOWN];
    if (about->limit[DOWN] > 0) {
        op_set_limit(who, about, about->limit[DOWN]);
    }
    while (left > 0 && open) {
        if (about->callback[DOWN] || !more || about->lossy || count_got(about, DOWN) >= all || sim_chance(2)) {
            open = op_send_item(who, about, UP, 0);
            left--;
        }
        else {
            more = op_receive(who, about, some_deadline()) != CLOSED;
        }
    }
    about->sending[UP]--;
    sim_look();
    if (!about->callback[DOWN]) {
        take_all(who, about);
    }
}

static bool
is_heard(const void *what)
{
    const talk *about = what;
    return about->marked[1] || about->lossy || count_got(about, DOWN) >= about->items[DOWN] * about->senders[DOWN];
}

/* The worker's part of a talk. */
static void
take_part(const actor *who, talk *about, xc_chan *chan)
{
    about->chan[1] = chan;
    (void)xc_link_object(who->at->link, chan, about, keep);
    if (about->callback[DOWN]) {
        op_set_callback(who, about);
    }
    start_senders(who->at, about, UP);
    answer(who, about);
    if (about->callback[DOWN]) {
        (void)sim_block(about, SIM_NEVER, false, is_heard);
    }
    await_zero(&about->sending[UP]);
}

static void
run_carried(void *arg)
{
    talk *about = arg;
    const actor who = {.at = &about->on->ends[1]};
    take_part(&who, about, about->chan[1]);
    op_close(&who, about);
    let_go(&who, about, UP);
    leave(who.at);
}

static void
run_task(const actor *who, xc_msg *msg, xc_chan *chan, bool primary)
{
    side *at = who->at;
    at->on->tasks_taken++;
    progress();
    if (msg->data[5] >= VIA_TASK) {
        via_run_task(who, msg, chan, primary);
        return;
    }
    talk *about = &at->on->talks[msg->data[5]], *carries = about->carries;
    if (carries != NULL && (carries->chan[1] = xc_link_carried(at->link, msg, 0, carries->id)) != NULL) {
        (void)start_beside(at, "carried", run_carried, carries);
    }
    xc_link_free_msg(at->link, msg);
    take_part(who, about, chan);
    if (!about->lossy && sim_chance(16)) { /* it computes, whatever becomes of the link */
        sim_sleep(sim_random(2000) * XC_MS);
    }
    if (primary) {
        xc_link_task_done(at->link, true);
    }
    op_close(who, about);
    let_go(who, about, UP);
    if (!primary) {
        xc_link_task_done(at->link, false);
    }
}

/* Runs tasks until there are no more. */
static void
serve(const actor *who, bool primary)
{
    side *at = who->at;
    for (;;) {
        xc_msg *msg;
        xc_chan *chan;
        (void)op_wait(who, primary ? XC_WAIT_TASK : XC_WAIT_TASK_SPARE, NULL, XC_FOREVER);
        xc_status rc = xc_link_take_task(at->link, primary, &msg, &chan);
        if (rc == XC_CLOSED) {
            return;
        }
        if (rc == XC_OK) {
            run_task(who, msg, chan, primary);
        }
    }
}

static void
run_spare(void *arg)
{
    const actor who = {.at = arg};
    serve(&who, false);
    leave(who.at);
}

void
run_worker(side *at)
{
    const actor who = {.at = at, .is_main = true};
    start_others(at);
    if (at->on->main_only) {
        xc_link_set_model(at->link, XC_MODEL_MAIN_ONLY);
    }
    for (uint32_t n = at->on->main_only ? 0 : sim_random(3); n > 0; n--) {
        (void)start_beside(at, "spare", run_spare, at);
    }
    serve(&who, true);
    (void)op_wait(&who, XC_WAIT_IDLE, NULL, XC_FOREVER);
    await_zero(&at->users);
    while (xc_writer_left(xc_link_writer(at->link)) > 0) {
        sim_sleep(XC_S); /* long enough for the world to look at all that sleep */
    }
    if (sim_chance(2)) {
        sim_kill(at->process, false);
    }
}
