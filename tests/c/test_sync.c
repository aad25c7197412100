/* Clocks, locks and bells: no ring may get lost, no sleep may outlast its deadline, a signal ends a sleep. */
#include "sync_rig.h"

/* ---- rings and deadlines ---- */

static void
ring_before_sleep_ends_it(void)
{
    xc_bell *bell = xc_bell_mine();
    CHECK(bell != NULL && xc_bell_mine() == bell);
    for (int i = 0; i < 3; i++) {
        xc_bell_ring(bell);
        xc_bell_ring(bell);
        CHECK_RC(xc_bell_sleep_nogil(bell, -1, 0, XC_FOREVER), XC_OK);
        CHECK_RC(sleep_ms(0), XC_TIMEOUT);
    }
    xc_bell_ring(bell);
    xc_bell_clear(bell);
    CHECK_RC(sleep_ms(1), XC_TIMEOUT);
    xc_bell_ring(bell);
    CHECK_RC(xc_bell_sleep_nogil(bell, -1, 0, 0), XC_OK);
}

static void
deadline_is_kept(void)
{
    static const int64_t spans[] = {0, 1, 999, 1000000, 1500001, 30 * XC_MS};
    for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        int64_t until = xc_after(spans[i]);
        CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, until), XC_TIMEOUT);
        CHECK(xc_now() >= until);
    }
    CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, 0), XC_TIMEOUT);
    CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, INT64_MIN), XC_TIMEOUT);
}

/* Two threads hand a number to and fro and sleep without a deadline: one lost ring, and both sleep for ever. */
struct table {
    xc_mutex mu;
    xc_bell *bells[2]; /* mu */
    int turn;          /* mu */
    int rounds;
    int side;
};

static void
play(struct table *table, int side)
{
    xc_bell *mine = xc_bell_mine();
    xc_lock(&table->mu);
    table->bells[side] = mine;
    while (table->turn < table->rounds) {
        if (table->turn % 2 == side) {
            table->turn++;
            if (table->bells[1 - side] != NULL) {
                xc_bell_ring(table->bells[1 - side]);
            }
            continue;
        }
        xc_unlock(&table->mu);
        CHECK_RC(xc_bell_sleep_nogil(mine, -1, 0, XC_FOREVER), XC_OK);
        xc_lock(&table->mu);
    }
    table->bells[side] = NULL;
    xc_unlock(&table->mu);
}

static void *
other_player(void *arg)
{
    play(arg, 1);
    return NULL;
}

static void
play_rounds(int rounds)
{
    struct table table = {.rounds = rounds};
    xc_mutex_init(&table.mu);
    pthread_t other = start_thread(other_player, &table);
    play(&table, 0);
    join_thread(other);
    CHECK_INT(table.turn, rounds);
    xc_mutex_fini(&table.mu);
    settle();
}

static void
no_ring_is_lost(void)
{
    play_rounds(20000);
}

/* Many ringers, one sleeper: fewer wakes than rings, but the last one must always be seen. */
struct crowd {
    xc_bell *bell;
    atomic_int work;
};

static void *
ring_often(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < 3000; i++) {
        atomic_fetch_add(&crowd->work, 1);
        xc_bell_ring(crowd->bell);
    }
    return NULL;
}

static void
rings_may_merge(void)
{
    struct crowd crowd = {.bell = xc_bell_mine()};
    pthread_t threads[4];
    int done = 0;
    for (int i = 0; i < 4; i++) {
        threads[i] = start_thread(ring_often, &crowd);
    }
    while (done < 12000) {
        int taken = atomic_exchange(&crowd.work, 0);
        if (taken == 0) {
            CHECK_RC(xc_bell_sleep_nogil(crowd.bell, -1, 0, XC_FOREVER), XC_OK);
        }
        done += taken;
    }
    for (int i = 0; i < 4; i++) {
        join_thread(threads[i]);
    }
    CHECK_INT(done, 12000);
    settle();
}

/* ---- fds ---- */

