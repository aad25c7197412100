/*
 * Receiving: what Channel uses of it.
 */
#ifndef XCPY_RECEIVE_H
#define XCPY_RECEIVE_H

#include "channel.h"

/* Methods of Channel: receive, waitclose and others. */
extern PyMethodDef xcpy_receive_methods[];

/* The slot tp_iternext. */
PyObject *xcpy_channel_next(ChannelObject *self);

#endif
