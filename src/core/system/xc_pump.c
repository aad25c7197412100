/*
 * The pump: watches, timers and jobs. How it sleeps until an fd is ready is in the poller (xc_poller.h).
 *
 * Invariant: `asleep_until` is never later than the earliest timer, and a sleeping pump is woken whenever something
 * earlier is set, or when anything is set and it should be awake by now. So nothing that another thread sets has to
 * wait for an unrelated event.
 *
 * A program may close all its fds and go on. Whoever rings, joins or checks notices that. The pump then opens its own
 * fds anew and tells the owners of watches whose fds are lost. A pump that sleeps in epoll_wait cannot be woken any
 * more: that thread stays there for good, which does no harm as it holds nothing that others use, and a new thread
 * takes its place. (With poll(2) there is no such replacement.)
 *
 * After a fork the child has no pump: the fork handler closes its fds and forgets its lists, which belong to objects of
 * the parent. The first link that the child makes starts another pump.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "xc_poller.h"

enum { STACK_SIZE = 256 * 1024 };

xc_pump_state xc_pump = {.bell_in = -1, .bell_out = -1};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static _Thread_local bool is_pump;

static bool start_locked(xc_err *err) XC_NEEDS(pump);

static void
close_fds_locked(void) XC_NEEDS(pump)
{
    xc_poller_close_locked();
    xc_fd_close(xc_pump.bell_in);
    if (xc_pump.bell_out != xc_pump.bell_in) {
        xc_fd_close(xc_pump.bell_out);
    }
    xc_pump.bell_in = xc_pump.bell_out = -1;
}

static void
before_fork(void) XC_LOCKS(xc_pump_mu, xc_pump.mu)
{
    xc_lock_pump(&xc_pump.mu);
}

static void
after_fork_parent(void) XC_UNLOCKS(xc_pump_mu, xc_pump.mu)
{
    xc_unlock_pump(&xc_pump.mu);
}

static void
after_fork_child(void) XC_UNLOCKS(xc_pump_mu, xc_pump.mu)
{
    XC_HAS_ROLE(pump);
    close_fds_locked();
    xc_poller_forget_all_locked();
    xc_pump.users = 0;
    xc_pump.running = false;
    xc_pump.asleep_until = 0;
    xc_pump.timers = NULL;
    xc_pump.jobs = NULL;
    xc_pump.jobs_tail = &xc_pump.jobs;
    xc_pump.watches = NULL;
    xc_pump.n_watches = 0;
    xc_unlock_pump_in_child(&xc_pump.mu);
}

static void
setup(void)
{
    XC_ALONE(pump);
    xc_mutex_init(&xc_pump.mu);
    xc_pump.jobs_tail = &xc_pump.jobs;
    xc_sync_setup();
    (void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* The program has closed all fds. A thread that sleeps on them would sleep for ever: it is left there, and another one
 * takes its place. */
static void
replace_locked(void) XC_NEEDS(pump)
{
    if (xc_pump.asleep_until == 0) {
        xc_pump.fds_lost = true;
        return;
    }
    xc_pump.asleep_until = 0;
    close_fds_locked();
    xc_pump.running = start_locked(NULL);
}

static void
ring_locked(void) XC_NEEDS(pump)
{
    uint64_t one = 1;
    bool rung = xc_fd_ours(xc_pump.bell_out);
    if (rung) { /* EAGAIN: the eventfd or pipe is full, so it is rung already */
        rung = write(xc_pump.bell_out, &one, sizeof one) >= 0 || errno == EAGAIN;
    }
    if (!rung && XC_POLLER_CAN_REPLACE) {
        replace_locked();
    }
}

/* --- one round of the thread ---------------------------------------------------------------------------------- */

static void
fire_timers(void) XC_TAKES_PUMP
{
    int64_t now = xc_now();
    xc_lock_pump(&xc_pump.mu);
    for (xc_timer **p = &xc_pump.timers; *p != NULL;) {
        xc_timer *timer = *p;
        if (timer->when > now) {
            p = &timer->next;
            continue;
        }
        *p = timer->next;
        timer->when = 0;
        xc_unlock_pump(&xc_pump.mu);
        timer->fire(timer);
        xc_lock_pump(&xc_pump.mu);
        p = &xc_pump.timers; /* the list may have changed meanwhile */
    }
    xc_unlock_pump(&xc_pump.mu);
}

