/*
 * How the pump sleeps until an fd is ready: xc_poller_epoll.c on Linux, xc_poller_poll.c elsewhere or with
 * -DXC_PORTABLE. Only xc_pump.c uses it.
 */
#ifndef XC_POLLER_H
#define XC_POLLER_H

#include "xc_pump.h"

#if defined(__linux__) && !defined(XC_PORTABLE)
#define XC_EPOLL 1
/* epoll takes a change of its set while a thread sleeps. If the program has closed the fds that a thread sleeps on,
 * that thread is left asleep, and another one takes its place. */
enum { XC_POLLER_ARMS_AT_ONCE = true, XC_POLLER_CAN_REPLACE = true };
#else
enum { XC_POLLER_ARMS_AT_ONCE = false, XC_POLLER_CAN_REPLACE = false };
#endif

/* The state of the one pump of the process. */
typedef struct {
    xc_mutex mu;
    int users XC_GUARDED(pump);
    bool running XC_GUARDED(pump);         /* the thread exists and has not decided to end */
    unsigned thread XC_GUARDED(pump);      /* number of the thread that is the pump now */
    int bell_in XC_GUARDED(pump);          /* wakes the thread */
    int bell_out XC_GUARDED(pump);         /* the same fd as bell_in for an eventfd */
    int64_t asleep_until XC_GUARDED(pump); /* 0 while it is awake */
    bool fds_lost XC_GUARDED(pump);        /* the program has closed the thread's fds, so it must open new ones */
    bool watches_lost XC_GUARDED(pump);    /* some watch has `lost` set */
    xc_timer *timers XC_GUARDED(pump);
    xc_job *jobs XC_GUARDED(pump); /* in order */
    xc_job **jobs_tail XC_GUARDED(pump);
    xc_watch *watches XC_GUARDED(pump); /* the armed ones */
    size_t n_watches XC_GUARDED(pump);
} xc_pump_state;

extern xc_pump_state xc_pump;

/* Opens the bell and the poller's own fds; from then on all armed watches are watched. False: *err says why. */
bool xc_poller_open_locked(xc_err *err) XC_NEEDS(pump);
/* Closes the poller's own fds, not the bell. */
void xc_poller_close_locked(void) XC_NEEDS(pump);
/* In a forked child: nothing is watched any more. */
void xc_poller_forget_all_locked(void) XC_NEEDS(pump) XC_NEEDS_ROLE(pump);
/* False: no memory here or in the kernel. Sets watch->lost if its fd is not ours any more. */
bool xc_poller_arm_locked(xc_watch *watch, short events) XC_NEEDS(pump);
/* The watch is not called any more in this round. */
void xc_poller_forget(const xc_watch *watch) XC_NEEDS_ROLE(pump);
/* Unlocks, sleeps until something is ready, calls the watches. False: another thread has taken this one's place. */
bool xc_poller_poll_locked(unsigned thread, int timeout_ms) XC_NEEDS_ROLE(pump) XC_UNLOCKS(xc_pump_mu, xc_pump.mu);

#endif