static void
fd_ends_a_sleep(void)
{
    int ends[2];
    xc_bell *bell = xc_bell_mine();
    CHECK_INT(pipe(ends), 0);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, xc_after(2 * XC_MS)), XC_TIMEOUT);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[1], POLLOUT, XC_FOREVER), XC_OK);
    CHECK_INT(write(ends[1], "x", 1), 1);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, XC_FOREVER), XC_OK);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, 0), XC_OK);
    char byte;
    CHECK_INT(read(ends[0], &byte, 1), 1);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, 0), XC_TIMEOUT);
    xc_bell_ring(bell);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, XC_FOREVER), XC_OK);
    close(ends[1]);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, XC_FOREVER), XC_OK);
    close(ends[0]);
    CHECK_RC(xc_bell_sleep_nogil(bell, ends[0], POLLIN, XC_FOREVER), XC_OK);
}

static void *
write_late(void *arg)
{
    check_pause_ms(20);
    CHECK_INT(write(*(int *)arg, "x", 1), 1);
    return NULL;
}

static void
fd_wakes_a_sleeper(void)
{
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    pthread_t thread = start_thread(write_late, &ends[1]);
    CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), ends[0], POLLIN, XC_FOREVER), XC_OK);
    struct pollfd poller = {.fd = ends[0], .events = POLLIN};
    CHECK_INT(poll(&poller, 1, 0), 1);
    join_thread(thread);
    close(ends[0]);
    close(ends[1]);
}

/* ---- signals ---- */

static xc_bell *to_ring;

static void
on_signal(int sig)
{
    (void)sig;
    if (to_ring != NULL) {
        xc_bell_ring(to_ring);
    }
}

/* Signals come again and again, as a single one might come before the sleep. */
static void
signals_every_ms(long ms)
{
    struct itimerval timer = {.it_interval.tv_usec = ms * 1000, .it_value.tv_usec = ms * 1000};
    CHECK_INT(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static void
send_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    CHECK_INT(sigaction(SIGALRM, &action, NULL), 0);
    signals_every_ms(5);
}

static void
interrupt_sleeps(void)
{
    int ends[2];
    CHECK_INT(pipe(ends), 0);
    send_signals();
    for (int i = 0; i < 5; i++) {
        CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, XC_FOREVER), XC_INTR);
        CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), ends[0], POLLIN, XC_FOREVER), XC_INTR);
    }
}

/* The handler rings: the sleep tells of the signal, and the ring is there for the next one. */
static void
interrupt_and_ring(void)
{
    send_signals();
    to_ring = xc_bell_mine();
    for (int i = 0; i < 5; i++) {
        while (xc_bell_sleep_nogil(to_ring, -1, 0, XC_FOREVER) != XC_INTR) {
        }
        CHECK_RC(xc_bell_sleep_nogil(to_ring, -1, 0, 0), XC_OK);
    }
}

/* The bell has no fd here that could remember the ring: it is made at the first sleep. */
static void
interrupt_and_ring_without_fd(void)
{
    struct rlimit none = {.rlim_cur = 3, .rlim_max = 3};
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    interrupt_and_ring();
}

/* In processes of their own: the harness needs SIGALRM to die by itself. The parent's alarm still watches. */
static void
signal_ends_a_sleep(void)
{
    CHECK_INT(check_in_child(interrupt_sleeps), 0);
    CHECK_INT(check_in_child(interrupt_and_ring), 0);
    CHECK_INT(check_in_child(interrupt_and_ring_without_fd), 0);
}

/* ---- threads end, processes fork ---- */

static void *
sleep_a_little(void *arg)
{
    (void)arg;
    CHECK_RC(sleep_ms(1), XC_TIMEOUT);
    xc_bell_ring(xc_bell_mine());
    CHECK_RC(sleep_ms(1000), XC_OK);
    return NULL;
}

static void
ended_threads_leave_no_fd(void)
{
    int before = check_fds();
    for (int i = 0; i < 20; i++) {
        pthread_t threads[5];
        for (int k = 0; k < 5; k++) {
            threads[k] = start_thread(sleep_a_little, NULL);
        }
        for (int k = 0; k < 5; k++) {
            join_thread(threads[k]);
        }
    }
    CHECK_INT(check_fds(), before);
}