static void
run_jobs(void) XC_TAKES_PUMP
{
    xc_lock_pump(&xc_pump.mu);
    while (xc_pump.jobs != NULL) {
        xc_job *job = xc_pump.jobs;
        xc_pump.jobs = job->next;
        if (xc_pump.jobs == NULL) {
            xc_pump.jobs_tail = &xc_pump.jobs;
        }
        job->next = NULL;
        xc_unlock_pump(&xc_pump.mu);
        job->run(job);
        xc_lock_pump(&xc_pump.mu);
    }
    xc_unlock_pump(&xc_pump.mu);
}

/* The earliest timer; 0 if jobs wait. */
static int64_t
wake_time_locked(void) XC_NEEDS(pump)
{
    int64_t until = XC_FOREVER;
    for (xc_timer *timer = xc_pump.timers; timer != NULL; timer = timer->next) {
        if (timer->when < until) {
            until = timer->when;
        }
    }
    return xc_pump.jobs != NULL ? 0 : until;
}

static int
milliseconds_until(int64_t until)
{
    if (until == XC_FOREVER) {
        return -1;
    }
    int64_t left = until - xc_now();
    if (left <= 0) {
        return 0;
    }
    int64_t ms = (left + XC_MS - 1) / XC_MS;
    return ms > 60000 ? 60000 : (int)ms;
}

static void
report_lost_watches(void) XC_TAKES_PUMP
{
    xc_lock_pump(&xc_pump.mu);
    bool more = xc_pump.watches_lost;
    xc_pump.watches_lost = false;
    while (more) {
        xc_watch *watch = xc_pump.watches;
        while (watch != NULL && !watch->lost) {
            watch = watch->next;
        }
        more = watch != NULL;
        if (more) {
            watch->lost = false;
            xc_unlock_pump(&xc_pump.mu);
            watch->ready(watch, POLLERR);
            xc_lock_pump(&xc_pump.mu);
        }
    }
    xc_unlock_pump(&xc_pump.mu);
}

static void *
pump_main(void *number)
{
    XC_HAS_ROLE(pump);
    unsigned thread = (unsigned)(uintptr_t)number;
    is_pump = true;
    for (;;) {
        run_jobs();
        xc_lock_pump(&xc_pump.mu);
        if (xc_pump.fds_lost) {
            close_fds_locked();
            xc_pump.fds_lost = !xc_poller_open_locked(NULL);
        }
        if (xc_pump.users == 0 && xc_pump.jobs == NULL) {
            xc_pump.running = false;
            close_fds_locked();
            xc_unlock_pump(&xc_pump.mu);
            return NULL;
        }
        int64_t until = xc_pump.watches_lost ? 0 : wake_time_locked();
        xc_pump.asleep_until = until;
        if (!xc_poller_poll_locked(thread, milliseconds_until(until))) {
            return NULL;
        }
        report_lost_watches();
        fire_timers();
    }
}

/* --- what others call ---------------------------------------------------------------------------------------- */

static bool
start_locked(xc_err *err) XC_NEEDS(pump)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;
    void *number = (void *)(uintptr_t)++xc_pump.thread;
    xc_pump.fds_lost = false;
    if (!xc_poller_open_locked(err)) {
        close_fds_locked();
        return false;
    }
    sigfillset(&all);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&thread, &attr, pump_main, number);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    if (failed != 0) {
        close_fds_locked();
        (void)xc_fail(err, XC_SYS, failed, "start the I/O thread");
        return false;
    }
#if defined(__linux__)
    (void)pthread_setname_np(thread, "execnet_c-io");
#endif
    xc_pump.running = true;
    return true;
}

static void
check_locked(void) XC_NEEDS(pump)
{
    if (XC_POLLER_CAN_REPLACE && xc_pump.running && !xc_fd_ours(xc_pump.bell_out)) {
        replace_locked();
    }
}

void
xc_pump_check(void)
{
    xc_lock_pump(&xc_pump.mu);
    check_locked();
    xc_unlock_pump(&xc_pump.mu);
}

