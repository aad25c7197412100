/*
 * Whether to spin (check again and again) for a short while before going to sleep.
 *
 * On two idle CPUs spinning finds an answer in 2 us where a sleep and its wake-up take 100 us or more. Where other work
 * leaves the answering process only the CPU that we spin on, it is the other way round: 9 us asleep, 150 us spinning.
 * Nobody can know beforehand which case it is, so both ways are tried, and the better one is kept. Waits are timed. The
 * other way gets a short trial now and then, and at once when waits have become longer.
 *
 * Where answers take so long that the way of waiting does not matter, nobody spins: that would only take the CPU from
 * those who work on the answers. (Two far ends that tag and a near end, on two CPUs: 0.90 of their full speed if it
 * spins, 0.98 if it does not.)
 */
#ifndef XC_SPIN_H
#define XC_SPIN_H

#include "xc_sync.h"

/* How long to spin (ns): about as long as going to sleep and being woken takes, so never worse than twice the best
 * choice. */
#define XC_SPIN_NS INT64_C(60000)
/* At a ring. xc_ring_spin knows whether the far end can run while we spin, so no trials are needed. */
#define XC_SPIN_RING_NS INT64_C(100000)

typedef struct {
    bool asleep;         /* the present way: true: sleep at once, false: spin first */
    bool trial;          /* the present way is on trial */
    uint8_t longs;       /* long waits in a row; not counted beyond LONGS */
    uint32_t n;          /* waits since the present way came into use */
    uint32_t trial_at;   /* value of `n` at which the other way gets its trial */
    uint32_t next_trial; /* the next value of trial_at */
    int64_t mean;        /* ns, of recent short waits; 0: none yet */
    int64_t best;        /* ns, the lowest mean since the present way came into use */
    int64_t rival;       /* ns, the other way's mean when that was last in use */
} xc_spin;

/* How long to spin in the wait that begins now (ns); 0: not at all. A zeroed xc_spin is a new one. */
int64_t xc_spin_begin(const xc_spin *spin);
int64_t xc_spin_begin_ring(const xc_spin *spin);

/* A wait has ended after `ns`, whether or not it got what it waited for. */
void xc_spin_learn(xc_spin *spin, int64_t ns);

#endif
