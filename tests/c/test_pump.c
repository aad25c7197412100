/*
 * The pump: timers, jobs and watches, more of them than one batch of events holds, what is forgotten inside a
 * batch, when the thread ends and starts again, and what a forked child has of it.
 */
#include "pump_rig.h"

/* --- watches -------------------------------------------------------------------------------------------------- */

enum { MANY = 300 };

struct tap {
    xc_watch watch;
    int ends[2];
    atomic_int seen;
    struct tap *victim; /* forgotten by this one's callback */
};

static struct tap taps[MANY];

static void
pour(xc_watch *watch, short revents)
{
    struct tap *tap = watch->owner;
    char byte;
    CHECK((revents & POLLIN) != 0);
    CHECK_INT(read(watch->fd, &byte, 1), 1);
    if (tap->victim != NULL) {
        xc_pump_forget(&tap->victim->watch, NULL);
    }
    atomic_fetch_add(&tap->seen, 1);
}

static void
open_taps(int n)
{
    for (int i = 0; i < n; i++) {
        taps[i] = (struct tap){.watch = {.ready = pour, .owner = &taps[i]}};
        CHECK_INT(pipe(taps[i].ends), 0);
        taps[i].watch.fd = taps[i].ends[0];
    }
}

static void
close_taps(int n)
{
    for (int i = 0; i < n; i++) {
        close(taps[i].ends[0]);
        close(taps[i].ends[1]);
    }
}

/* Runs on the pump's thread: the only place from where something may be forgotten. */
static void
forget_all(xc_job *job)
{
    for (int i = 0; i < MANY; i++) {
        xc_pump_forget(&taps[i].watch, NULL);
    }
    atomic_fetch_add((atomic_int *)job->owner, 1);
}

static void
forget_taps(void)
{
    static xc_job job;
    static atomic_int done;
    atomic_store(&done, 0);
    job = (xc_job){.run = forget_all, .owner = &done};
    xc_pump_post(&job);
    await(&done, 1);
}

static void
note_round(xc_job *job)
{
    atomic_fetch_add((atomic_int *)job->owner, 1);
}

/* The round that the thread was in is over: until then it may call what has just been disarmed. */
static void
finish_round(void)
{
    static xc_job job;
    static atomic_int done;
    atomic_store(&done, 0);
    job = (xc_job){.run = note_round, .owner = &done};
    xc_pump_post(&job);
    await(&done, 1);
}

/* The first and the last of many: none is out of sight, however many others there are. */
static void
many_watches(void)
{
    open_taps(MANY);
    join();
    for (int i = 0; i < MANY; i++) {
        CHECK_RC(xc_pump_arm(&taps[i].watch, POLLIN), XC_OK);
    }
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(write(taps[i].ends[1], "x", 1), 1);
        if (i % 2 == 0) {
            await(&taps[i].seen, 1);
        }
    }
    for (int i = 0; i < MANY; i++) {
        await(&taps[i].seen, 1);
    }
    /* All at once, more than a batch, and level-triggered: two bytes each. */
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(write(taps[i].ends[1], "xx", 2), 2);
    }
    for (int i = 0; i < MANY; i++) {
        await(&taps[i].seen, 3);
    }
    forget_taps();
    xc_pump_leave();
    close_taps(MANY);
}

static void
disarmed_is_not_served(void)
{
    open_taps(2);
    join();
    CHECK_RC(xc_pump_arm(&taps[0].watch, POLLIN), XC_OK);
    CHECK_RC(xc_pump_arm(&taps[1].watch, POLLIN), XC_OK);
    CHECK_RC(xc_pump_arm(&taps[1].watch, POLLIN), XC_OK);
    CHECK_RC(xc_pump_arm(&taps[0].watch, 0), XC_OK);
    CHECK_RC(xc_pump_arm(&taps[0].watch, 0), XC_OK);
    finish_round();
    CHECK_INT(write(taps[0].ends[1], "x", 1), 1);
    for (int i = 1; i <= 20; i++) {
        CHECK_INT(write(taps[1].ends[1], "x", 1), 1);
        await(&taps[1].seen, i);
    }
    CHECK_INT(atomic_load(&taps[0].seen), 0);
    CHECK_RC(xc_pump_arm(&taps[0].watch, POLLIN), XC_OK);
    await(&taps[0].seen, 1);
    forget_taps();
    xc_pump_leave();
    close_taps(2);
}

/* Blocks the thread until the gate opens, so that what happens meanwhile stands in one batch. */
static atomic_int gate;

