/* Threads and sleeps for the tests of xc_sync. */
#ifndef SYNC_RIG_H
#define SYNC_RIG_H

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "check.h"
#include "xc_sync.h"

typedef void *(*thread_body)(void *);

__attribute__((unused)) static pthread_t
start_thread(thread_body body, void *arg)
{
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, body, arg), 0);
    return thread;
}

__attribute__((unused)) static void
join_thread(pthread_t thread)
{
    CHECK_INT(pthread_join(thread, NULL), 0);
}

__attribute__((unused)) static xc_status
sleep_ms(int64_t ms)
{
    return xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, xc_after(ms * XC_MS));
}

/* A ring may wake a later sleep once too often (see xc_sync.c); this ends all that is left of earlier cases. */
__attribute__((unused)) static void
settle(void)
{
    while (sleep_ms(1) == XC_OK) {
    }
}

#endif
