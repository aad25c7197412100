/*
 * The simulation: the core's own sources of src/core/link, wire and system, and xc_relay.c, run on a simulated machine,
 * in a world of two ends, or of three and four processes with relays, whose actors send, receive, close and say goodbye
 * while things go wrong. Who runs when, how long all takes and what goes wrong is decided by a seed, so each run can be
 * had again.
 *
 *   build/sim SEED            one run, and what happened in it if it fails
 *   build/sim FIRST COUNT     many runs, up to the first that fails
 *
 *   sim_threads.c    coroutines for threads, simulated time, chance
 *   sim_process.c    processes: each has static data of the core and memory of its own
 *   sim_calls.c      mutexes, clocks, futexes        } what the core calls of the C library: the linker
 *   sim_files.c, sim_poll.c   pipes, eventfd, epoll  } puts these in the place of the real ones
 *   points.h         makes each atomic access of the core a place where another thread may get the CPU
 *   world.c          the ends, made by chance; what must hold at the end
 *   asleep.c         what must hold while all sleep
 *   near.c, worker.c, ends.c  the actors
 *   via.c            those of a connection that goes through another one
 *   ops.c            what they do with the core is what src/py does
 *   ledger.c         which items were sent, and which have come
 *   faults.c         what goes wrong
 *   sizes.sed        makes the core's buffers and limits small, so that a run meets them
 *
 * A run fails if an item is lost, comes twice, out of order or changed; if somebody sleeps though there is something
 * for him; if a wait goes on after its deadline; if more is under way than a limit allows, or waits in between than the
 * window of a relay; if an end is not passed on; if the core breaks an assertion, or keeps memory or fds; if it does
 * not end.
 *
 * `make run` has 20000 seeds that are always the same and SEEDS=20000 new ones; `make run-mutants` takes lines out of
 * the core and looks whether 10000 seeds notice. With SIZES= the core's own sizes are used. A change of the world
 * changes what a seed means.
 *
 * What it cannot find: what only happens between two accesses that are not atomic and hold no mutex (the thread
 * sanitizer does), or with weaker memory than that of x86; what the simulated system calls do not do.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world.h"
#include "xc_trace.h"

enum { LINES = 65536, WIDTH = 120 };

void world_prepare(void);
void world_run(uint64_t seed);

static uint64_t seed;
static bool loud;
static char lines[LINES][WIDTH];
static unsigned n_lines;

void
sim_trace(const char *format, ...)
{
    va_list args;
    const sim_thread *thread = sim_self();
    if (!loud) {
        return;
    }
    char *line = lines[n_lines++ % LINES];
    int n =
        snprintf(line, WIDTH, "%12.6f ms %7u  %-6s %2d %-12s ", (double)(sim_now() - 1000000000) / 1e6, sim_points(),
                 sim_process_name(sim_own_process()), sim_thread_number(thread), sim_thread_name(thread));
    va_start(args, format);
    (void)vsnprintf(line + n, (size_t)(WIDTH - n), format, args);
    va_end(args);
}

static void
show_trace(void)
{
    for (unsigned i = n_lines > LINES ? n_lines - LINES : 0; i < n_lines; i++) {
        puts(lines[i % LINES]);
    }
}

static void
show_threads(void)
{
    for (sim_thread *thread = NULL; (thread = sim_next_thread(thread, SIM_ANY)) != NULL;) {
        const note *here = sim_note_of(thread);
        printf("  %2d %-12s %s", sim_thread_number(thread), sim_thread_name(thread),
               sim_is_asleep(thread) ? "asleep" : "ready");
        if (sim_is_asleep(thread) && sim_sleeps_until(thread) != SIM_NEVER) {
            printf(" until %.6f ms", (double)(sim_sleeps_until(thread) - 1000000000) / 1e6);
        }
        if (here != NULL) {
            printf(", waits: kind %d, talk %d", (int)here->kind, here->about != NULL ? here->about->number : -1);
        }
        putchar('\n');
    }
}

void
sim_fail(const char *format, ...)
{
    va_list args;
    show_trace();
    printf("seed %llu failed at %.6f ms, in %s: ", (unsigned long long)seed, (double)(sim_now() - 1000000000) / 1e6,
           sim_thread_name(sim_self()));
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    show_threads();
    ledger_show();
    fflush(stdout);
    _Exit(1);
}

int
main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    loud = argc == 2;
    atomic_init(&xc_trace_on, loud);
    sim_keep_static_data();
    world_prepare();
    for (seed = first; seed < first + count; seed++) {
        world_run(seed);
    }
    printf("%llu runs from seed %llu on\n", (unsigned long long)count, (unsigned long long)first);
    return 0;
}
