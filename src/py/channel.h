/*
 * The open type Channel: its object, and where to get one.
 */
#ifndef XCPY_CHANNEL_H
#define XCPY_CHANNEL_H

#include "gateway.h"

typedef struct {
    PyObject_HEAD PyObject *dict;
    PyObject *weakrefs;
    xcpy_state *state;
    GatewayObject *gateway; /* owned */
    xc_chan *chan;          /* owned: one count */
    bool executing;         /* a task runs with it: it may not be closed by hand */
    bool has_callback;      /* setcallback was called: nothing can be received */
    bool used;              /* an item was received */
} ChannelObject;

int xcpy_channel_setup(PyObject *module, xcpy_state *state);

/* The Python object of that channel, made if there is none. A count of chan is taken. New reference or NULL. */
PyObject *xcpy_channel_of(GatewayObject *gateway, xc_chan *chan);

#endif
