/*
 * Whether to spin (poll again and again) for a short while before going to sleep.
 *
 * On two idle CPUs spinning finds an answer in 2 us where a sleep and its wake-up take 100 and more. Where the
 * answering process needs the very CPU that we spin on, because other work has the rest, it is the other way round: 9
 * us asleep, 150 spinning. Nothing tells which of the two it is beforehand, so both are tried and the better one is
 * kept: waits are timed, the other way gets a short trial now and then, and soon after waits have become longer.
 *
 * Where answers take so long that no way of waiting matters, nobody spins: it would only take the CPU from those that
 * work on them (two far ends that tag, and a near end, on two CPUs: 0.90 of their speed so, 0.98 otherwise).
 */
#ifndef XC_SPIN_H
#define XC_SPIN_H

#include "xc_sync.h"

/* How long to spin (ns): about what going to sleep and being woken costs, so never worse than twice the best choice. */
#define XC_SPIN_NS INT64_C(60000)
/* At a ring, of which xc_ring_spin knows whether the far end runs while we spin: no trials. */
#define XC_SPIN_RING_NS INT64_C(100000)

typedef struct {
    bool asleep;         /* the way that is in use: sleep at once */
    bool trial;          /* it is on trial */
    uint8_t longs;       /* long waits in a row, up to as many as matter */
    uint32_t n;          /* waits since it came into use */
    uint32_t trial_at;   /* n at which the other way gets its trial */
    uint32_t next_trial; /* trial_at of the next round */
    int64_t mean;        /* ns, of recent short waits; 0: none yet */
    int64_t best;        /* ns, the lowest mean since it came into use */
    int64_t rival;       /* ns, mean of the other way when it was last in use */
} xc_spin;

/* How long to spin in the wait that begins now (ns); 0: not at all. A zeroed xc_spin is a new one. */
int64_t xc_spin_begin(const xc_spin *spin);
int64_t xc_spin_begin_ring(const xc_spin *spin);

/* That wait ended with what it waited for, or without it, after `ns`. */
void xc_spin_learn(xc_spin *spin, int64_t ns);

#endif
