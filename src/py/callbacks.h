/*
 * Callbacks: what Channel and Gateway use of them.
 */
#ifndef XCPY_CALLBACKS_H
#define XCPY_CALLBACKS_H

#include "channel.h"

/* Does what Channel.setcallback says. 0 or -1. */
int xcpy_set_callback(ChannelObject *channel, PyObject *callback, PyObject *endmarker);

/* True: the caller runs inside a callback of this gateway, or inside setcallback(). */
bool xcpy_has_role(GatewayObject *gateway);

/* This side closes the channel: its callback, if any, is called with its endmarker and removed. */
void xcpy_end_callback(GatewayObject *gateway, xc_chan *chan);

/* Clears the exception that is set, and returns the error with which a channel is closed for it. New reference; NULL:
 * no memory. */
PyObject *xcpy_tell_error(void);

/* Methods of Gateway: _run_callbacks. */
extern PyMethodDef xcpy_callback_methods[];

#endif
