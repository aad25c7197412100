/*
 * What must hold while all sleep: whoever could go on does, and what could move has moved.
 */
#include "world.h"
#include "xc_relay.h"

#define QUIET (400 * XC_MS) /* all sleep for so long: then nothing was left for anybody to do */
#define STUCK (200 * XC_S)  /* nothing has got any further */

static bool
is_up(const side *at)
{
    return at->link != NULL && sim_is_alive(at->process) && sim_frozen_until(at->process) <= sim_now();
}

/* Bytes that `to` could read. */
static size_t
unread_by(const side *to, const sim_pipe *pipe)
{
    return to->link->incoming.ring != NULL ? xc_ring_filled(to->link->incoming.ring) : sim_unread(pipe);
}

/* Of room in a ring one is notified through the other pipe. */
static bool
has_room(const side *from, const sim_pipe *pipe, const sim_pipe *other)
{
    const xc_ring *ring = from->link->outgoing.ring;
    if (ring == NULL) {
        return sim_has_room(pipe);
    }
    return !sim_is_stalled(other) &&
           (atomic_load(&ring->other->closed) != 0 || RING - xc_ring_filled(ring) >= RING / 4);
}

static bool
has_leftovers(const side *from)
{
    const xc_writer *writer = &from->link->writer;
    return !writer->closed && (writer->writing || xc_buf_size(&writer->flight) > 0 || xc_buf_size(&writer->outbox) > 0);
}

static bool
is_stopped(const sim_process *process)
{
    return sim_frozen_until(process) > sim_now();
}

/* That end has read all that it can. True: nothing is on its way there. */
static bool
check_reader(const side *to, const sim_pipe *pipe)
{
    if (is_up(to) && !to->link->end.eof && !sim_is_stalled(pipe)) {
        if (unread_by(to, pipe) > 0) {
            sim_fail("%zu bytes are there, and nobody at %s reads them", unread_by(to, pipe),
                     sim_process_name(to->process));
        }
        if (!sim_has_writer(pipe)) {
            sim_fail("%s has not noticed that its far end is gone", sim_process_name(to->process));
        }
        if (atomic_load(&to->link->end.peer_gone)) {
            sim_fail("%s was told that its far end is gone, and goes on", sim_process_name(to->process));
        }
    }
    return is_up(to) && !sim_is_stalled(pipe);
}

/* That end has written all that it can. True: nothing is left there. */
static bool
check_writer(const side *from, const sim_pipe *pipe, const sim_pipe *other)
{
    if (!is_up(from) || !has_leftovers(from)) {
        return true;
    }
    if (has_room(from, pipe, other)) {
        sim_fail("there is room, and nobody at %s writes", sim_process_name(from->process));
    }
    return false;
}

/* From one end to the other nothing waits that could move. True: nothing is on its way. */
static bool
check_stream(const side *from, const side *to, const sim_pipe *pipe, const sim_pipe *other)
{
    /* A stopped process may have moved bytes through a ring and not told of it. */
    if (is_stopped(from->process) || is_stopped(to->process)) {
        return false;
    }
    bool empty = check_reader(to, pipe);
    return check_writer(from, pipe, other) && empty;
}

/* --- relays ------------------------------------------------------------------------------------------------------ */

/* That end of the first connection lives, and has its part of the relay. */
static bool
relays(const side *at)
{
    return is_up(at) && !at->link->end.eof && !at->link->goodbye.leaves;
}

/* Its link has ended: then its part of a relay has ended, too. */
static bool
relays_no_more(const side *at)
{
    return sim_is_alive(at->process) && !is_stopped(at->process) && at->link == NULL &&
           (at->number == 0 ? at->leaves : at->on->worker_gone);
}

/* One direction of a relayed connection, between the two parts of the relay: `first` reads `in`, `second` writes `out`.
 * True: nothing is on its way there. */
