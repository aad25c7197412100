/*
 * The pump: the one I/O thread of the process. It watches fds, keeps timers and runs posted jobs; what these are for,
 * only their owners know. It never touches Python, has every signal blocked, exists only while somebody uses it, and
 * holds no lock of its own while it calls a callback.
 *
 * Lifetime: a watch, timer or job is a part of a counted object of its owner. Any thread may arm a watch and set a
 * timer. Only the pump's thread takes them away for good (xc_pump_forget, from a posted job): so no callback can run,
 * or be due in the present round, after its owner has gone.
 */
#ifndef XC_PUMP_H
#define XC_PUMP_H

#include "xc_sync.h"

XC_ROLE(pump) /* the pump's thread has it */

typedef struct xc_watch xc_watch;
struct xc_watch {
    int fd;      /* borrowed; set before the first arming */
    short armed; /* its owner's lock: POLLIN or POLLOUT, 0 when not watched */
    /* On the pump's thread; level-triggered while armed. Disarmed by another thread, it may run once more. */
    void (*ready)(xc_watch *watch, short revents);
    void *owner;
    xc_watch *next XC_GUARDED(pump);
    bool lost XC_GUARDED(pump); /* the program has closed its fd; `ready` is to be called with POLLERR */
};

typedef struct xc_timer xc_timer;
struct xc_timer {
    int64_t when XC_GUARDED(pump); /* 0: not set */
    void (*fire)(xc_timer *timer); /* on the pump's thread, after which the timer is not set */
    void *owner;
    xc_timer *next XC_GUARDED(pump);
};

typedef struct xc_job xc_job;
struct xc_job {
    void (*run)(xc_job *job); /* on the pump's thread; may free the job's owner */
    void *owner;
    xc_job *next XC_GUARDED(pump);
};

/* One more, or one less, user. The first starts the thread (XC_SYS with errno of pthread_create, epoll_create,
 * eventfd: nothing is left behind); when the last leaves, the thread ends after its current round. */
xc_status xc_pump_join(xc_err *err) XC_TAKES_PUMP;
void xc_pump_leave(void) XC_TAKES_PUMP;

/* Notices that the program has closed the pump's fds, and has them opened anew. Whoever wakes the pump does that, too.
 * A thread that waits for what only the pump can notice calls this now and then. Never blocks. */
void xc_pump_check(void) XC_TAKES_PUMP;

/* events: POLLIN or POLLOUT; 0 stops watching. The caller holds the lock that keeps watch->armed. Never blocks.
 * XC_SYS when the system refuses to watch (no memory): nothing was changed. */
xc_status xc_pump_arm(xc_watch *watch, short events) XC_TAKES_PUMP;

/* Fires at `when` (xc_now's clock) or a little later. A timer that is set already keeps the earlier of the two. */
void xc_pump_set(xc_timer *timer, int64_t when) XC_TAKES_PUMP;

/* Runs soon, after the jobs posted before. A job must not be posted again before it has run. */
void xc_pump_post(xc_job *job) XC_TAKES_PUMP;

/* The pump does not touch these again. Either may be NULL. */
void xc_pump_forget(xc_watch *watch, xc_timer *timer) XC_NEEDS_ROLE(pump) XC_TAKES_PUMP;

#endif
