#include "xc_spin.h"

enum {
    TRIAL = 16,  /* waits of a trial; the first half does not count: threads may still be moved between CPUs */
    SOON = 64,   /* waits until the next trial after a change */
    LATE = 4096, /* ... at most, when changes did not help */
    WEIGHT = 8,  /* weight of the past in the mean */
    ALARM = 3,   /* a mean so many times the best one: something has changed */
    LONGS = 4,   /* long waits in a row after which nobody spins until one was short */
};

/* A longer wait (ns) means that the far end was working: it says nothing about the way of waiting. In a shorter one
 * both sides may have had to be woken. */
#define SHORT_WAIT (XC_MS / 2)

static bool
is_useless(const xc_spin *spin)
{
    return spin->longs >= LONGS || xc_cpu_count() < 2;
}

int64_t
xc_spin_begin(const xc_spin *spin)
{
    return spin->asleep || is_useless(spin) ? 0 : XC_SPIN_NS;
}

int64_t
xc_spin_begin_ring(const xc_spin *spin)
{
    return is_useless(spin) ? 0 : XC_SPIN_RING_NS;
}

static void
change_way(xc_spin *spin, bool trial)
{
    int64_t mean = spin->mean;
    spin->asleep = !spin->asleep;
    spin->trial = trial;
    spin->n = 0;
    spin->mean = spin->best = 0;
    spin->rival = mean;
    spin->trial_at = spin->next_trial;
}

static void
judge_trial(xc_spin *spin)
{
    if (spin->mean < spin->rival) {
        spin->trial = false;
        spin->next_trial = spin->trial_at = SOON;
        return;
    }
    int64_t rival = spin->rival;
    spin->next_trial = spin->next_trial * 2 < LATE ? spin->next_trial * 2 : LATE;
    change_way(spin, false);
    spin->mean = spin->best = rival;
}

void
xc_spin_learn(xc_spin *spin, int64_t ns)
{
    XC_ASSERT(ns >= 0);
    if (ns > SHORT_WAIT) {
        spin->longs += spin->longs < LONGS;
        return;
    }
    spin->longs = 0;
    if (spin->next_trial == 0) {
        spin->next_trial = spin->trial_at = SOON;
    }
    spin->n++;
    if (spin->trial && spin->n <= TRIAL / 2) {
        return;
    }
    spin->mean = spin->mean == 0 ? ns : spin->mean + (ns - spin->mean) / WEIGHT;
    if (spin->trial) {
        if (spin->n >= TRIAL) {
            judge_trial(spin);
        }
        return;
    }
    if (spin->n >= WEIGHT && (spin->best == 0 || spin->mean < spin->best)) {
        spin->best = spin->mean;
    }
    if (spin->best != 0 && spin->mean > spin->best * ALARM && spin->n < spin->trial_at) {
        spin->next_trial = SOON;
        spin->trial_at = spin->n;
    }
    if (spin->n >= spin->trial_at) {
        change_way(spin, true);
    }
}
