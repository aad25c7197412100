/* Clocks and deadlines, locks, and how many CPUs there are. */
#include "sync_rig.h"

/* ---- clocks, locks, the machine ---- */

static void
deadlines_do_not_overflow(void)
{
    int64_t now = xc_now();
    CHECK(now > 0 && xc_now() >= now);
    CHECK(xc_after(XC_FOREVER) == XC_FOREVER);
    CHECK(xc_after(XC_FOREVER - 1) == XC_FOREVER);
    CHECK(xc_after(XC_S) >= now + XC_S && xc_after(XC_S) < now + 1000 * XC_S);
    CHECK(xc_after(-XC_S) < xc_now());
    CHECK(xc_after(0) <= xc_now());
}

struct counter {
    xc_mutex mu;
    int n; /* mu */
};

static void *
count_up(void *arg)
{
    struct counter *counter = arg;
    for (int i = 0; i < 10000; i++) {
        xc_lock(&counter->mu);
        counter->n++;
        xc_unlock(&counter->mu);
    }
    return NULL;
}

static void
mutex_excludes(void)
{
    struct counter counter = {.n = 0};
    pthread_t threads[4];
    xc_mutex_init(&counter.mu);
    for (int i = 0; i < 4; i++) {
        threads[i] = start_thread(count_up, &counter);
    }
    for (int i = 0; i < 4; i++) {
        join_thread(threads[i]);
    }
    CHECK_INT(counter.n, 40000);
    xc_mutex_fini(&counter.mu);
}

XC_ANNOTATE(no_thread_safety_analysis)
static void
unlock_what_is_free(void)
{
    xc_mutex mu;
    if (freopen("/dev/null", "w", stderr) != NULL) {
        xc_mutex_init(&mu);
        xc_unlock(&mu);
    }
}

static void
mutex_mistake_aborts(void)
{
    CHECK(check_in_child(unlock_what_is_free) != 0);
}

static void
cpus_are_counted(void)
{
    cpu_set_t before, one;
    int n = xc_cpu_count();
    CHECK(n >= 1);
    CHECK_INT(sched_getaffinity(0, sizeof(before), &before), 0);
    CHECK_INT(n, CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &one);
        }
    }
    CHECK_INT(sched_setaffinity(0, sizeof(one), &one), 0);
    for (int i = 0; i < 1000 && xc_cpu_count() != 1; i++) {
        check_pause_ms(10);
    }
    CHECK_INT(xc_cpu_count(), 1);
    CHECK_INT(sched_setaffinity(0, sizeof(before), &before), 0);
    xc_pause();
}

int
main(void)
{
    check_begin("sync_locks", 120);
    RUN(deadlines_do_not_overflow);
    RUN(mutex_excludes);
    RUN(mutex_mistake_aborts);
    RUN(cpus_are_counted);
    return check_end();
}