struct sleepers {
    xc_mutex mu;
    xc_bell *bells[5]; /* mu */
    atomic_int asleep;
    atomic_bool end;
};

struct sleeper {
    struct sleepers *all;
    int at;
};

static void *
sleep_until_end(void *arg)
{
    struct sleeper *me = arg;
    struct sleepers *all = me->all;
    CHECK_RC(sleep_ms(1), XC_TIMEOUT);
    xc_lock(&all->mu);
    all->bells[me->at] = xc_bell_mine();
    xc_unlock(&all->mu);
    atomic_fetch_add(&all->asleep, 1);
    while (!atomic_load(&all->end)) {
        CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, XC_FOREVER), XC_OK);
    }
    xc_lock(&all->mu);
    all->bells[me->at] = NULL;
    xc_unlock(&all->mu);
    return NULL;
}

static int fds_of_a_bell; /* an eventfd, or both ends of a pipe */
static int fds_without_bells;
static uint32_t parents_count;

static void
look_at_fds_in_child(void)
{
    CHECK_INT(check_fds(), fds_without_bells);
    CHECK(xc_fork_count() != parents_count);
    xc_bell_ring(xc_bell_mine());
    CHECK_RC(xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, XC_FOREVER), XC_OK);
    CHECK_RC(sleep_ms(1), XC_TIMEOUT);
    CHECK_INT(check_fds(), fds_without_bells + fds_of_a_bell);
}

/* The child has none of the fds of the parent's bells, and the parent still has all of them. */
static void
child_closes_inherited_bells(void)
{
    struct sleepers all = {.asleep = 0};
    struct sleeper each[5];
    pthread_t threads[5];
    CHECK_RC(sleep_ms(0), XC_TIMEOUT);
    fds_without_bells = check_fds() - fds_of_a_bell;
    parents_count = xc_fork_count();
    xc_mutex_init(&all.mu);
    for (int i = 0; i < 5; i++) {
        each[i] = (struct sleeper){.all = &all, .at = i};
        threads[i] = start_thread(sleep_until_end, &each[i]);
    }
    while (atomic_load(&all.asleep) < 5) {
        check_pause_ms(1);
    }
    CHECK_INT(check_fds(), fds_without_bells + 6 * fds_of_a_bell);
    CHECK_INT(check_in_child(look_at_fds_in_child), 0);
    CHECK_INT(check_fds(), fds_without_bells + 6 * fds_of_a_bell);
    CHECK_INT(xc_fork_count(), parents_count);
    atomic_store(&all.end, true);
    xc_lock(&all.mu);
    for (int i = 0; i < 5; i++) {
        if (all.bells[i] != NULL) {
            xc_bell_ring(all.bells[i]);
        }
    }
    xc_unlock(&all.mu);
    for (int i = 0; i < 5; i++) {
        join_thread(threads[i]);
    }
    xc_mutex_fini(&all.mu);
}

static void
play_in_child(void)
{
    play_rounds(2000);
}

/* Rings in the child must not wake the parent, whose bell was inherited. */
static void
child_rings_for_itself(void)
{
    int status;
    CHECK_RC(sleep_ms(0), XC_TIMEOUT);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        check_die_with_parent();
        play_in_child();
        _exit(0);
    }
    CHECK(pid > 0);
    CHECK_RC(sleep_ms(200), XC_TIMEOUT);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

static void
a_rung_bell_is_fresh_in_the_child(void)
{
    CHECK_RC(sleep_ms(2), XC_TIMEOUT);
}

static void
ring_does_not_cross_a_fork(void)
{
    xc_bell_ring(xc_bell_mine());
    CHECK_INT(check_in_child(a_rung_bell_is_fresh_in_the_child), 0);
    CHECK_RC(sleep_ms(0), XC_OK);
}

static void
look_in_grandchild(void)
{
    CHECK_INT(xc_fork_count(), parents_count + 2);
    play_in_child();
}

