/*
 * The I/O thread: epoll on Linux, poll(2) elsewhere or with -DXC_PORTABLE.
 *
 * Invariant: `asleep_until` is never later than the earliest timer, and a sleeper is woken whenever something earlier
 * is set, so nothing set from another thread waits for an unrelated event.
 *
 * A program may close all its fds and go on. Whoever rings, joins or checks notices; the thread opens its own anew, and
 * tells the owners of watches whose fds are lost. Asleep in epoll_wait it can not be woken any more: it is left there
 * for good, as that needs nothing that others use, and another one takes its place. (With poll(2) it stays deaf.)
 *
 * After a fork the child has no pump: the handler forgets it (its fds are closed, its lists belong to objects of the
 * parent), and the first link that the child makes starts another.
 */
#include "xc_pump.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#if defined(__linux__) && !defined(XC_PORTABLE)
#define XC_EPOLL 1
#include <sys/epoll.h>
#include <sys/eventfd.h>
#else
#include <fcntl.h>
#endif

enum { STACK_SIZE = 256 * 1024 };

#ifdef XC_EPOLL
enum { BATCH = 64 };
#else
/*
 * What one poll(2) needs, for `cap` watches and the thread's own bell. Whoever arms a watch makes room for it, so that
 * want of memory is told to him; the thread takes the new room over before it next polls.
 */
struct poll_room {
    xc_watch **batch;   /* owned: what is being polled, NULL where it was forgotten meanwhile */
    struct pollfd *fds; /* in the same block */
    size_t cap;
};
#endif

static struct {
    xc_mutex mu;
    int users;            /* mu */
    bool running;         /* mu: the thread exists and has not decided to end */
    int bell_in;          /* wakes the thread; made and closed under mu */
    int bell_out;         /* the same fd as bell_in for an eventfd */
    int64_t asleep_until; /* mu: 0 while it is awake */
    xc_timer *timers;     /* mu */
    xc_job *jobs;         /* mu: in order */
    xc_job **jobs_tail;   /* mu */
    xc_watch *watches;    /* mu: the armed ones */
#ifdef XC_EPOLL
    int epoll;
    unsigned thread;           /* mu: which of the threads so far it is */
    bool deaf;                 /* mu: the thread is to open its fds anew */
    bool losses;               /* mu: some watch is lost */
    struct epoll_event *batch; /* the pump's thread: borrowed from its stack */
    int n_batch;               /* the pump's thread */
#else
    size_t n_watches;       /* mu */
    struct poll_room grown; /* mu: owned, for the thread's next round */
    struct poll_room room;  /* the pump's thread, but `cap`: mu */
    int n_batch;            /* the pump's thread */
#endif
} pump = {.bell_in = -1, .bell_out = -1};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
close_fds_locked(void)
{
#ifdef XC_EPOLL
    if (pump.bell_in < 0 ||
        xc_fd_ours(pump.bell_in)) { /* else the program has closed them, and may have an epoll there */
        xc_fd_close(pump.epoll);
    }
    pump.epoll = -1;
#endif
    xc_fd_close(pump.bell_in);
    if (pump.bell_out != pump.bell_in) {
        xc_fd_close(pump.bell_out);
    }
    pump.bell_in = pump.bell_out = -1;
}

XC_ANNOTATE(no_thread_safety_analysis)
static void
before_fork(void)
{
    xc_lock(&pump.mu);
}

XC_ANNOTATE(no_thread_safety_analysis)
static void
after_fork_parent(void)
{
    xc_unlock(&pump.mu);
}

XC_ANNOTATE(no_thread_safety_analysis)
static void
after_fork_child(void)
{
    close_fds_locked();
    pump.users = 0;
    pump.running = false;
    pump.asleep_until = 0;
    pump.timers = NULL;
    pump.jobs = NULL;
    pump.jobs_tail = &pump.jobs;
    pump.watches = NULL;
#ifndef XC_EPOLL
    pump.n_watches = 0;
#endif
    pump.n_batch = 0;
    xc_unlock_in_child(&pump.mu);
}

