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

/* Methods of Channel: set_limit. */
extern PyMethodDef xcpy_limit_methods[];

/* Methods of Gateway: _limit, _stats and _takes_limits. */
extern PyMethodDef xcpy_flow_methods[];

#endif
