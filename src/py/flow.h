/*
 * Flow control as programs see it: a sender that waits for credit, and limits. The mechanism is in
 * ../core/link/xc_credit.c.
 */
#ifndef XCPY_FLOW_H
#define XCPY_FLOW_H

#include "channel.h"

/* Waits, until `until` at most, for credit for an item of that cost, which is counted then. `timeout` is what the
 * caller has given for that. 0 or -1: TimeoutError, OSError when the channel is closed, or what a signal handler
 * raised. */
int xcpy_claim(ChannelObject *channel, uint64_t cost, PyObject *timeout, int64_t until);

/* As xc_chan_count_sent. All that send to a channel of a program have the GIL, so that no atomic addition is needed,
 * which would take 6 ns of the 110 of a send(). */
static inline bool
xcpy_count_sent(xc_chan *chan, uint64_t cost)
{
#ifdef Py_GIL_DISABLED
    return xc_chan_count_sent(chan, cost);
#else
    if (atomic_load_explicit(&chan->credit.limited, memory_order_relaxed)) {
        return false;
    }
    uint64_t sent = atomic_load_explicit(&chan->credit.sent, memory_order_relaxed);
    atomic_store_explicit(&chan->credit.sent, sent + cost, memory_order_relaxed);
    return true;
#endif
}

/* Methods of Channel: set_limit. */
extern PyMethodDef xcpy_limit_methods[];

/* Methods of Gateway: _limit, _stats and _takes_limits. */
extern PyMethodDef xcpy_flow_methods[];

#endif