static void
setup(void)
{
    xc_mutex_init(&pump.mu);
    pump.jobs_tail = &pump.jobs;
#ifdef XC_EPOLL
    pump.epoll = -1;
#endif
    xc_sync_setup();
    (void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

#ifdef XC_EPOLL
static bool start_locked(xc_err *err);

static void
watch_anew_locked(void)
{
    for (xc_watch *watch = pump.watches; watch != NULL; watch = watch->next) {
        struct epoll_event event = {.events = (uint32_t)watch->armed, .data.ptr = watch};
        watch->lost = !xc_fd_ours(watch->fd) || epoll_ctl(pump.epoll, EPOLL_CTL_ADD, watch->fd, &event) < 0;
        pump.losses |= watch->lost;
    }
}

/* The program has closed all fds. A thread that sleeps on them would sleep for ever: it is left alone, and another one
 * takes its place. */
static void
replace_locked(void)
{
    if (pump.asleep_until == 0) {
        pump.deaf = true;
        return;
    }
    pump.asleep_until = 0;
    close_fds_locked();
    pump.running = start_locked(NULL);
}
#endif

static void
ring_locked(void)
{
    uint64_t one = 1;
    bool rung = xc_fd_ours(pump.bell_out);
    if (rung) { /* full means that it is rung already */
        rung = write(pump.bell_out, &one, sizeof one) >= 0 || errno == EAGAIN;
    }
#ifdef XC_EPOLL
    if (!rung) {
        replace_locked();
    }
#endif
}

static bool
open_fds_locked(xc_err *err)
{
#ifdef XC_EPOLL
    pump.epoll = xc_fd_lift(epoll_create1(EPOLL_CLOEXEC));
    if (pump.epoll < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make an epoll fd for the I/O thread");
        return false;
    }
    pump.bell_in = pump.bell_out = xc_fd_lift(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (pump.bell_in < 0 || epoll_ctl(pump.epoll, EPOLL_CTL_ADD, pump.bell_in, &event) < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make an eventfd for the I/O thread");
        return false;
    }
    xc_fd_own(pump.epoll);
    watch_anew_locked();
#else
    int fds[2];
    if (pipe(fds) < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make a pipe for the I/O thread");
        return false;
    }
    pump.bell_in = xc_fd_lift(fds[0]);
    pump.bell_out = xc_fd_lift(fds[1]);
    if (pump.bell_in < 0 || pump.bell_out < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make a pipe for the I/O thread");
        return false;
    }
    for (int i = 0; i < 2; i++) {
        int fd = i == 0 ? pump.bell_in : pump.bell_out;
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    xc_fd_own(pump.bell_out);
#endif
    xc_fd_own(pump.bell_in);
    return true;
}

/* --- one round of the thread ---------------------------------------------------------------------------------- */

static void
fire_timers(void)
{
    int64_t now = xc_now();
    xc_lock(&pump.mu);
    for (xc_timer **p = &pump.timers; *p != NULL;) {
        xc_timer *timer = *p;
        if (timer->when > now) {
            p = &timer->next;
            continue;
        }
        *p = timer->next;
        timer->when = 0;
        xc_unlock(&pump.mu);
        timer->fire(timer);
        xc_lock(&pump.mu);
        p = &pump.timers; /* the list may have changed meanwhile */
    }
    xc_unlock(&pump.mu);
}

static void
run_jobs(void)
{
    xc_lock(&pump.mu);
    while (pump.jobs != NULL) {
        xc_job *job = pump.jobs;
        pump.jobs = job->next;
        if (pump.jobs == NULL) {
            pump.jobs_tail = &pump.jobs;
        }
        job->next = NULL;
        xc_unlock(&pump.mu);
        job->run(job);
        xc_lock(&pump.mu);
    }
    xc_unlock(&pump.mu);
}

/* When to wake at the latest; 0 for at once. */
static int64_t
bedtime_locked(void)
{
    int64_t until = XC_FOREVER;
    for (xc_timer *timer = pump.timers; timer != NULL; timer = timer->next) {
        if (timer->when < until) {
            until = timer->when;
        }
    }
    return pump.jobs != NULL ? 0 : until;
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
drain_bell(void)
{
    unsigned char dump[64];
    while (read(pump.bell_in, dump, sizeof dump) == (ssize_t)sizeof dump) {
    }
}

#ifdef XC_EPOLL
static void
tell_losses(void)
{
    xc_lock(&pump.mu);
    bool more = pump.losses;
    pump.losses = false;
    while (more) {
        xc_watch *watch = pump.watches;
        while (watch != NULL && !watch->lost) {
            watch = watch->next;
        }
        more = watch != NULL;
        if (more) {
            watch->lost = false;
            xc_unlock(&pump.mu);
            watch->ready(watch, POLLERR);
            xc_lock(&pump.mu);
        }
    }
    xc_unlock(&pump.mu);
}

/* False: another thread has taken this one's place. */
static bool
watch_once(unsigned thread, int epoll, int timeout_ms)
{
    struct epoll_event batch[BATCH];
    int n = epoll < 0 ? poll(NULL, 0, 20) : epoll_wait(epoll, batch, BATCH, timeout_ms);
    xc_lock(&pump.mu);
    if (pump.thread != thread) {
        xc_unlock(&pump.mu);
        return false;
    }
    pump.asleep_until = 0;
    xc_unlock(&pump.mu);
    pump.batch = batch;
    pump.n_batch = n < 0 ? 0 : n;
    for (int i = 0; i < pump.n_batch; i++) {
        xc_watch *watch = pump.batch[i].data.ptr;
        if (watch != NULL) {
            watch->ready(watch, (short)pump.batch[i].events);
        }
        else if (pump.batch[i].events != 0) {
            drain_bell();
        }
    }
    pump.n_batch = 0;
    tell_losses();
    return true;
}
#else
static bool
watch_once(unsigned thread, int epoll, int timeout_ms)
{
    (void)thread;
    (void)epoll;
    struct pollfd own = {.fd = pump.bell_in, .events = POLLIN};
    int n = 0;
    xc_lock(&pump.mu);
    if (pump.grown.cap > 0) {
        xc_free(pump.room.batch);
        pump.room = pump.grown;
        pump.grown = (struct poll_room){.cap = 0};
    }
    struct pollfd *fds = pump.room.fds;
    for (xc_watch *watch = pump.watches; watch != NULL; watch = watch->next) {
        pump.room.batch[n] = watch;
        fds[n] = (struct pollfd){.fd = watch->fd, .events = watch->armed};
        n++;
    }
    pump.n_batch = n;
    xc_unlock(&pump.mu);
    if (n > 0) {
        fds[n] = own;
    }
    int rc = poll(n > 0 ? fds : &own, (nfds_t)n + 1, timeout_ms);
    xc_lock(&pump.mu);
    pump.asleep_until = 0;
    xc_unlock(&pump.mu);
    if (rc > 0 && (n > 0 ? fds[n].revents : own.revents) != 0) {
        drain_bell();
    }
    for (int i = 0; rc > 0 && i < n; i++) {
        xc_watch *watch = pump.room.batch[i];
        if (watch != NULL && fds[i].revents != 0) {
            watch->ready(watch, fds[i].revents);
        }
    }
    pump.n_batch = 0;
    return true;
}
#endif

static void *
pump_main(void *number)
{
    unsigned thread = (unsigned)(uintptr_t)number;
    int epoll = -1;
    for (;;) {
        run_jobs();
        xc_lock(&pump.mu);
#ifdef XC_EPOLL
        if (pump.deaf) {
            close_fds_locked();
            pump.deaf = !open_fds_locked(NULL);
        }
        epoll = pump.epoll;
#endif
        if (pump.users == 0 && pump.jobs == NULL) {
            pump.running = false;
            close_fds_locked();
            xc_unlock(&pump.mu);
            return NULL;
        }
        int64_t until = bedtime_locked();
        pump.asleep_until = until;
#ifdef XC_EPOLL
        if (pump.losses) {
            until = pump.asleep_until = 0;
        }
#endif
        xc_unlock(&pump.mu);
        if (!watch_once(thread, epoll, milliseconds_until(until))) {
            return NULL;
        }
        fire_timers();
    }
}

/* --- what others call ---------------------------------------------------------------------------------------- */

static bool
start_locked(xc_err *err)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;
    void *number = NULL;
#ifdef XC_EPOLL
    number = (void *)(uintptr_t)++pump.thread;
    pump.deaf = false;
#endif
    if (!open_fds_locked(err)) {
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
    pump.running = true;
    return true;
}

static void
check_locked(void)
{
#ifdef XC_EPOLL
    if (pump.running && !xc_fd_ours(pump.bell_out)) {
        replace_locked();
    }
#endif
}

void
xc_pump_check(void)
{
    xc_lock(&pump.mu);
    check_locked();
    xc_unlock(&pump.mu);
}

xc_status
xc_pump_join(xc_err *err)
{
    xc_status rc = XC_OK;
    (void)pthread_once(&once, setup);
    xc_lock(&pump.mu);
    check_locked();
    if (!pump.running && !start_locked(err)) {
        rc = XC_SYS;
    }
    else {
        pump.users++;
    }
    xc_unlock(&pump.mu);
    return rc;
}

void
xc_pump_leave(void)
{
    xc_lock(&pump.mu);
    pump.users--;
    if (pump.users == 0) {
        ring_locked();
    }
    xc_unlock(&pump.mu);
}

#ifndef XC_EPOLL
/* For one more watch. */
static bool
make_room_locked(void)
{
    if (pump.n_watches < pump.room.cap || pump.n_watches < pump.grown.cap) {
        return true;
    }
    size_t cap = pump.n_watches * 2 + 16;
    xc_watch **batch = xc_alloc(cap * sizeof(xc_watch *) + (cap + 1) * sizeof(struct pollfd));
    if (batch == NULL) {
        return false;
    }
    xc_free(pump.grown.batch);
    pump.grown = (struct poll_room){.batch = batch, .fds = (struct pollfd *)(batch + cap), .cap = cap};
    return true;
}
#endif

static void
list_locked(xc_watch *watch)
{
    watch->next = pump.watches;
    pump.watches = watch;
#ifndef XC_EPOLL
    pump.n_watches++;
#endif
}

static void
unlist_locked(xc_watch *watch)
{
    xc_watch **p = &pump.watches;
    while (*p != NULL && *p != watch) {
        p = &(*p)->next;
    }
    if (*p != NULL) {
        *p = watch->next;
#ifndef XC_EPOLL
        pump.n_watches--;
#endif
    }
    watch->lost = false;
}

xc_status
xc_pump_arm(xc_watch *watch, short events)
{
    if (watch->armed == events) {
        return XC_OK;
    }
    xc_lock(&pump.mu);
#ifdef XC_EPOLL
    struct epoll_event event = {.events = (uint32_t)events, .data.ptr = watch};
    int op = events == 0 ? EPOLL_CTL_DEL : watch->armed == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    bool fine = events == 0 || !watch->lost;
    if (fine && epoll_ctl(pump.epoll, op, watch->fd, &event) < 0 && events != 0) {
        watch->lost = !xc_fd_ours(watch->fd);
        fine = watch->lost;
    }
#else
    bool fine = watch->armed != 0 || make_room_locked();
#endif
    if (!fine) {
        xc_unlock(&pump.mu);
        return XC_SYS;
    }
    if (watch->armed == 0) {
        list_locked(watch);
    }
    if (events == 0) {
        unlist_locked(watch);
    }
    watch->armed = events;
#ifdef XC_EPOLL
    if (watch->lost) {
        pump.losses = true;
        ring_locked();
    }
#else
    ring_locked();
#endif
    xc_unlock(&pump.mu);
    return XC_OK;
}

void
xc_pump_set(xc_timer *timer, int64_t when)
{
    xc_lock(&pump.mu);
    if (timer->when == 0) {
        timer->next = pump.timers;
        pump.timers = timer;
        timer->when = when;
    }
    else if (when < timer->when) {
        timer->when = when;
    }
    if (timer->when < pump.asleep_until) {
        pump.asleep_until = timer->when;
        ring_locked();
    }
    xc_unlock(&pump.mu);
}

void
xc_pump_post(xc_job *job)
{
    xc_lock(&pump.mu);
    job->next = NULL;
    *pump.jobs_tail = job;
    pump.jobs_tail = &job->next;
    ring_locked();
    xc_unlock(&pump.mu);
}

void
xc_pump_forget(xc_watch *watch, xc_timer *timer)
{
    if (watch != NULL && watch->armed != 0) {
        (void)xc_pump_arm(watch, 0);
        watch->armed = 0;
    }
    for (int i = 0; watch != NULL && i < pump.n_batch; i++) {
#ifdef XC_EPOLL
        if (pump.batch[i].data.ptr == watch) {
            pump.batch[i].data.ptr = NULL;
            pump.batch[i].events = 0;
        }
#else
        if (pump.room.batch[i] == watch) {
            pump.room.batch[i] = NULL;
        }
#endif
    }
    xc_lock(&pump.mu);
    for (xc_timer **p = &pump.timers; timer != NULL && *p != NULL; p = &(*p)->next) {
        if (*p == timer) {
            *p = timer->next;
            timer->when = 0;
            break;
        }
    }
    xc_unlock(&pump.mu);
}
