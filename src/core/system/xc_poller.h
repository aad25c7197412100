/*
 * How the I/O thread sleeps until an fd is ready: xc_poller_epoll.c on Linux, xc_poller_poll.c elsewhere or with
 * -DXC_PORTABLE. Used by xc_pump.c and nobody else.
 */
#ifndef XC_POLLER_H
#define XC_POLLER_H

#include "xc_pump.h"

#if defined(__linux__) && !defined(XC_PORTABLE)
#define XC_EPOLL 1
/* epoll takes a change while it sleeps. A thread that sleeps on fds which the program has closed is left, and replaced.
 */
enum { XC_POLLER_ARMS_AT_ONCE = true, XC_POLLER_CAN_REPLACE = true };
#else
enum { XC_POLLER_ARMS_AT_ONCE = false, XC_POLLER_CAN_REPLACE = false };
#endif

/* There is one, for the whole process. */
typedef struct {
    xc_mutex mu;
    int users;            /* mu */
    bool running;         /* mu: the thread exists and has not decided to end */
    unsigned thread;      /* mu: which of the threads so far it is */
    int bell_in;          /* wakes the thread; made and closed under mu */
    int bell_out;         /* the same fd as bell_in for an eventfd */
    int64_t asleep_until; /* mu: 0 while it is awake */
    bool deaf;            /* mu: the thread is to open its fds anew */
    bool losses;          /* mu: some watch is lost */
    xc_timer *timers;     /* mu */
    xc_job *jobs;         /* mu: in order */
    xc_job **jobs_tail;   /* mu */
    xc_watch *watches;    /* mu: the armed ones */
    size_t n_watches;     /* mu */
} xc_pump_state;

extern xc_pump_state xc_pump;

/* The bell and what the poller itself needs; all armed watches are watched from then on. False: *err says why. */
bool xc_poller_open_locked(xc_err *err);
/* But for the bell. */
void xc_poller_close_locked(void);
/* In a forked child: nothing is watched any more. */
void xc_poller_forget_all_locked(void);
/* False: no memory, or the kernel has none. Sets `lost` where the fd is not ours any more. */
bool xc_poller_arm_locked(xc_watch *watch, short events);
/* On the pump's thread: the watch is not called any more in this round. */
void xc_poller_forget(const xc_watch *watch);
/* Sleeps until something is ready, and calls the watches. Unlocks. False: another thread has taken this one's place. */
bool xc_poller_poll_locked(unsigned thread, int timeout_ms) XC_ANNOTATE(release_capability(xc_pump.mu));

#endif
