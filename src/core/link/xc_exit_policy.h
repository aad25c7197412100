/*
 * How a worker's process ends once its link has. Without a goodbye the other side is gone and nobody wants the task's
 * result: SIGINT to it at once, SIGKILL soon after, whatever it does, also in C code that never checks for signals.
 * After a goodbye it has execnet's timeouts: 5 seconds, SIGINT, 10 seconds, exit status 1.
 * The I/O thread sees to it, so a task that holds the GIL changes nothing.
 */
#ifndef XC_EXIT_POLICY_H
#define XC_EXIT_POLICY_H

#include "xc_pump.h"

typedef struct {
    xc_timer timer;
    bool goodbye;
    int stage;
    bool (*busy)(void *arg); /* is a task running? On the pump's thread. */
    void *arg;
} xc_exit_policy;

/* Whether what ended a worker's link went wrong at its own end, so that nobody else knows of it. */
bool xc_exit_policy_is_ours(const xc_err *why);
/* Says so on `fd`, before the process ends in whichever way. Never blocks: a pipe that is full gets nothing. */
void xc_exit_policy_tell(const xc_err *why, int fd);

/* Sets it going; the first call counts. *policy is zeroed but for `busy` and `arg`, and lives as long as the process.
 */
void xc_exit_policy_begin(xc_exit_policy *policy, bool goodbye);

#endif
