/*
 * What goes wrong in a world, at times that the seed chooses: one fault at most, and signals.
 */
#include "world.h"

#define SECOND XC_S

typedef enum {
    NO_FAULT,
    CUT,       /* the connection breaks */
    DEATH,     /* the worker is killed */
    ORPHANED,  /* the same, and another process has copies of its fds */
    MURDER,    /* the near end is killed */
    STALL,     /* nothing comes through for a while */
    FREEZE,    /* a process is stopped for a while */
    SILENCE,   /* the same for so long that keepalive ends the link */
    NO_MEMORY, /* some allocations fail */
    FAULTS,
} fault;

static fault chosen;
static connection *target; /* where it comes */

/* --- what others do then ------------------------------------------------------------------------------------------ */

static bool
is_worker_gone(const void *what)
{
    const connection *on = what;
    return on->worker_gone || !sim_is_alive(on->ends[1].process);
}

/* As who reaps the process would: tells the near end that the worker has ended. */
void
run_reaper(void *arg)
{
    side *at = arg;
    (void)sim_block(at->on, SIM_NEVER, false, is_worker_gone);
    if (sim_chance(2)) {
        sim_sleep(sim_random(20000000));
    }
    xc_link_peer_gone(at->link);
    leave(at);
}

static void
on_sigint(sim_process *process)
{
    for (int i = 0; i < world.n_connections; i++) {
        side *at = &world.connections[i].ends[1];
        at->interrupted = at->interrupted || at->process == process;
    }
    for (sim_thread *thread = NULL; (thread = sim_next_thread(thread, process)) != NULL;) {
        sim_interrupt(thread);
    }
}

/* --- faults ------------------------------------------------------------------------------------------------------- */

/* A fault of the first connection is one of those that go through it, too. */
static void
declare_on(connection *on, const char *what)
{
    sim_trace("fault of connection %d: %s", on->number, what);
    for (int i = 0; i < world.n_connections; i++) {
        connection *hit = &world.connections[i];
        if (hit == on || on->number == 0) {
            hit->may_end = hit->faulty = true;
        }
    }
}

static void
declare(const char *what)
{
    declare_on(target, what);
}

/* One of the two; that at the near end is a process of all connections. */
static sim_process *
choose_process(void)
{
    side *at = &target->ends[sim_random(2)];
    target = at->number == 0 ? &world.connections[0] : target;
    return at->process;
}

static void
end_worker(bool keeps_fds)
{
    declare(keeps_fds ? "the worker is killed, another process keeps its fds" : "the worker is killed");
    sim_kill(target->ends[1].process, keeps_fds);
}

static void
stop_for_a_while(sim_process *process, int64_t span)
{
    if (sim_is_alive(process)) {
        sim_freeze(process, sim_now() + span);
        sim_sleep(span);
        sim_freeze(process, 0);
    }
}

static void
stall_for_a_while(int64_t span)
{
    sim_pipe *pipe = sim_chance(2) ? target->pipes[UP] : target->last_pipes[DOWN]; /* at its worker */
    if (pipe == NULL) {
        return;
    }
    sim_stall(pipe, true);
    sim_sleep(span);
    sim_stall(pipe, false);
}

static void
cut(void)
{
    uint32_t which = target->transport == BY_SOCKET ? 2 : sim_random(3);
    sim_pipe *pipes[2] = {target->last_pipes[DOWN], target->pipes[UP]}; /* at its worker */
    declare("the connection is cut");
    for (uint32_t i = 0; i < 2; i++) {
        if ((which == i || which == 2) && pipes[i] != NULL) {
            sim_cut(pipes[i], sim_random(100));
        }
    }
}

static void
run_fault(void *arg)
{
    const fault *what = arg;
    sim_process *process;
    sim_sleep(sim_random(sim_chance(2) ? 2000000 : 60000000));
    switch (*what) {
    case CUT:
        cut();
        break;
    case DEATH:
        end_worker(false);
        break;
    case ORPHANED:
        end_worker(true);
        break;
    case MURDER:
        target = &world.connections[0];
        declare("the near end is killed");
        sim_kill(target->ends[0].process, false);
        break;
    case STALL:
        stall_for_a_while(sim_random(2000000000));
        break;
    case FREEZE:
        stop_for_a_while(choose_process(), sim_random(2000000000));
        break;
    case SILENCE:
        if (sim_chance(2)) {
            sim_process *process = choose_process();
            declare("silence");
            stop_for_a_while(process, 20 * SECOND);
        }
        else {
            declare("silence");
            stall_for_a_while(20 * SECOND);
        }
        break;
    case NO_MEMORY:
        process = choose_process();
        declare("some allocations fail");
        sim_fail_allocations(process, sim_random(40), 1 + sim_random(3));
        break;
    default:
        break;
    }
}

/* Signals, and wake-ups without a reason. */
static void
run_signals(void *arg)
{
    (void)arg;
    for (uint32_t n = sim_random(40); n > 0; n--) {
        sim_sleep(sim_random(3000000));
        sim_thread *thread = NULL;
        for (uint32_t skip = sim_random(24); skip > 0; skip--) {
            thread = sim_next_thread(thread, SIM_ANY);
        }
        if (thread != NULL && sim_note_of(thread) != NULL) {
            sim_interrupt(thread);
        }
    }
}

/* A task for which there is no memory is refused, and nobody can say that for the channels that it brings. */
bool
choose_fault(void)
{
    chosen = sim_chance(2) ? NO_FAULT : 1 + sim_random(FAULTS - 1);
    target = &world.connections[sim_random((uint32_t)world.n_connections)];
    return chosen == NO_MEMORY;
}

void
start_faults(void)
{
    fault *what = &chosen;
    if (*what != NO_FAULT) {
        (void)sim_start(NULL, "fault", run_fault, what);
    }
    if (*what == SILENCE || sim_chance(8)) { /* a side that nobody stops hears of the other in time */
        target->silence[sim_random(2)] = 10 * SECOND;
    }
    if (sim_chance(2)) {
        (void)sim_start(NULL, "signals", run_signals, NULL);
    }
    for (int i = 0; i < world.n_connections; i++) {
        sim_on_sigint(world.connections[i].ends[1].process, on_sigint);
    }
}
