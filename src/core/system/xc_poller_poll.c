/* The poller over poll(2), for systems without epoll. The thread passes all fds to the kernel in each round. */
#include "xc_poller.h"

#ifndef XC_EPOLL
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* What one poll(2) needs, for `cap` watches and the pump's bell. The thread that arms a watch makes room for it, so
 * that it gets the error if memory runs out. The pump takes the new room over before its next poll. */
struct poll_room {
    xc_watch **batch;   /* owned: what is being polled, NULL where it was forgotten meanwhile */
    struct pollfd *fds; /* in the same block */
    size_t cap;
};

static struct poll_room grown XC_GUARDED(pump); /* owned, for the thread's next round */
static struct poll_room room;                   /* the pump's thread, but `cap`: the pump's mu */
static int n_batch XC_OF_ROLE(pump);

void
xc_poller_close_locked(void)
{
}

void
xc_poller_forget_all_locked(void)
{
    n_batch = 0;
}

bool
xc_poller_open_locked(xc_err *err)
{
    XC_ASSERT(xc_pump.bell_in < 0 && xc_pump.bell_out < 0);
    int fds[2];
    if (pipe(fds) < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make a pipe for the I/O thread");
        return false;
    }
    xc_pump.bell_in = xc_fd_lift(fds[0]);
    xc_pump.bell_out = xc_fd_lift(fds[1]);
    xc_fd_own(xc_pump.bell_in);
    xc_fd_own(xc_pump.bell_out);
    if (xc_pump.bell_in < 0 || xc_pump.bell_out < 0) {
        (void)xc_fail(err, XC_SYS, errno, "make a pipe for the I/O thread");
        return false;
    }
    for (int i = 0; i < 2; i++) {
        int fd = i == 0 ? xc_pump.bell_in : xc_pump.bell_out;
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return true;
}

/* Room for one more watch. */
static bool
make_room_locked(void) XC_NEEDS(pump)
{
    if (xc_pump.n_watches < room.cap || xc_pump.n_watches < grown.cap) {
        return true;
    }
    size_t cap = xc_pump.n_watches * 2 + 16;
    xc_watch **batch = xc_alloc(cap * sizeof(xc_watch *) + (cap + 1) * sizeof(struct pollfd));
    if (batch == NULL) {
        return false;
    }
    xc_free(grown.batch);
    grown = (struct poll_room){.batch = batch, .fds = (struct pollfd *)(batch + cap), .cap = cap};
    return true;
}

bool
xc_poller_arm_locked(xc_watch *watch, short events)
{
    (void)events;
    return watch->armed != 0 || make_room_locked();
}

void
xc_poller_forget(const xc_watch *watch)
{
    for (int i = 0; i < n_batch; i++) {
        if (room.batch[i] == watch) {
            room.batch[i] = NULL;
        }
    }
}

/* Nobody closes the bell while this thread is awake, so no mutex is needed. */
static void
drain_bell(void) XC_NEEDS_ROLE(pump)
{
    unsigned char dump[64];
    while (read(XC_UNLOCKED(xc_pump.bell_in), dump, sizeof dump) == (ssize_t)sizeof dump) {
    }
}

bool
xc_poller_poll_locked(unsigned thread, int timeout_ms)
{
    (void)thread;
    struct pollfd own = {.fd = xc_pump.bell_in, .events = POLLIN};
    int n = 0;
    if (grown.cap > 0) {
        xc_free(room.batch);
        room = grown;
        grown = (struct poll_room){.cap = 0};
    }
    struct pollfd *fds = room.fds;
    for (xc_watch *watch = xc_pump.watches; watch != NULL; watch = watch->next) {
        room.batch[n] = watch;
        fds[n] = (struct pollfd){.fd = watch->fd, .events = watch->armed};
        n++;
    }
    n_batch = n;
    xc_unlock_pump(&xc_pump.mu);
    if (n > 0) {
        fds[n] = own;
    }
    int rc = poll(n > 0 ? fds : &own, (nfds_t)n + 1, timeout_ms);
    xc_lock_pump(&xc_pump.mu);
    xc_pump.asleep_until = 0;
    xc_unlock_pump(&xc_pump.mu);
    if (rc > 0 && (n > 0 ? fds[n].revents : own.revents) != 0) {
        drain_bell();
    }
    for (int i = 0; rc > 0 && i < n; i++) {
        xc_watch *watch = room.batch[i];
        if (watch != NULL && fds[i].revents != 0) {
            watch->ready(watch, fds[i].revents);
        }
    }
    n_batch = 0;
    return true;
}
#endif