static bool
check_relay(const connection *on, int direction, bool moved)
{
    const connection *outer = &world.connections[0];
    const side *first = &outer->ends[direction], *second = &outer->ends[1 - direction];
    const sim_pipe *in = on->pipes[direction], *out = on->last_pipes[direction];
    if (relays_no_more(first) && sim_has_reader(in)) {
        sim_fail("connection %d has ended, and %s still reads for it", on->number, sim_process_name(first->process));
    }
    if (relays_no_more(second) && sim_has_writer(out) && sim_has_room(out)) {
        sim_fail("connection %d has ended, and %s does not say so", on->number, sim_process_name(second->process));
    }
    if (!relays(first) || !relays(second) || !moved || sim_is_stalled(in) || !sim_has_reader(out) ||
        !sim_has_writer(out)) {
        return false;
    }
    uint64_t between = sim_read(in) - sim_written(out);
    bool over = !sim_has_writer(in) || (direction == UP && !sim_is_alive(on->ends[1].process));
    if (between > 0 && sim_has_room(out)) {
        sim_fail("%llu bytes for connection %d stay in %s", (unsigned long long)between, on->number,
                 sim_process_name(second->process));
    }
    if (between == 0 && sim_unread(in) > 0) {
        sim_fail("%zu bytes of connection %d are there, and %s does not read them", sim_unread(in), on->number,
                 sim_process_name(first->process));
    }
    if (between == 0 && over) {
        sim_fail("connection %d has an end that %s does not pass on", on->number, sim_process_name(second->process));
    }
    return between == 0;
}

/* No more waits in between than the window allows, while credits come. */
static void
check_window(const connection *on, int direction)
{
    const side *ends = world.connections[0].ends;
    const sim_pipe *in = on->pipes[direction], *out = on->last_pipes[direction];
    if (!on->faulty && in != NULL && out != NULL && relays(&ends[0]) && relays(&ends[1]) && sim_has_reader(out) &&
        sim_has_writer(out) && sim_read(in) > sim_written(out) + XC_RELAY_WINDOW) {
        sim_fail("more bytes of connection %d wait in between than the window allows", on->number);
    }
}

/* --- ends --------------------------------------------------------------------------------------------------------- */

static bool
has_ended(const connection *on)
{
    return on->started && !sim_is_alive(on->ends[1].process);
}

/* Whether that wait should be over, judging by the ledger and not by the core. */
static void
check_sleeper(const sim_thread *thread, const note *here, bool moved[2])
{
    const xc_link *link = here->at->link;
    const connection *on = here->at->on;
    int direction = here->at->number == 0 ? UP : DOWN;
    bool asleep = true;
    if ((int)here->kind < 0) {
        return; /* a sender: check_stream */
    }
    switch (here->kind) {
    case XC_WAIT_ITEM:
    case XC_WAIT_CLOSE:
        asleep = !link->end.fin &&
                 !(here->kind == XC_WAIT_ITEM && here->about != NULL && moved[direction] && !link->dispatch.running &&
                   ledger_has_more(here->about, direction)) &&
                 !(here->through != NULL && moved[direction] && !link->dispatch.running &&
                   (here->kind == XC_WAIT_ITEM ? has_ended(here->through) : here->through->start_over));
        break;
    case XC_WAIT_TASK:
        asleep = !link->end.fin && (!moved[DOWN] || link->dispatch.running || on->tasks_sent == on->tasks_taken ||
                                    on->may_end || (on->main_only && link->tasks.queue.head == NULL));
        break;
    case XC_WAIT_CREDIT: { /* nothing is under way */
        const side *other = &on->ends[1 - here->at->number];
        asleep = !link->end.eof && !here->at->leaves &&
                 !(moved[UP] && moved[DOWN] && is_up(other) && here->about->closing[other->number]) &&
                 !(moved[UP] && moved[DOWN] && is_up(other) && !other->link->dispatch.running &&
                   !ledger_has_more(here->about, 1 - direction));
        break;
    }
    case XC_WAIT_BACKLOG:
        asleep = link->dispatch.running || (link->dispatch.backlog.head == NULL && !link->end.fin);
        break;
    case XC_WAIT_DISPATCH:
        asleep = link->dispatch.running;
        break;
    case XC_WAIT_GONE:
        asleep = !atomic_load(&link->end.peer_gone);
        break;
    case XC_WAIT_IDLE:
        asleep = link->tasks.executing > 0;
        break;
    case XC_WAIT_TASK_SPARE: /* it leaves a task to the main thread, which may be slow to take it */
        asleep = !link->end.fin || link->tasks.queue.head != NULL;
        break;
    case XC_WAIT_FIN:
    case XC_WAIT_HELLO:
        asleep = !link->end.fin;
        break;
    }
    if (!asleep) {
        sim_fail("%s sleeps, and what it waits for (kind %d, talk %d) is there", sim_thread_name(thread), here->kind,
                 here->about != NULL ? here->about->number : -1);
    }
}