static void
wait_at_gate(xc_job *job)
{
    (void)job;
    while (atomic_load(&gate) == 0) {
        check_pause_ms(1);
    }
}

/* Two watches forget each other, with both of their events in one batch: exactly one of them runs. */
static void
forgotten_inside_a_batch(void)
{
    for (int round = 0; round < 50; round++) {
        static xc_job stop;
        open_taps(2);
        taps[0].victim = &taps[1];
        taps[1].victim = &taps[0];
        atomic_store(&gate, 0);
        join();
        stop = (xc_job){.run = wait_at_gate};
        xc_pump_post(&stop);
        CHECK_RC(xc_pump_arm(&taps[0].watch, POLLIN), XC_OK);
        CHECK_RC(xc_pump_arm(&taps[1].watch, POLLIN), XC_OK);
        CHECK_INT(write(taps[0].ends[1], "x", 1), 1);
        CHECK_INT(write(taps[1].ends[1], "x", 1), 1);
        atomic_store(&gate, 1);
        while (atomic_load(&taps[0].seen) + atomic_load(&taps[1].seen) == 0) {
            check_pause_ms(1);
        }
        forget_taps();
        CHECK_INT(atomic_load(&taps[0].seen) + atomic_load(&taps[1].seen), 1);
        xc_pump_leave();
        close_taps(2);
    }
}

static struct alarm_clock doomed;

static void
forget_doomed(xc_timer *timer)
{
    struct alarm_clock *clock = timer->owner;
    xc_pump_forget(NULL, &doomed.timer);
    atomic_fetch_add(&clock->times, 1);
}

/* Both are due in the same round; the first one takes the second away. */
static void
a_forgotten_timer_is_quiet(void)
{
    static struct alarm_clock killer;
    static xc_job stop;
    atomic_store(&gate, 0);
    join();
    stop = (xc_job){.run = wait_at_gate};
    xc_pump_post(&stop);
    doomed = (struct alarm_clock){.timer = {.fire = note_timer, .owner = &doomed}};
    killer = (struct alarm_clock){.timer = {.fire = forget_doomed, .owner = &killer}};
    xc_pump_set(&doomed.timer, xc_after(50 * XC_MS));
    xc_pump_set(&killer.timer, xc_now());
    atomic_store(&gate, 1);
    await(&killer.times, 1);
    check_pause_ms(80);
    CHECK_INT(atomic_load(&doomed.times), 0);
    CHECK_INT(doomed.timer.when, 0);
    xc_pump_leave();
}

/* --- want of things ------------------------------------------------------------------------------------------- */

static bool
allow_none(void)
{
    return false;
}

/* Where arming needs memory and there is none, it says so and changes nothing. */
static void
arming_without_memory(void)
{
    open_taps(MANY);
    join();
    xc_set_alloc_hook(allow_none);
    int armed = 0;
    while (armed < MANY && xc_pump_arm(&taps[armed].watch, POLLIN) == XC_OK) {
        armed++;
    }
    if (armed < MANY) {
        CHECK_INT(taps[armed].watch.armed, 0);
    }
    xc_set_alloc_hook(NULL);
    for (int i = armed; i < MANY; i++) {
        CHECK_RC(xc_pump_arm(&taps[i].watch, POLLIN), XC_OK);
    }
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(write(taps[i].ends[1], "x", 1), 1);
        await(&taps[i].seen, 1);
    }
    forget_taps();
    xc_pump_leave();
    close_taps(MANY);
}

/* With room for 0, 1, 2 ... fds only: refused with nothing left behind, or it works. */
static void
starting_without_fds(void)
{
    struct rlimit old, tight;
    int fds = check_fds();
    bool started = false;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    int first_free = dup(0);
    CHECK(first_free > 2);
    close(first_free);
    for (int more = 0; !started && more < 10; more++) {
        xc_err err;
        tight = (struct rlimit){.rlim_cur = (rlim_t)(first_free + more), .rlim_max = old.rlim_max};
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
        xc_status rc = xc_pump_join(&err);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
        if (rc == XC_OK) {
            started = true;
            CHECK(more > 0);
            xc_pump_leave();
        }
        else {
            CHECK_RC(rc, XC_SYS);
            CHECK_INT(err.sys_errno, EMFILE);
            CHECK_INT(check_fds(), fds);
        }
    }
    CHECK(started);
    while (check_fds() > fds) {
        check_pause_ms(1);
    }
}