xc_status
xc_pump_join(xc_err *err)
{
    xc_status rc = XC_OK;
    (void)pthread_once(&once, setup);
    xc_lock_pump(&xc_pump.mu);
    check_locked();
    if (!xc_pump.running && !start_locked(err)) {
        rc = XC_SYS;
    }
    else {
        xc_pump.users++;
    }
    xc_unlock_pump(&xc_pump.mu);
    return rc;
}

void
xc_pump_leave(void)
{
    xc_lock_pump(&xc_pump.mu);
    XC_ASSERT(xc_pump.users > 0);
    xc_pump.users--;
    if (xc_pump.users == 0) {
        ring_locked();
    }
    xc_unlock_pump(&xc_pump.mu);
}

static void
list_locked(xc_watch *watch) XC_NEEDS(pump)
{
    watch->next = xc_pump.watches;
    xc_pump.watches = watch;
    xc_pump.n_watches++;
}

static void
unlist_locked(xc_watch *watch) XC_NEEDS(pump)
{
    xc_watch **p = &xc_pump.watches;
    while (*p != NULL && *p != watch) {
        p = &(*p)->next;
    }
    if (*p != NULL) {
        *p = watch->next;
        xc_pump.n_watches--;
    }
    watch->lost = false;
}

xc_status
xc_pump_arm(xc_watch *watch, short events)
{
    XC_ASSERT(events == 0 || events == POLLIN || events == POLLOUT);
    XC_ASSERT(events == 0 || (watch->fd >= 0 && watch->ready != NULL));
    if (watch->armed == events) {
        return XC_OK;
    }
    xc_lock_pump(&xc_pump.mu);
    XC_ASSERT(events == 0 || xc_pump.users > 0);
    if (!xc_poller_arm_locked(watch, events)) {
        xc_unlock_pump(&xc_pump.mu);
        return XC_SYS;
    }
    if (watch->armed == 0) {
        list_locked(watch);
    }
    if (events == 0) {
        unlist_locked(watch);
    }
    watch->armed = events;
    xc_pump.watches_lost |= watch->lost;
    if (watch->lost || !XC_POLLER_ARMS_AT_ONCE) {
        ring_locked();
    }
    xc_unlock_pump(&xc_pump.mu);
    return XC_OK;
}

/* A thread that is stopped for a while just before it sleeps wakes so much later than it has said. */
static bool
oversleeps_locked(void) XC_NEEDS(pump)
{
    return xc_pump.asleep_until != 0 && xc_pump.asleep_until != XC_FOREVER && xc_pump.asleep_until <= xc_now();
}

void
xc_pump_set(xc_timer *timer, int64_t when)
{
    XC_ASSERT(timer->fire != NULL && when > 0);
    xc_lock_pump(&xc_pump.mu);
    XC_ASSERT(xc_pump.users > 0);
    if (timer->when == 0) {
        timer->next = xc_pump.timers;
        xc_pump.timers = timer;
        timer->when = when;
    }
    else if (when < timer->when) {
        timer->when = when;
    }
    if (timer->when < xc_pump.asleep_until || oversleeps_locked()) {
        xc_pump.asleep_until = timer->when;
        ring_locked();
    }
    xc_unlock_pump(&xc_pump.mu);
}

void
xc_pump_post(xc_job *job)
{
    XC_ASSERT(job->run != NULL);
    xc_lock_pump(&xc_pump.mu);
    XC_ASSERT(xc_pump.jobs != job && xc_pump.jobs_tail != &job->next); /* it is not posted already */
    XC_ASSERT(xc_pump.users > 0);
    job->next = NULL;
    *xc_pump.jobs_tail = job;
    xc_pump.jobs_tail = &job->next;
    ring_locked();
    xc_unlock_pump(&xc_pump.mu);
}

void
xc_pump_forget(xc_watch *watch, xc_timer *timer)
{
    XC_ASSERT(is_pump);
    if (watch != NULL && watch->armed != 0) {
        (void)xc_pump_arm(watch, 0);
        watch->armed = 0;
    }
    if (watch != NULL) {
        xc_poller_forget(watch);
    }
    xc_lock_pump(&xc_pump.mu);
    for (xc_timer **p = &xc_pump.timers; timer != NULL && *p != NULL; p = &(*p)->next) {
        if (*p == timer) {
            *p = timer->next;
            timer->when = 0;
            break;
        }
    }
    xc_unlock_pump(&xc_pump.mu);
}
