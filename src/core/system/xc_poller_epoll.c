/* The poller over epoll. The kernel keeps the set of fds, so a round costs as much as is ready, not as much as is
 * watched. */
#include "xc_poller.h"

#ifdef XC_EPOLL
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BATCH = 64 };

static int epoll_fd XC_GUARDED(pump) = -1;
static struct epoll_event *batch XC_OF_ROLE(pump); /* borrowed from the thread's stack */
static int n_batch XC_OF_ROLE(pump);

void
xc_poller_close_locked(void)
{
    /* If the bell is not ours any more, the program has closed both fds, and epoll_fd may be an epoll of its own. */
    if (xc_pump.bell_in < 0 || xc_fd_ours(xc_pump.bell_in)) {
        xc_fd_close(epoll_fd);
    }
    epoll_fd = -1;
}

void
xc_poller_forget_all_locked(void)
{
    n_batch = 0;
}

static void
watch_anew_locked(void) XC_NEEDS(pump)
{
    for (xc_watch *watch = xc_pump.watches; watch != NULL; watch = watch->next) {
        struct epoll_event event = {.events = (uint32_t)watch->armed, .data.ptr = watch};
        watch->lost = !xc_fd_ours(watch->fd) || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0;
        xc_pump.watches_lost |= watch->lost;
    }
}

bool
xc_poller_open_locked(xc_err *err)
{
    XC_ASSERT(epoll_fd < 0 && xc_pump.bell_in < 0);
    epoll_fd = xc_fd_lift(epoll_create1(EPOLL_CLOEXEC));
    xc_fd_own(epoll_fd);
    if (epoll_fd < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make an epoll fd for the I/O thread");
        return false;
    }
    xc_pump.bell_in = xc_pump.bell_out = xc_fd_lift(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    xc_fd_own(xc_pump.bell_in);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (xc_pump.bell_in < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, xc_pump.bell_in, &event) < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make an eventfd for the I/O thread");
        return false;
    }
    watch_anew_locked();
    return true;
}

bool
xc_poller_arm_locked(xc_watch *watch, short events)
{
    struct epoll_event event = {.events = (uint32_t)events, .data.ptr = watch};
    int op = events == 0 ? EPOLL_CTL_DEL : watch->armed == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    bool fine = events == 0 || !watch->lost;
    if (fine && epoll_ctl(epoll_fd, op, watch->fd, &event) < 0 && events != 0) {
        watch->lost = !xc_fd_ours(watch->fd);
        fine = watch->lost;
    }
    return fine;
}

void
xc_poller_forget(const xc_watch *watch)
{
    for (int i = 0; i < n_batch; i++) {
        if (batch[i].data.ptr == watch) {
            batch[i].data.ptr = NULL;
            batch[i].events = 0;
        }
    }
}

/* Nobody closes the bell while this thread is awake, so no mutex is needed. */
static void
drain_bell(void) XC_NEEDS_ROLE(pump)
{
    uint64_t count;
    ssize_t ignored = read(XC_UNLOCKED(xc_pump.bell_in), &count, sizeof count);
    (void)ignored;
}

bool
xc_poller_poll_locked(unsigned thread, int timeout_ms)
{
    struct epoll_event events[BATCH];
    int epoll = epoll_fd;
    xc_unlock_pump(&xc_pump.mu);
    int n = epoll < 0 ? poll(NULL, 0, 20) : epoll_wait(epoll, events, BATCH, timeout_ms);
    xc_lock_pump(&xc_pump.mu);
    if (xc_pump.thread != thread) {
        xc_unlock_pump(&xc_pump.mu);
        return false;
    }
    xc_pump.asleep_until = 0;
    xc_unlock_pump(&xc_pump.mu);
    batch = events;
    n_batch = n < 0 ? 0 : n;
    for (int i = 0; i < n_batch; i++) {
        xc_watch *watch = batch[i].data.ptr;
        if (watch != NULL) {
            watch->ready(watch, (short)batch[i].events);
        }
        else if (batch[i].events != 0) {
            drain_bell();
        }
    }
    n_batch = 0;
    return true;
}
#endif
