#include "xc_exit_policy.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "xc_fd.h"

/* For an orderly end execnet's figures; without a goodbye ours: the process is killed within 2 seconds. */
#define GOODBYE_TIMEOUT (5 * XC_S)
#define LAST_CHANCE     (10 * XC_S)
#define HANGUP_GRACE    (1500 * XC_MS)

static void
fire(xc_timer *timer)
{
    xc_exit_policy *policy = timer->owner;
    if (policy->stage++ == 0) {
        if (policy->busy(policy->arg)) {
            (void)kill(getpid(), SIGINT);
        }
        xc_pump_set(timer, xc_after(policy->goodbye ? LAST_CHANCE : HANGUP_GRACE));
        return;
    }
    if (!policy->goodbye || policy->busy(policy->arg)) {
        (void)kill(getpid(), SIGKILL);
        _exit(1); /* this is process 1 of a namespace, which no signal of its own kills */
    }
}

bool
xc_exit_policy_is_ours(const xc_err *why)
{
    switch (why->code) {
    case XC_OK:
    case XC_CLOSED:
    case XC_EOF:
    case XC_SILENT:
        return false;
    case XC_SYS: /* over a socket, an end without a goodbye may look like this */
        return why->sys_errno != ECONNRESET && why->sys_errno != EPIPE && why->sys_errno != ETIMEDOUT;
    default:
        return true;
    }
}

void
xc_exit_policy_tell(const xc_err *why, int fd)
{
    char line[320];
    const char *what = why->detail[0] != '\0' ? why->detail : xc_status_name(why->code);
    if (why->code == XC_NOMEM) {
        what = "no memory";
    }
    int n = snprintf(line, sizeof line, "execnet_c: the connection broke here: %s: %s%s%s\n", why->step, what,
                     why->sys_errno != 0 ? ": " : "", why->sys_errno != 0 ? strerror(why->sys_errno) : "");
    struct pollfd poller = {.fd = fd, .events = POLLOUT};
    bool whole = n > 0 && n < (int)sizeof line;
    if (whole && xc_fd_ours(fd) && poll(&poller, 1, 0) == 1 && (poller.revents & POLLOUT) != 0) {
        ssize_t ignored = write(fd, line, (size_t)n);
        (void)ignored;
    }
}

void
xc_exit_policy_begin(xc_exit_policy *policy, bool goodbye)
{
    XC_ASSERT(policy->busy != NULL);
    if (policy->timer.fire != NULL) {
        return;
    }
    policy->goodbye = goodbye;
    policy->timer.fire = fire;
    policy->timer.owner = policy;
    xc_pump_set(&policy->timer, goodbye ? xc_after(GOODBYE_TIMEOUT) : xc_now());
}