/* After a goodbye none but the frame that has the writer role may still wait. */
static void
check_refused(const side *at, int senders)
{
    if (at->leaves && is_up(at) && senders > 1) {
        sim_fail("%d senders sleep at %s, which has said goodbye", senders, sim_process_name(at->process));
    }
}

static void
check_bounds(const side *at)
{
    if (is_up(at) && (at->link->reader.n_longs > XC_LONG_COUNT || at->link->chans.n_carried > XC_CARRIED_MAX)) {
        sim_fail("%s holds more long messages or carried channels than it may", sim_process_name(at->process));
    }
}

/* moved[direction]: nothing is on its way. */
static void
check_connection(connection *on, bool moved[2], const bool outer_moved[2])
{
    for (int direction = 0; direction < 2; direction++) {
        const side *from = &on->ends[direction], *to = &on->ends[1 - direction];
        const sim_pipe *in = on->pipes[direction], *out = on->last_pipes[direction];
        if (on->transport != RELAYED) {
            moved[direction] =
                from->link != NULL && to->link != NULL && check_stream(from, to, in, on->pipes[1 - direction]);
            continue;
        }
        bool all = in != NULL && out != NULL && check_relay(on, direction, outer_moved[DOWN] && outer_moved[UP]);
        all = (out == NULL || check_reader(to, out)) && all;
        moved[direction] = (in == NULL || check_writer(from, in, in)) && all && !is_stopped(from->process);
    }
}

/* A task does not wait for the main thread for longer than a second. */
static void
check_refusals(connection *on)
{
    const side *at = &on->ends[1];
    const xc_tasks *tasks = is_up(at) ? &at->link->tasks : NULL;
    bool waits = on->main_only && tasks != NULL && !at->link->end.eof && tasks->queue.head != NULL &&
                 tasks->executing > tasks->queue.count;
    if (!waits || tasks->queue.head != on->first) {
        on->first = waits ? tasks->queue.head : NULL;
        on->since = sim_now();
    }
    else if (sim_now() > on->since + XC_S + 10 * XC_MS) {
        sim_fail("a task waits for %s, and is not refused", sim_process_name(at->process));
    }
}

void
sim_all_asleep(int64_t next)
{
    bool moved[CONNECTIONS][2] = {{false}};
    int senders[CONNECTIONS][2] = {{0}};
    for (int i = 1; i < world.n_connections; i++) {
        check_window(&world.connections[i], DOWN);
        check_window(&world.connections[i], UP);
    }
    for (int i = 0; i < world.n_connections; i++) {
        check_refusals(&world.connections[i]);
    }
    if (sim_now() - world.last_progress > STUCK) {
        sim_fail("nothing goes on any more");
    }
    if (next != SIM_NEVER && next < sim_now() + QUIET) {
        return;
    }
    for (int i = 0; i < world.n_connections; i++) {
        check_connection(&world.connections[i], moved[i], moved[0]);
        check_bounds(&world.connections[i].ends[0]);
        check_bounds(&world.connections[i].ends[1]);
    }
    for (sim_thread *thread = NULL; (thread = sim_next_thread(thread, SIM_ANY)) != NULL;) {
        const note *here = sim_note_of(thread);
        if (here != NULL && is_up(here->at)) {
            check_sleeper(thread, here, moved[here->at->on->number]);
            senders[here->at->on->number][here->at->number] += (int)here->kind < 0;
        }
    }
    for (int i = 0; i < world.n_connections; i++) {
        check_refused(&world.connections[i].ends[0], senders[i][0]);
        check_refused(&world.connections[i].ends[1], senders[i][1]);
    }
}