/* A process whose standard streams are closed: the pump's fds stay away from their numbers. */
static void
without_standard_streams(void)
{
    xc_err err;
    int kept = dup(2);
    for (int fd = 0; fd < 3; fd++) {
        close(fd);
    }
    bool good = xc_pump_join(&err) == XC_OK;
    for (int fd = 0; fd < 3; fd++) {
        good = good && fcntl(fd, F_GETFD) < 0;
    }
    xc_pump_leave();
    dup2(kept, 2);
    if (!good) {
        _exit(1);
    }
}

static void
the_standard_streams_stay_free(void)
{
    CHECK_INT(check_in_child(without_standard_streams), 0);
}

/* --- lives ---------------------------------------------------------------------------------------------------- */

static void
lives_while_used(void)
{
    int threads = check_entries("/proc/self/task");
    int fds = check_fds();
    for (int i = 0; i < 200; i++) {
        static struct alarm_clock clock;
        join();
        join();
        xc_pump_leave();
        if (i % 10 == 0) {
            set_clock(&clock, 0);
            await(&clock.times, 1);
            CHECK(has_pump_thread(threads));
        }
        xc_pump_leave();
        if (i % 20 == 0) {
            await_end(threads);
            CHECK_INT(check_fds(), fds);
        }
    }
    await_end(threads);
}

static void *
come_and_go(void *arg)
{
    xc_job *job = arg;
    for (int i = 0; i < 200; i++) {
        atomic_int ran = 0;
        join();
        job->owner = &ran;
        xc_pump_post(job);
        await(&ran, 1);
        xc_pump_leave();
    }
    return NULL;
}

static void
count_job(xc_job *job)
{
    atomic_fetch_add((atomic_int *)job->owner, 1);
}

/* Threads that join and leave at once: each one's job runs, whichever of them starts or ends the pump. */
static void
many_users(void)
{
    enum { USERS = 4 };
    xc_job jobs[USERS];
    pthread_t threads[USERS];
    for (int i = 0; i < USERS; i++) {
        jobs[i] = (xc_job){.run = count_job};
        CHECK_INT(pthread_create(&threads[i], NULL, come_and_go, &jobs[i]), 0);
    }
    for (int i = 0; i < USERS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
}

static void
pump_in_child(void)
{
    static struct alarm_clock clock;
    /* The parent's watch and timer are not ours: neither may run here. */
    check_pause_ms(30);
    CHECK_INT(atomic_load(&taps[0].seen), 0);
    join();
    set_clock(&clock, 1);
    await(&clock.times, 1);
    CHECK_INT(atomic_load(&taps[0].seen), 0);
    open_taps(1);
    CHECK_RC(xc_pump_arm(&taps[0].watch, POLLIN), XC_OK);
    CHECK_INT(write(taps[0].ends[1], "x", 1), 1);
    await(&taps[0].seen, 1);
    forget_taps();
    xc_pump_leave();
}

static void
a_child_starts_its_own(void)
{
    if (CHECK_TSAN) {
        return; /* it does not let a child of a program with threads start threads */
    }
    open_taps(1);
    join();
    CHECK_RC(xc_pump_arm(&taps[0].watch, POLLIN), XC_OK);
    CHECK_INT(check_in_child(pump_in_child), 0);
    CHECK_INT(write(taps[0].ends[1], "x", 1), 1);
    await(&taps[0].seen, 1);
    forget_taps();
    xc_pump_leave();
    close_taps(1);
}

static void
fork_while_busy_in_child(void)
{
    _exit(0);
}

static void *
fork_often(void *arg)
{
    for (int i = 0; i < 50; i++) {
        CHECK_INT(check_in_child(fork_while_busy_in_child), 0);
    }
    return arg;
}

/* Forks while another thread posts: no fork may find the pump's lock taken for good. */
static void
forks_beside_work(void)
{
    xc_job job = {.run = count_job};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, fork_often, NULL), 0);
    come_and_go(&job);
    CHECK_INT(pthread_join(thread, NULL), 0);
}

int
main(void)
{
    check_io_begin("pump", 60);
    RUN_IO(many_watches);
    RUN_IO(disarmed_is_not_served);
    RUN_IO(forgotten_inside_a_batch);
    RUN_IO(a_forgotten_timer_is_quiet);
    RUN_IO(arming_without_memory);
    RUN_IO(starting_without_fds);
    RUN_IO(the_standard_streams_stay_free);
    RUN_IO(lives_while_used);
    RUN_IO(many_users);
    RUN_IO(a_child_starts_its_own);
    RUN_IO(forks_beside_work);
    return check_end();
}
