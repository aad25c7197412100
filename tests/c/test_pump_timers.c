/*
 * Jobs and timers of the pump: in order, in time, and set again from where they run.
 */
#include "pump_rig.h"
#include "xc_poller.h"

/* --- jobs ----------------------------------------------------------------------------------------------------- */

enum { JOBS = 100 };

static struct {
    xc_job jobs[JOBS];
    int order[JOBS];
    atomic_int ran;
} work;

static void
note_job(xc_job *job)
{
    work.order[atomic_load(&work.ran)] = (int)(job - work.jobs);
    atomic_fetch_add(&work.ran, 1);
}

/* A job may post the next one. */
static void
post_next(xc_job *job)
{
    int at = (int)(job - work.jobs);
    note_job(job);
    if (at + 1 < JOBS) {
        xc_pump_post(&work.jobs[at + 1]);
    }
}

static void
jobs_run_in_order(void)
{
    atomic_store(&work.ran, 0);
    join();
    for (int i = 0; i < JOBS; i++) {
        work.jobs[i] = (xc_job){.run = note_job};
        xc_pump_post(&work.jobs[i]);
    }
    await(&work.ran, JOBS);
    for (int i = 0; i < JOBS; i++) {
        CHECK_INT(work.order[i], i);
    }
    atomic_store(&work.ran, 0);
    for (int i = 0; i < JOBS; i++) {
        work.jobs[i].run = post_next;
    }
    xc_pump_post(&work.jobs[0]);
    await(&work.ran, JOBS);
    for (int i = 0; i < JOBS; i++) {
        CHECK_INT(work.order[i], i);
    }
    xc_pump_leave();
}

/* --- timers --------------------------------------------------------------------------------------------------- */

static void
timers_fire_in_time(void)
{
    static struct alarm_clock clocks[20];
    join();
    for (int i = 0; i < 20; i++) {
        set_clock(&clocks[i], i * 7 % 20 * 5);
    }
    for (int i = 0; i < 20; i++) {
        await(&clocks[i].times, 1);
    }
    for (int i = 0; i < 20; i++) {
        CHECK_INT(atomic_load(&clocks[i].times), 1);
    }
    set_clock(&clocks[0], 0);
    clocks[1].again = 3;
    await(&clocks[0].times, 1);
    xc_pump_leave();
}

static void
a_timer_may_set_itself_again(void)
{
    static struct alarm_clock clock;
    clock = (struct alarm_clock){.timer = {.fire = note_timer, .owner = &clock}, .again = 4};
    join();
    clock.due = xc_now();
    xc_pump_set(&clock.timer, clock.due);
    await(&clock.times, 5);
    xc_pump_leave();
}

/* An earlier time wins, and wakes a thread that sleeps towards a later one. */
static void
the_earlier_time_counts(void)
{
    static struct alarm_clock clock, late;
    join();
    set_clock(&late, 3600 * 1000);
    check_pause_ms(20); /* it sleeps by now, most likely */
    clock = (struct alarm_clock){.timer = {.fire = note_timer, .owner = &clock}};
    xc_pump_set(&clock.timer, xc_after(3600 * XC_S));
    xc_pump_set(&clock.timer, xc_after(XC_MS));
    xc_pump_set(&clock.timer, xc_after(3600 * XC_S));
    await(&clock.times, 1);
    CHECK_INT(atomic_load(&late.times), 0);
    xc_pump_leave();
    /* The thread ends though a timer is set; the next one knows it still. */
    late.timer.fire = note_timer;
    join();
    late.due = 0;
    xc_pump_set(&late.timer, xc_now());
    await(&late.times, 1);
    xc_pump_leave();
}

/* A pump that was stopped just before it went to sleep (a stopped process, a suspended machine) sleeps for so much
 * longer. What is set when it should be awake already wakes it all the same. */
static void
a_pump_that_oversleeps(void)
{
    struct alarm_clock far = {.timer = {.fire = note_timer}, .due = xc_after(100 * XC_S)};
    struct alarm_clock soon = {.timer = {.fire = note_timer}};
    far.timer.owner = &far;
    soon.timer.owner = &soon;
    join();
    xc_pump_set(&far.timer, far.due);
    for (bool asleep = false; !asleep;) {
        xc_lock_pump(&xc_pump.mu);
        asleep = xc_pump.asleep_until == far.due;
        xc_pump.asleep_until = asleep ? xc_now() - XC_MS : xc_pump.asleep_until; /* as if it had slept so long */
        xc_unlock_pump(&xc_pump.mu);
    }
    soon.due = xc_now();
    xc_pump_set(&soon.timer, soon.due);
    await(&soon.times, 1);
    far.due = 0;
    xc_pump_set(&far.timer, xc_now());
    await(&far.times, 1);
    xc_pump_leave();
}

int
main(void)
{
    check_io_begin("pump_timers", 60);
    RUN_IO(jobs_run_in_order);
    RUN_IO(timers_fire_in_time);
    RUN_IO(a_timer_may_set_itself_again);
    RUN_IO(the_earlier_time_counts);
    RUN_IO(a_pump_that_oversleeps);
    return check_end();
}
