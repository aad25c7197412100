/*
 * What goes wrong in a world, at times that the seed chooses.
 */
#include "world.h"

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

void
start_faults(void)
{
    if (sim_chance(2)) {
        (void)sim_start(NULL, "signals", run_signals, NULL);
    }
}
