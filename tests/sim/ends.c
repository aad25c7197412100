/*
 * The actors of the two ends. At the near end each talk has a caller, which opens the channel and asks for a task; at
 * the worker the main thread and some spare threads run tasks.
 */
#include <string.h>

#include "world.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

/* --- both ends -------------------------------------------------------------------------------------------------- */

static bool
is_zero(const void *number)
{
    return *(const int *)number == 0;
}

void
await_zero(const int *number)
{
    (void)sim_block(number, SIM_NEVER, false, is_zero);
}

/* A thread's doorbell is made first, and without fail: one that could not be made stands among the thread's own
 * variables, which others cannot reach here. */
static void
make_bell(void)
{
    sim_spare_allocations(sim_own_process(), true);
    (void)xc_bell_mine();
    sim_spare_allocations(sim_own_process(), false);
}

typedef struct {
    void (*run)(void *arg);
    void *arg;
} start;

static void
run_with_bell(void *arg)
{
    const start *it = arg;
    make_bell();
    it->run(it->arg);
}

sim_thread *
start_beside(side *at, const char *name, void (*run)(void *arg), void *arg)
{
    start *it = sim_alloc(sizeof *it);
    *it = (start){run, arg};
    at->users++;
    return sim_start(at->process, name, run_with_bell, it);
}

void
leave(side *at)
{
    at->users--;
    progress();
    sim_look();
}

static side *
near_end(void)
{
    return &world.ends[0];
}

/* By when to be through with something that has a deadline; most have none. */
static int64_t
some_deadline(void)
{
    static const int64_t spans[] = {0, 20 * 1000, XC_MS, 20 * XC_MS, 300 * XC_MS};
    return sim_chance(3) ? xc_after(spans[sim_random(5)]) : XC_FOREVER;
}

/* Never called: each channel gets one object only. */
static bool
keep(void *object)
{
    (void)object;
    return false;
}

static uint32_t
count_got(const talk *about, int direction)
{
    return about->got[direction][0] + about->got[direction][1];
}

typedef struct {
    talk *about;
    int direction, sender;
} sending_job;

static void
send_all(const actor *who, talk *about, int direction, int sender)
{
    for (uint32_t i = 0; i < about->items[direction]; i++) {
        if (!op_send_item(who, about, direction, sender)) {
            break;
        }
        if (sim_chance(16)) {
            sim_sleep(sim_random(5000000));
        }
    }
    about->sending[direction]--;
    sim_look();
}

static void
run_sender(void *arg)
{
    const sending_job *job = arg;
    side *at = &world.ends[job->direction == DOWN ? 0 : 1];
    const actor who = {.at = at};
    send_all(&who, job->about, job->direction, job->sender);
    leave(at);
}

/* The senders of this end that are not the caller's own thread. */
static void
start_senders(side *at, talk *about, int direction)
{
    about->open[at->number] = true;
    about->sending[direction] += (int)about->senders[direction];
    for (uint32_t i = 1; i < about->senders[direction]; i++) {
        sending_job *job = sim_alloc(sizeof *job);
        *job = (sending_job){about, direction, (int)i};
        (void)start_beside(at, "sender", run_sender, job);
    }
}

static void
let_go(const actor *who, talk *about, int direction)
{
    await_zero(&about->sending[direction]);
    about->over[who->at->number] = true;
    await_zero(&about->borrowed[who->at->number]);
    op_drop(who, about);
}

/* --- the near end ----------------------------------------------------------------------------------------------- */

static void
change_limit(const actor *who, talk *about, int direction)
{
    if (about->limit[direction] > 0 && about->limit_changes && sim_chance(4)) {
        op_set_limit(who, about, sim_chance(3) ? XC_NO_LIMIT : 1 + sim_random(2 * about->limit[direction]));
    }
}

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
    if (!op_send_frame(who, XC_EXEC, about->id, payload, n)) {
        return false;
    }
    world.tasks_sent++;
    return true;
}

