/*
 * The two ends: what the actors of both do, and the links.
 */
#include "ends.h"

/* --- both ends -------------------------------------------------------------------------------------------------- */

static bool
is_zero(const void *number)
{
    return *(const int *)number == 0;
}

void
await_zero(const int *number)
{
    while (*number != 0) {
        (void)sim_block(number, SIM_NEVER, false, is_zero);
    }
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

talk *
some_talk(connection *on)
{
    return &on->talks[sim_random((uint32_t)on->n_talks)];
}

talk *
next_talk(const talk *after)
{
    const connection *on = after == NULL ? world.connections : after->on,
                     *end = world.connections + world.n_connections;
    int i = after == NULL ? 0 : after->number + 1;
    while (on < end && i == on->n_talks) {
        on++;
        i = 0;
    }
    return on < end ? (talk *)&on->talks[i] : NULL;
}

int64_t
some_deadline(void)
{
    static const int64_t spans[] = {0, 20 * 1000, XC_MS, 20 * XC_MS, 300 * XC_MS};
    return sim_chance(3) ? xc_after(spans[sim_random(5)]) : XC_FOREVER;
}

/* Never called: each channel gets one object only. */
bool
keep(void *object)
{
    (void)object;
    return false;
}

uint32_t
count_got(const talk *about, int direction)
{
    return about->got[direction][0] + about->got[direction][1];
}

typedef struct {
    talk *about;
    int direction, sender;
} sending_job;

void
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
    side *at = &job->about->on->ends[job->direction == DOWN ? 0 : 1];
    const actor who = {.at = at};
    send_all(&who, job->about, job->direction, job->sender);
    leave(at);
}

void
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

void
let_go(const actor *who, talk *about, int direction)
{
    await_zero(&about->sending[direction]);
    about->over[who->at->number] = true;
    await_zero(&about->borrowed[who->at->number]);
    op_drop(who, about);
}

void
change_limit(const actor *who, talk *about, int direction)
{
    if (about->limit[direction] > 0 && about->limit_changes && sim_chance(4)) {
        op_set_limit(who, about, sim_chance(3) ? XC_NO_LIMIT : 1 + sim_random(2 * about->limit[direction]));
    }
}

/* Closes a channel while others use it. */
static void
run_closer(void *arg)
{
    const actor who = {.at = arg};
    sim_sleep(sim_random(40000000));
    talk *about = some_talk(who.at->on);
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

void
start_others(side *at)
{
    if (sim_chance(8)) {
        (void)start_beside(at, "closer", run_closer, at);
    }
    if (sim_chance(8)) {
        (void)start_beside(at, "asker", run_asker, at);
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
    return sim_is_alive(at->process) && (!at->began || (at->link != NULL && !at->link->end.eof));
}

/* Until both ends have, or one is no more. */
static void
wait_to_move(const connection *on, const int *ends)
{
    while (*ends > 0 && !(on->faulty && !(lives(&on->ends[0]) && lives(&on->ends[1])))) {
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
    wait_to_move(at->on, &at->on->not_offered);
    for (uint32_t n = sim_random(4); n > 0; n--) {
        sim_sleep(sim_random(4000000));
        (void)xc_link_post(at->link, XC_STATUS, 0, NULL, 0);
    }
    xc_status rc = xc_link_move_nogil(at->link, &err);
    if (rc != XC_OK && !at->on->may_end) {
        sim_fail("no move: %s %s", xc_status_name(rc), err.step);
    }
    at->on->not_moved--;
    if (rc != XC_OK) { /* makegateway() fails then, and ends the worker; or the worker itself ends */
        sim_kill(at->on->ends[1].process, false);
    }
    leave(at);
}

static void
offer(side *at)
{
    if (!xc_link_offer(at->link, &at->region)) {
        sim_fail("an offer was refused");
    }
    at->on->not_offered--;
    sim_look();
    (void)start_beside(at, "mover", run_mover, at);
    wait_to_move(at->on, &at->on->not_moved);
    if (sim_chance(2)) { /* fills the ring at once, before this end has read the other's move, perhaps */
        unsigned char ignored[150] = {0};
        for (int i = 0; i < 40; i++) {
            (void)xc_link_post(at->link, XC_RECONFIGURE, 0, ignored, sizeof ignored);
        }
    }
}

static void
release_link(side *at)
{
    xc_link *link = at->link;
    at->link = NULL;
    xc_link_release(link);
    progress();
}

/* False: there is none, and nobody will miss it. */
static bool
make_link(side *at)
{
    const connection *on = at->on;
    xc_err err = {.step = ""};
    xc_link_opts opts = {.worker = at->number == 1, .orphan_error = orphan_error, .drop_space = drop_space};
    opts.region = on->transport == BY_RINGS ? &at->region : NULL;
    at->link = on->transport == RELAYED && at->number == 0 ? via_make_link(at, &opts, &err)
                                                           : xc_link_new(&opts, at->in, at->out, &err);
    at->began = true;
    sim_look();
    if (at->link == NULL && !on->may_end) {
        sim_fail("no link: %s", err.step);
    }
    if (at->link == NULL && on->transport == RELAYED && at->number == 0) {
        return false;
    }
    if (at->link == NULL) {
        sim_kill(at->process, false);
    }
    if (on->window > 0) {
        xc_link_set_limit_of_new(at->link, on->window);
    }
    if (on->transport == MOVING) {
        offer(at);
    }
    if (on->silence[at->number] > 0) {
        xc_link_keepalive(at->link, on->silence[at->number], NULL, NULL);
    }
    return true;
}

static void
run_near_end(void *arg)
{
    side *at = arg;
    make_bell();
    if (make_link(at)) {
        if (at->on->transport != RELAYED) {
            xc_link_owns_peer(at->link);
            (void)start_beside(at, "reaper", run_reaper, at);
        }
        run_near(at);
        release_link(at);
    }
    if (at->on->transport == RELAYED) {
        via_finish(at);
    }
}

static void
run_worker_end(void *arg)
{
    side *at = arg;
    make_bell();
    (void)make_link(at);
    run_worker(at);
    at->on->worker_gone = true;
    sim_look();
    release_link(at);
    if (at->on->transport == RELAYED) {
        sim_kill(at->process, false);
    }
}

void
start_worker(connection *on)
{
    (void)sim_start(on->ends[1].process, "worker main", run_worker_end, &on->ends[1]);
}

void
start_ends(void)
{
    for (int i = 0; i < world.n_connections; i++) {
        connection *on = &world.connections[i];
        (void)sim_start(on->ends[0].process, "near main", run_near_end, &on->ends[0]);
        if (on->transport != RELAYED) {
            start_worker(on);
        }
    }
}
