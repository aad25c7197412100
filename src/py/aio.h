/*
 * asyncio: what Channel uses of it.
 */
#ifndef XCPY_AIO_H
#define XCPY_AIO_H

#include "channel.h"

/* Methods of Channel: areceive, asend. */
extern PyMethodDef xcpy_aio_methods[];

/* The slot am_anext. */
PyObject *xcpy_channel_anext(ChannelObject *self);

#endif