/* A new channel for that talk. */
static bool
open_channel(const actor *who, talk *about)
{
    side *at = who->at;
    xc_err err;
    if (xc_link_new_chan(at->link, &about->chan[0], &err) != XC_OK) {
        if (!world.may_end) {
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
    const actor who = {.at = near_end(), .is_main = sim_chance(3), .parks = sim_chance(5)};
    if (sim_chance(3)) {
        sim_sleep(sim_random(20000000));
    }
    if (((talk *)arg)->kind == CARRIED) {
        call_carried(&who, arg);
    }
    else {
        call(&who, arg);
    }
    world.callers--;
    leave(who.at);
}

/* Closes a channel while others use it. */
static void
run_closer(void *arg)
{
    const actor who = {.at = arg};
    sim_sleep(sim_random(40000000));
    talk *about = &world.talks[sim_random((uint32_t)world.n_talks)];
    int n = who.at->number;
    if (about->open[n] && !about->over[n] && !about->closing[n]) {
        about->borrowed[n]++;
        op_close(&who, about);
        about->borrowed[n]--;
        sim_look();
    }
    leave(who.at);
}

/* Asks without end how the other is, and never listens: signs of life, and channels that nobody knows. */
static void
run_asker(void *arg)
{
    side *at = arg;
    for (uint32_t n = sim_random(80); n > 0; n--) {
        (void)xc_link_post(at->link, XC_STATUS, sim_chance(2) ? 0 : 1000 + n, NULL, 0);
        if (sim_chance(8)) {
            sim_sleep(sim_random(3000000));
        }
    }
    leave(at);
}

static void
start_others(side *at)
{
    if (sim_chance(8)) {
        (void)start_beside(at, "closer", run_closer, at);
    }
    if (sim_chance(8)) {
        (void)start_beside(at, "asker", run_asker, at);
    }
}

static void
run_near(void *arg)
{
    side *at = arg;
    const actor who = {.at = at, .is_main = true};
    world.callers = world.n_talks;
    for (int i = 0; i < world.n_talks; i++) {
        (void)start_beside(at, "caller", run_caller, &world.talks[i]);
    }
    start_others(at);
    if (sim_chance(4)) {
        sim_sleep(sim_random(60000000));
    }
    else {
        await_zero(&world.callers);
    }
    ledger_leaving(at);
    xc_link_goodbye(at->link);
    (void)op_wait(&who, XC_WAIT_FIN, NULL, XC_FOREVER);
    if (sim_chance(4)) {
        (void)op_wait(&who, XC_WAIT_GONE, NULL, XC_FOREVER);
    }
    await_zero(&at->users);
}

/* --- the worker ------------------------------------------------------------------------------------------------- */

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
    const actor who = {.at = &world.ends[1]};
    take_part(&who, about, about->chan[1]);
    op_close(&who, about);
    let_go(&who, about, UP);
    leave(who.at);
}

static void
run_task(const actor *who, xc_msg *msg, xc_chan *chan, bool primary)
{
    side *at = who->at;
    talk *about = &world.talks[msg->data[5]], *carries = about->carries;
    if (carries != NULL && (carries->chan[1] = xc_link_carried(at->link, msg, 0, carries->id)) != NULL) {
        (void)start_beside(at, "carried", run_carried, carries);
    }
    xc_link_free_msg(at->link, msg);
    world.tasks_taken++;
    progress();
    take_part(who, about, chan);
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

static void
run_worker(void *arg)
{
    side *at = arg;
    const actor who = {.at = at, .is_main = true};
    start_others(at);
    for (uint32_t n = sim_random(3); n > 0; n--) {
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

/* --- links ------------------------------------------------------------------------------------------------------ */

static void
drop_space(void *arg, xc_msg *msg)
{
    (void)arg;
    xc_free(msg->space);
    msg->space = NULL;
    xc_msg_free(msg);
}

static void
orphan_error(void *arg, xc_msg *msg)
{
    (void)arg;
    xc_msg_free(msg);
}

static bool
lives(const side *at)
{
    return sim_is_alive(at->process) && at->link != NULL && !at->link->end.eof;
}

/* Until both ends have, or one is no more. */
static void
wait_to_move(const int *ends)
{
    while (*ends > 0 && !(world.faulty && !(lives(&world.ends[0]) && lives(&world.ends[1])))) {
        sim_sleep(XC_MS);
    }
}

/* One of the two moves at any time after both have offered. What is sent before both have moved must fit into a ring:
 * here signs of life, and small ones. */
static void
run_mover(void *arg)
{
    side *at = arg;
    xc_err err;
    wait_to_move(&world.not_offered);
    for (uint32_t n = sim_random(4); n > 0; n--) {
        sim_sleep(sim_random(4000000));
        (void)xc_link_post(at->link, XC_STATUS, 0, NULL, 0);
    }
    xc_status rc = xc_link_move_nogil(at->link, &err);
    if (rc != XC_OK && !world.may_end) {
        sim_fail("no move: %s %s", xc_status_name(rc), err.step);
    }
    world.not_moved--;
    if (rc != XC_OK) { /* makegateway() fails then, and ends the worker; or the worker itself ends */
        sim_kill(world.ends[1].process, false);
    }
    leave(at);
}

static void
offer(side *at)
{
    if (!xc_link_offer(at->link, &at->region)) {
        sim_fail("an offer was refused");
    }
    world.not_offered--;
    sim_look();
    (void)start_beside(at, "mover", run_mover, at);
    wait_to_move(&world.not_moved);
}

static void
run_end(void *arg)
{
    side *at = arg;
    xc_err err;
    make_bell();
    xc_link_opts opts = {.worker = at->number == 1, .orphan_error = orphan_error, .drop_space = drop_space};
    opts.region = world.transport == BY_RINGS ? &at->region : NULL;
    at->link = xc_link_new(&opts, at->in, at->out, &err);
    if (at->link == NULL && !world.faulty) {
        sim_fail("no link: %s", err.step);
    }
    if (at->link == NULL) {
        sim_kill(at->process, false);
    }
    if (world.window > 0) {
        xc_link_set_limit_of_new(at->link, world.window);
    }
    if (world.transport == MOVING) {
        offer(at);
    }
    if (world.silence[at->number] > 0) {
        xc_link_keepalive(at->link, world.silence[at->number], NULL, NULL);
    }
    if (at->number == 0) {
        xc_link_owns_peer(at->link);
        (void)start_beside(at, "reaper", run_reaper, at);
        run_near(at);
    }
    else {
        run_worker(at);
        world.worker_gone = true;
        sim_look();
    }
    xc_link *link = at->link;
    at->link = NULL;
    xc_link_release(link);
    progress();
}

void
start_ends(void)
{
    for (int i = 0; i < 2; i++) {
        (void)sim_start(world.ends[i].process, i == 0 ? "near main" : "worker main", run_end, &world.ends[i]);
    }
}
