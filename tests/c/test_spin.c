/*
 * Look or sleep: the state machine with waits that are made up. What a wait costs depends on the way in use, as on a
 * machine; the test counts how often each way is used.
 */
#include <sched.h>

#include "check.h"
#include "xc_spin.h"

#define US INT64_C(1000)

/* Runs n waits; how many of them were spent asleep. */
static int
run(xc_spin *spin, int n, int64_t spinning, int64_t asleep)
{
    int slept = 0;
    for (int i = 0; i < n; i++) {
        slept += spin->asleep;
        xc_spin_learn(spin, spin->asleep ? asleep : spinning);
    }
    return slept;
}

/* Cheap spinning: all but the trials is spent spinning, and the trials become rare. */
static void
keeps_spinning(void)
{
    xc_spin spin = {.asleep = false};
    int early = run(&spin, 10000, 2 * US, 100 * US);
    int late = run(&spin, 100000, 2 * US, 100 * US);
    CHECK(early > 0 && early < 10000 / 10);
    CHECK(late > 0 && late < 100000 / 100);
    CHECK(!spin.asleep || spin.trial);
}

/* Dear spinning: after the first trial it sleeps. */
static void
goes_to_sleep(void)
{
    xc_spin spin = {.asleep = false};
    int first = run(&spin, 500, 150 * US, 9 * US);
    CHECK(first > 300);
    CHECK(run(&spin, 100000, 150 * US, 9 * US) > 99000);
    CHECK(spin.asleep || spin.trial);
}

/* The machine becomes busy, then idle again: each time it finds the better way soon, not after the late trial only. */
static void
follows_a_change(void)
{
    xc_spin spin = {.asleep = false};
    (void)run(&spin, 50000, 2 * US, 100 * US);
    CHECK(run(&spin, 5000, 150 * US, 9 * US) > 4500);
    (void)run(&spin, 50000, 150 * US, 9 * US);
    CHECK(run(&spin, 5000, 2 * US, 100 * US) < 500);
    for (int i = 0; i < 20; i++) {
        CHECK(run(&spin, 5000, 150 * US, 9 * US) > 4000);
        CHECK(run(&spin, 5000, 2 * US, 100 * US) < 1000);
    }
}

/* A change that does not make the waits longer is found too, with the next trial. */
static void
finds_what_became_better(void)
{
    xc_spin spin = {.asleep = false};
    (void)run(&spin, 20000, 20 * US, 100 * US);
    (void)run(&spin, 10000, 20 * US, 5 * US);
    CHECK(run(&spin, 20000, 20 * US, 5 * US) > 19000);
}

/* Long waits tell nothing about the machine: the far end was working. */
static void
long_waits_do_not_count(void)
{
    xc_spin spin = {.asleep = false}, before;
    (void)run(&spin, 1000, 2 * US, 100 * US);
    before = spin;
    (void)run(&spin, 10000, 2 * XC_MS, 2 * XC_MS);
    before.longs = spin.longs;
    CHECK(memcmp(&spin, &before, sizeof spin) == 0);
}

/* After some of them nobody spins, at a ring neither, until one was short. */
static void
spins_for_what_comes_soon(void)
{
    xc_spin spin = {.asleep = false};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 3; k++) {
            CHECK_INT(xc_spin_begin_ring(&spin), XC_SPIN_RING_NS);
            xc_spin_learn(&spin, XC_MS);
        }
        CHECK_INT(xc_spin_begin(&spin), XC_SPIN_NS);
        xc_spin_learn(&spin, XC_FOREVER);
        CHECK_INT(xc_spin_begin(&spin), 0);
        CHECK_INT(xc_spin_begin_ring(&spin), 0);
        for (int k = 0; k < 1000; k++) {
            xc_spin_learn(&spin, XC_MS);
        }
        CHECK_INT(xc_spin_begin_ring(&spin), 0);
        xc_spin_learn(&spin, 200 * US); /* both sides asleep */
    }
    CHECK_INT(xc_spin_begin(&spin), XC_SPIN_NS);
}

/* Waits of any length in any order keep it within its bounds. */
static void
survives_anything(void)
{
    static const int64_t odd[] = {0, 1, 7, 999999, 1000000, 1000001, INT64_MAX, 60000, 3, 500};
    xc_spin spin = {.asleep = false};
    unsigned seed = 5;
    int slept = 0;
    for (int i = 0; i < 200000; i++) {
        int64_t ns = odd[(size_t)rand_r(&seed) % 10];
        xc_spin_learn(&spin, ns);
        slept += spin.asleep;
        CHECK(spin.mean >= 0 && spin.best >= 0 && spin.rival >= 0);
        CHECK(spin.trial_at <= 8192 && spin.next_trial <= 8192);
        int64_t spins_for = xc_spin_begin(&spin);
        CHECK(spins_for == 0 || (spins_for == XC_SPIN_NS && !spin.asleep));
    }
    CHECK(slept > 0 && slept < 200000);
}

#if defined(__linux__)
static void
with_one_cpu(void)
{
    cpu_set_t one;
    xc_spin spin = {.asleep = false};
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        return; /* not allowed here */
    }
    CHECK_INT(xc_spin_begin(&spin), 0);
    CHECK_INT(xc_spin_begin_ring(&spin), 0);
}
#endif

/* Where there is nobody to wait for, nobody spins. */
static void
not_with_one_cpu(void)
{
#if defined(__linux__)
    CHECK_INT(check_in_child(with_one_cpu), 0);
#endif
    xc_spin spin = {.asleep = true};
    CHECK_INT(xc_spin_begin(&spin), 0);
}

int
main(void)
{
    check_begin("spin", 30);
    RUN(not_with_one_cpu);
    RUN(keeps_spinning);
    RUN(goes_to_sleep);
    RUN(follows_a_change);
    RUN(finds_what_became_better);
    RUN(long_waits_do_not_count);
    RUN(spins_for_what_comes_soon);
    RUN(survives_anything);
    return check_end();
}
