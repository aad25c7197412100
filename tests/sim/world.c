/*
 * How a world is made by its seed, and what must hold in it while all sleep and at its end.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim_calls.h"
#include "world.h"

enum { RING = 4096, PAGE = 4096, KEPT = 1 /* the list of xc_forkfd.c */ };

#define QUIET (400 * XC_MS) /* all sleep for so long: then nothing was left for anybody to do */
#define STUCK (200 * XC_S)  /* nothing has got any further */

world_state world;

/* --- making it -------------------------------------------------------------------------------------------------- */

/* Two pages of indices, then two rings, each mapped twice; as in xc_region.c. The same for all worlds. */
static unsigned char *rings;

void
world_prepare(void)
{
    unsigned char *at = (unsigned char *)0x300000000000;
    int fd = memfd_create("sim", 0);
    bool mapped = fd >= 0 && ftruncate(fd, 2 * PAGE + 2 * RING) == 0;
    for (int i = 0; i < 5 && mapped; i++) {
        size_t n = i == 0 ? 2 * PAGE : RING;
        off_t from = i == 0 ? 0 : 2 * PAGE + (i - 1) / 2 * RING;
        unsigned char *where = i == 0 ? at : at + 2 * PAGE + (i - 1) * RING;
        mapped = mmap(where, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, from) == where;
    }
    if (!mapped) {
        sim_fail("no memory for rings");
    }
    rings = at;
}

static void
make_region(xc_region *out, int number)
{
    *out = (xc_region){.map = rings, .fd = -1};
    for (int direction = 0; direction < 2; direction++) {
        xc_ring_end *ends = (xc_ring_end *)(void *)(rings + direction * PAGE);
        bool writes = direction == number;
        *(writes ? &out->out : &out->in) = (xc_ring){
            .mine = writes ? &ends[0] : &ends[1],
            .other = writes ? &ends[1] : &ends[0],
            .data = rings + 2 * PAGE + direction * 2 * RING,
            .size = RING,
            .writes = writes,
            .notify_fd = -1,
        };
    }
}

static const uint32_t limits[] = {1, 100, 300, 1000, 3000};

static void
make_talk(talk *out, int number, size_t room, bool may_carry)
{
    *out = (talk){.number = number, .kind = sim_chance(8) ? STATUS : TASK};
    static const uint32_t counts[] = {1, 3, 8, 20, 20, 120};
    out->largest = sim_chance(4) ? XC_LONG_MIN + 2 * XC_PIECE_SIZE : sim_chance(2) ? XC_BIG + XC_INBUF : 200;
    out->largest = out->largest < 40 * room ? out->largest : (uint32_t)(40 * room);
    for (int direction = 0; direction < 2; direction++) {
        out->items[direction] = out->kind == STATUS ? 0
                                                    : sim_random(1 + counts[sim_random(room < 16             ? 2
                                                                                       : out->largest <= 200 ? 6
                                                                                                             : 4)]);
        out->senders[direction] = out->kind == STATUS ? 1 : 1 + sim_random(2);
        out->callback[direction] = out->kind == TASK && sim_chance(4);
    }
    out->closes_in_callback = sim_chance(8);
    talk *host = number > 0 ? &world.talks[number - 1] : NULL;
    if (out->kind == TASK && host != NULL && host->kind == TASK && may_carry && sim_chance(4)) {
        out->kind = CARRIED;
        out->not_asked = true;
        host->carries = out;
    }
    if (out->kind != STATUS && world.window > 0) {
        out->items[sim_random(2)] = 0;
        out->bound[UP] = out->bound[DOWN] = world.window;
    }
    else if (out->kind != STATUS && sim_chance(3)) {
        out->limit[sim_random(2)] = limits[sim_random(5)];
        out->limit_changes = sim_chance(4);
    }
}

static void
make_machine(void)
{
    static const int64_t ticks[] = {20, 200, 2000, 20000};
    static const uint32_t rates[] = {1, 2, 5, 20, 100};
    sim_the_machine = (sim_machine){
        .tick = ticks[sim_random(4)],
        .switches = rates[sim_random(5)],
        .cpus = 1 + sim_random(2),
        .shortens = sim_chance(2) ? 0 : 1 + sim_random(8),
        .interrupts = sim_chance(2) ? 0 : 20,
        .spurious = sim_chance(4) ? 8 : 0,
    };
}

