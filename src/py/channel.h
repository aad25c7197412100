/*
 * The type Channel, which programs subclass: its object, and how to get one.
 */
#ifndef XCPY_CHANNEL_H
#define XCPY_CHANNEL_H

#include "gateway.h"

typedef struct {
    PyObject_HEAD PyObject *dict;
    PyObject *weakrefs;
    xcpy_state *state;
    GatewayObject *gateway;   /* owned */
    xc_chan *chan;            /* owned: one count */
    atomic_bool executing;    /* it is the channel of a running task, which must not close it by hand */
    atomic_bool has_callback; /* setcallback was called, so nothing can be received */
    atomic_bool used;         /* an item was received */
    atomic_bool starts_task;  /* remote_exec() of this side has made it */
} ChannelObject;

int xcpy_channel_setup(PyObject *module, xcpy_state *state);

/* The Python object of that channel; a new one if there is none. Takes one count of `chan`. New reference or NULL. */
PyObject *xcpy_channel_of(GatewayObject *gateway, xc_chan *chan);

#endif
