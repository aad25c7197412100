/*
 * How a world is made by its seed, and what must hold at its end.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim_calls.h"
#include "world.h"

enum { PAGE = 4096, KEPT = 1 /* the list of xc_forkfd.c */ };

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
make_talk(connection *on, int number)
{
    talk *out = &on->talks[number];
    size_t room = sim_the_machine.room;
    *out = (talk){.on = on, .number = number, .kind = sim_chance(8) ? STATUS : TASK};
    static const uint32_t counts[] = {1, 3, 8, 20, 20, 120};
    out->largest = on->long_ones || sim_chance(4) ? XC_LONG_MIN + 2 * XC_PIECE_SIZE
                   : sim_chance(2)                ? XC_BIG + XC_INBUF
                                                  : 200;
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
    talk *host = number > 0 ? &on->talks[number - 1] : NULL;
    if (out->kind == TASK && host != NULL && host->kind == TASK && world.may_carry && sim_chance(4)) {
        out->kind = CARRIED;
        out->not_asked = true;
        host->carries = out;
    }
    if (out->kind != STATUS && on->window > 0) {
        out->items[sim_random(2)] = 0;
        out->bound[UP] = out->bound[DOWN] = on->window;
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
    static const size_t rooms[] = {1, 16, 100, 700, 4096};
    sim_the_machine = (sim_machine){
        .tick = ticks[sim_random(4)],
        .switches = rates[sim_random(5)],
        .room = world.n_connections == 1 ? rooms[sim_random(5)] : rooms[2 + sim_random(3)], /* a relay's way is long */
        .cpus = 1 + sim_random(2),
        .shortens = sim_chance(2) ? 0 : 1 + sim_random(8),
        .interrupts = sim_chance(2) ? 0 : 20,
        .spurious = sim_chance(4) ? 8 : 0,
    };
}

/* Its worker is that process; of a relayed one it starts later. */
static void
make_connection(connection *on, sim_process *near, sim_process *far, int transport)
{
    int in[2], out[2];
    *on = (connection){.number = (int)(on - world.connections),
                       .transport = transport,
                       .not_offered = 2,
                       .not_moved = 2,
                       .unfinished = true,
                       .window = sim_chance(8) ? limits[sim_random(5)] : 0};
    if (transport != RELAYED) {
        sim_connect(sim_the_machine.room, transport == BY_SOCKET, in, out, on->pipes);
    }
    for (int i = 0; i < 2; i++) {
        side *at = &on->ends[i];
        *at = (side){.on = on, .number = i, .process = i == 0 ? near : far, .in = -1, .out = -1};
        on->last_pipes[i] = on->pipes[i];
        if (transport != RELAYED) {
            sim_give_fd(at->in = in[i], at->process, true);
            sim_give_fd(at->out = out[i], at->process, true);
            make_region(&at->region, i);
        }
    }
}

static void
make_world(void)
{
    static const char *const names[] = {"near", "worker", "behind", "beside"};
    sim_process *processes[CONNECTIONS + 1];
    world.last_progress = sim_now();
    world.n_connections = sim_chance(4) ? 2 + (int)sim_random(CONNECTIONS - 1) : 1;
    make_machine();
    memset(rings, 0, 2 * PAGE);
    for (int i = 0; i <= world.n_connections; i++) {
        processes[i] = sim_new_process(names[i]);
    }
    for (int i = 0; i < world.n_connections; i++) {
        make_connection(&world.connections[i], processes[0], processes[i + 1], i == 0 ? (int)sim_random(4) : RELAYED);
    }
    world.may_carry = !choose_fault();
    world.callbacks_send = (int)sim_random(2);
    for (int i = 0; i < world.n_connections; i++) {
        connection *on = &world.connections[i];
        on->long_ones = sim_chance(8);
        on->main_only = (i > 0 || world.n_connections == 1) && sim_chance(8);
        on->n_talks = 1 + (int)sim_random(world.n_connections == 1 ? TALKS : 2);
        on->callers = on->n_talks + (i == 0 ? world.n_connections - 1 : 0);
        for (int k = 0; k < on->n_talks; k++) {
            make_talk(on, k);
        }
    }
    start_ends();
    start_faults();
}

static void
check_leftovers(const sim_process *process)
{
    if (sim_is_alive(process) && sim_blocks(process) > KEPT) {
        sim_fail("%s keeps %zu blocks of memory", sim_process_name(process), sim_blocks(process));
    }
    if (sim_is_alive(process) && sim_fds(process) > 0) {
        sim_fail("%s keeps %zu fds", sim_process_name(process), sim_fds(process));
    }
}

void
world_run(uint64_t seed)
{
    sim_reset_files();
    sim_reset_processes();
    sim_reset_calls();
    sim_run(seed, make_world);
    for (int i = 0; i < world.n_connections; i++) {
        check_leftovers(world.connections[i].ends[0].process);
        check_leftovers(world.connections[i].ends[1].process);
    }
}
