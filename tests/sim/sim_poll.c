/*
 * Waiting for fds: poll and epoll of the simulated machine. Both are level-triggered.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#include "sim_calls.h"
#include "sim_files.h"

/* Errors are told whether or not somebody asks for them. */
static short
asked_events(int fd, short asked)
{
    return sim_ready_events(fd) & (asked | POLLERR | POLLHUP | POLLNVAL);
}

typedef struct {
    struct pollfd *fds;
    nfds_t n;
} poll_set;

static int
look_at_set(const poll_set *set)
{
    int n = 0;
    for (nfds_t i = 0; i < set->n; i++) {
        set->fds[i].revents = set->fds[i].fd < 0 ? 0 : asked_events(set->fds[i].fd, set->fds[i].events);
        n += set->fds[i].revents != 0;
    }
    return n;
}

static bool
is_set_ready(const void *set)
{
    return look_at_set(set) > 0;
}

static int
poll_until(struct pollfd *fds, nfds_t n, int64_t until)
{
    poll_set set = {fds, n};
    sim_point();
    if (sim_block(&set, until, true, is_set_ready) == SIM_INTERRUPTED) {
        errno = EINTR;
        return -1;
    }
    return look_at_set(&set);
}

int
__wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    return poll_until(fds, n, ms < 0 ? SIM_NEVER : sim_now() + ms * INT64_C(1000000));
}

int
__wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *span, const sigset_t *mask)
{
    (void)mask;
    int64_t until = span == NULL ? SIM_NEVER : sim_now() + span->tv_sec * INT64_C(1000000000) + span->tv_nsec;
    return poll_until(fds, n, until);
}

/* --- epoll ------------------------------------------------------------------------------------------------------ */

int
__wrap_epoll_create1(int flags)
{
    (void)flags;
    return sim_new_fd(EPOLL, sim_own_process());
}

int
__wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    file *it = sim_file_of(epoll);
    sim_point();
    if (it == NULL || sim_file_of(fd) == NULL) {
        return -1;
    }
    int i = 0;
    while (i < it->n_watches && it->watches[i].fd != fd) {
        i++;
    }
    if ((i < it->n_watches) != (what != EPOLL_CTL_ADD)) {
        errno = what == EPOLL_CTL_ADD ? EEXIST : ENOENT;
        return -1;
    }
    if (what == EPOLL_CTL_DEL) {
        it->watches[i] = it->watches[--it->n_watches];
        return 0;
    }
    if (i == WATCHES) {
        sim_fail("too many fds in an epoll");
    }
    it->watches[i] = (watch){fd, *event};
    it->n_watches += what == EPOLL_CTL_ADD;
    sim_look();
    return 0;
}

static bool
is_epoll_ready(const void *what)
{
    const file *it = what;
    for (int i = 0; i < it->n_watches; i++) {
        if (asked_events(it->watches[i].fd, (short)it->watches[i].event.events) != 0) {
            return true;
        }
    }
    return false;
}

int
__wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int ms)
{
    int n = 0;
    sim_point();
    file *it = sim_file_of(epoll);
    if (it == NULL) {
        return -1;
    }
    (void)sim_block(it, ms < 0 ? SIM_NEVER : sim_now() + ms * INT64_C(1000000), false, is_epoll_ready);
    int first = it->n_watches > 0 ? (int)sim_random((uint32_t)it->n_watches) : 0;
    for (int i = 0; i < it->n_watches && n < most; i++) {
        const watch *at = &it->watches[(first + i) % it->n_watches];
        short is = asked_events(at->fd, (short)at->event.events);
        if (is != 0) {
            events[n] = at->event;
            events[n++].events = (uint32_t)is;
        }
    }
    return n;
}
