/*
 * How a worker's process ends after its link has ended. Without a goodbye the near end is gone, and nobody wants the
 * task's result: SIGINT at once, SIGKILL soon after, which also ends C code that never checks for signals. After a
 * goodbye the tasks have execnet's timeouts: 5 seconds, SIGINT, 10 seconds, SIGKILL. The pump does all this, so a
 * task that holds the GIL cannot delay it.
 */
#ifndef XC_EXIT_POLICY_H
#define XC_EXIT_POLICY_H

#include "xc_pump.h"

typedef struct {
    xc_timer timer;
    bool goodbye;
    int stage;
    bool (*busy)(void *arg); /* does a task run? Called on the pump's thread. */
    void *arg;
} xc_exit_policy;

/* Whether a worker's link ended by a fault of its own end, of which the near end cannot know. */
bool xc_exit_policy_is_ours(const xc_err *why);
/* Writes that fault to `fd`, before the process ends. Never blocks: a full pipe gets nothing. */
void xc_exit_policy_tell(const xc_err *why, int fd);

/* Starts the timer; only the first call counts. *policy is zeroed except for `busy` and `arg`, and lives as long as the
 * process. */
void xc_exit_policy_begin(xc_exit_policy *policy, bool goodbye) XC_TAKES_PUMP;

#endif
