/* Waits for the pump, and for its end. */
#ifndef PUMP_RIG_H
#define PUMP_RIG_H

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

#include "check_io.h"
#include "xc_pump.h"

/* Until *what is at least `n`; the program's alarm is the bound. */
__attribute__((unused)) static void
await(atomic_int *what, int n)
{
    while (atomic_load(what) < n) {
        check_pause_ms(1);
    }
}

__attribute__((unused)) static void
join(void)
{
    xc_err err;
    CHECK_RC(xc_pump_join(&err), XC_OK);
}

__attribute__((unused)) static bool
has_pump_thread(int threads_before)
{
    return check_entries("/proc/self/task") > threads_before;
}

__attribute__((unused)) static void
await_end(int threads_before)
{
    while (has_pump_thread(threads_before)) {
        check_pause_ms(1);
    }
}

struct alarm_clock {
    xc_timer timer;
    int64_t due;
    int64_t rang;
    int again; /* how often it sets itself again */
    atomic_int times;
};

__attribute__((unused)) static void
note_timer(xc_timer *timer)
{
    struct alarm_clock *clock = timer->owner;
    clock->rang = xc_now();
    CHECK(clock->rang >= clock->due);
    CHECK_INT(timer->when, 0);
    if (clock->again-- > 0) {
        clock->due = xc_after(XC_MS);
        xc_pump_set(timer, clock->due);
    }
    atomic_fetch_add(&clock->times, 1);
}

__attribute__((unused)) static void
set_clock(struct alarm_clock *clock, int64_t ms)
{
    *clock = (struct alarm_clock){.timer = {.fire = note_timer, .owner = clock}};
    clock->due = xc_after(ms * XC_MS);
    xc_pump_set(&clock->timer, clock->due);
}

#endif