static void
make_world(void)
{
    static const char *const names[] = {"near", "worker"};
    static const size_t rooms[] = {1, 16, 100, 700, 4096};
    int in[2], out[2];
    world = (world_state){.transport = sim_random(4), .not_offered = 2, .not_moved = 2, .last_progress = sim_now()};
    make_machine();
    size_t room = rooms[sim_random(5)];
    sim_connect(room, world.transport == BY_SOCKET, in, out, world.pipes);
    memset(rings, 0, 2 * PAGE);
    for (int i = 0; i < 2; i++) {
        side *at = &world.ends[i];
        at->number = i;
        at->process = sim_new_process(names[i]);
        at->in = in[i];
        at->out = out[i];
        sim_give_fd(in[i], at->process);
        sim_give_fd(out[i], at->process);
        make_region(&at->region, i);
    }
    world.window = sim_chance(8) ? limits[sim_random(5)] : 0;
    bool may_carry = !choose_fault();
    world.n_talks = 1 + (int)sim_random(TALKS);
    for (int i = 0; i < world.n_talks; i++) {
        make_talk(&world.talks[i], i, room, may_carry);
    }
    start_ends();
    start_faults();
}

void
world_run(uint64_t seed)
{
    sim_reset_files();
    sim_reset_processes();
    sim_reset_calls();
    sim_run(seed, make_world);
    for (int i = 0; i < 2; i++) {
        const sim_process *process = world.ends[i].process;
        if (sim_is_alive(process) && sim_blocks(process) > KEPT) {
            sim_fail("%s keeps %zu blocks of memory", sim_process_name(process), sim_blocks(process));
        }
        if (sim_is_alive(process) && sim_fds(process) > 0) {
            sim_fail("%s keeps %zu fds", sim_process_name(process), sim_fds(process));
        }
    }
    ledger_check_at_end();
}

/* --- while all sleep -------------------------------------------------------------------------------------------- */

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
    return !sim_is_stalled(other) && RING - xc_ring_filled(ring) >= RING / 4;
}

static bool
has_leftovers(const side *from)
{
    const xc_writer *writer = &from->link->writer;
    return !writer->closed && (writer->writing || xc_buf_size(&writer->flight) > 0 || xc_buf_size(&writer->outbox) > 0);
}

/* From one end to the other nothing waits that could move. True: nothing is on its way. */
static bool
check_stream(const side *from, const side *to, const sim_pipe *pipe, const sim_pipe *other)
{
    /* A stopped process may have moved bytes through a ring and not told of it. */
    bool stopped = sim_frozen_until(from->process) > sim_now() || sim_frozen_until(to->process) > sim_now();
    bool empty = is_up(to) && !sim_is_stalled(pipe) && !stopped;
    if (stopped) {
        return false;
    }
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
    if (is_up(from) && has_leftovers(from)) {
        empty = false;
        if (has_room(from, pipe, other)) {
            sim_fail("there is room, and nobody at %s writes", sim_process_name(from->process));
        }
    }
    return empty;
}

/* Whether that wait should be over, judging by the ledger and not by the core. */
static void
check_sleeper(const sim_thread *thread, const note *here, bool moved[2])
{
    const xc_link *link = here->at->link;
    int direction = here->at->number == 0 ? UP : DOWN;
    bool asleep = true;
    if ((int)here->kind < 0) {
        return; /* a sender: check_stream */
    }
    switch (here->kind) {
    case XC_WAIT_ITEM:
    case XC_WAIT_CLOSE:
        asleep = !link->end.fin && !(here->kind == XC_WAIT_ITEM && moved[direction] && !link->dispatch.running &&
                                     ledger_has_more(here->about, direction));
        break;
    case XC_WAIT_TASK:
        asleep = !link->end.fin &&
                 (!moved[DOWN] || link->dispatch.running || world.tasks_sent == world.tasks_taken || world.may_end);
        break;
    case XC_WAIT_CREDIT: { /* nothing is under way */
        const side *other = &world.ends[1 - here->at->number];
        asleep = !link->end.eof && !(moved[UP] && moved[DOWN] && is_up(other) && !other->link->dispatch.running &&
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

static void
check_bounds(const side *at)
{
    if (is_up(at) && (at->link->reader.n_longs > XC_LONG_COUNT || at->link->chans.n_carried > XC_CARRIED_MAX)) {
        sim_fail("%s holds more long messages or carried channels than it may", sim_process_name(at->process));
    }
}

void
sim_all_asleep(int64_t next)
{
    bool moved[2] = {false, false};
    if (next != SIM_NEVER && next < sim_now() + QUIET) {
        return;
    }
    for (int direction = 0; direction < 2; direction++) {
        if (world.ends[0].link != NULL && world.ends[1].link != NULL) {
            moved[direction] = check_stream(&world.ends[direction], &world.ends[1 - direction], world.pipes[direction],
                                            world.pipes[1 - direction]);
        }
    }
    for (sim_thread *thread = NULL; (thread = sim_next_thread(thread, SIM_ANY)) != NULL;) {
        const note *here = sim_note_of(thread);
        if (here != NULL && is_up(here->at)) {
            check_sleeper(thread, here, moved);
        }
    }
    check_bounds(&world.ends[0]);
    check_bounds(&world.ends[1]);
    if (sim_now() - world.last_progress > STUCK) {
        sim_fail("nothing goes on any more");
    }
}
