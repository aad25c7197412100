/*
 * Callbacks: what Channel and Gateway ask of them.
 */
#ifndef XCPY_CALLBACKS_H
#define XCPY_CALLBACKS_H

#include "channel.h"

/* Channel.setcallback: see there. 0 or -1. */
int xcpy_set_callback(ChannelObject *channel, PyObject *callback, PyObject *endmarker);

/* The caller runs inside a callback of the gateway's, or inside setcallback(). */
bool xcpy_has_role(GatewayObject *gateway);

/* The channel is closed by this side: its callback, if any, gets its endmarker and is forgotten. */
void xcpy_end_callback(GatewayObject *gateway, xc_chan *chan);

/* What a channel is closed with for the exception that is set, which is taken away. New reference; NULL: no memory. */
PyObject *xcpy_tell_error(void);

/* Methods of Gateway: _run_callbacks. */
extern PyMethodDef xcpy_callback_methods[];

#endif
