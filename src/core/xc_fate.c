#include "xc_fate.h"

#include <signal.h>
#include <unistd.h>

/* execnet's figures for an orderly end; ours for a hang-up: killed within 2 seconds. */
#define PATIENCE     (5 * XC_S)
#define LAST_CHANCE  (10 * XC_S)
#define HANGUP_GRACE (1500 * XC_MS)

static void
fire(xc_timer *timer)
{
    xc_fate *fate = timer->owner;
    if (fate->stage++ == 0) {
        if (fate->busy(fate->arg)) {
            (void)kill(getpid(), SIGINT);
        }
        xc_pump_set(timer, xc_after(fate->goodbye ? LAST_CHANCE : HANGUP_GRACE));
        return;
    }
    if (!fate->goodbye) {
        (void)kill(getpid(), SIGKILL);
    }
    if (fate->busy(fate->arg)) {
        _exit(1);
    }
}

void
xc_fate_begin(xc_fate *fate, bool goodbye)
{
    if (fate->timer.fire != NULL) {
        return;
    }
    fate->goodbye = goodbye;
    fate->timer.fire = fire;
    fate->timer.owner = fate;
    xc_pump_set(&fate->timer, goodbye ? xc_after(PATIENCE) : xc_now());
}