static void
fork_again(void)
{
    CHECK_INT(xc_fork_count(), parents_count + 1);
    CHECK_INT(check_in_child(look_in_grandchild), 0);
    play_in_child();
}

static void
forks_are_counted(void)
{
    parents_count = xc_fork_count();
    CHECK_INT(check_in_child(fork_again), 0);
    CHECK_INT(xc_fork_count(), parents_count);
}

/* ---- want of fds and memory ---- */

static void *
sleep_without_fd(void *arg)
{
    struct table *table = arg;
    CHECK_RC(sleep_ms(12), XC_TIMEOUT);
    play(table, 1);
    return NULL;
}

static void
play_without_fds(void)
{
    struct table table = {.rounds = 60};
    struct rlimit limit, none;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 3;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK(dup(0) == -1 && errno == EMFILE);
    xc_mutex_init(&table.mu);
    pthread_t other = start_thread(sleep_without_fd, &table);
    play(&table, 0);
    join_thread(other);
    CHECK_INT(table.turn, table.rounds);

    /* Not even two fds may be polled: a sleep is still no busy loop, and a deadline still passes. */
    none.rlim_cur = 1;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    xc_bell_ring(xc_bell_mine());
    CHECK_RC(sleep_ms(1000), XC_OK);
    int64_t until = xc_after(30 * XC_MS);
    int polls = 0;
    while (xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, until) == XC_OK && xc_now() < until) {
        CHECK(++polls < 1000);
    }
    CHECK(xc_now() >= until);

    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    table.turn = 0;
    table.rounds = 5000;
    other = start_thread(other_player, &table);
    play(&table, 0);
    join_thread(other);
    xc_mutex_fini(&table.mu);
}

static void
bells_work_without_fds(void)
{
    CHECK_INT(check_in_child(play_without_fds), 0);
}

static void *
play_without_memory(void *arg)
{
    xc_bell *bell = xc_bell_mine();
    CHECK(bell != NULL && xc_bell_mine() == bell);
    play(arg, 1);
    return NULL;
}

static void
bells_work_without_memory(void)
{
    struct table table = {.rounds = 60};
    CHECK(xc_bell_mine() != NULL);
    xc_mutex_init(&table.mu);
    xc_set_alloc_hook(check_allow_some);
    atomic_store(&check_allowed, 0);
    pthread_t other = start_thread(play_without_memory, &table);
    play(&table, 0);
    join_thread(other);
    CHECK(atomic_load(&check_allowed) < 0);
    xc_set_alloc_hook(NULL);
    CHECK_INT(table.turn, table.rounds);
    xc_mutex_fini(&table.mu);
    settle();
}

static void
close_everything(void)
{
    CHECK_RC(sleep_ms(0), XC_TIMEOUT);
    for (int fd = 3; fd < 100; fd++) {
        close(fd);
    }
    CHECK_RC(sleep_ms(0), XC_OK);
    play_rounds(500);
}

/* A process that makes itself a daemon closes all there is. */
static void
bells_survive_closed_fds(void)
{
    CHECK_INT(check_in_child(close_everything), 0);
}

int
main(void)
{
    check_begin("sync", 120);
    xc_sync_setup();
    xc_sync_setup();
    /* The bell of this thread stays: let it have its fd before the cases are watched. */
    int fds = check_fds();
    sleep_ms(0);
    fds_of_a_bell = check_fds() - fds;
    CHECK(fds_of_a_bell == 1 || fds_of_a_bell == 2);
    RUN(ring_before_sleep_ends_it);
    RUN(deadline_is_kept);
    RUN(no_ring_is_lost);
    RUN(rings_may_merge);
    RUN(fd_ends_a_sleep);
    RUN(fd_wakes_a_sleeper);
    RUN(signal_ends_a_sleep);
    RUN(ended_threads_leave_no_fd);
    RUN(child_closes_inherited_bells);
    RUN(child_rings_for_itself);
    RUN(ring_does_not_cross_a_fork);
    RUN(forks_are_counted);
    RUN(bells_work_without_fds);
    RUN(bells_work_without_memory);
    RUN(bells_survive_closed_fds);
    return check_end();
}
