/*
 * The two open types, Gateway and Channel, as the C files of this floor share them.
 */
#ifndef XCPY_GATEWAY_H
#define XCPY_GATEWAY_H

#include "dump.h"
#include "load.h"
#include "state.h"
#include "xc_launch.h"

typedef struct {
    PyObject_HEAD PyObject *dict;
    PyObject *weakrefs;
    xcpy_state *state;   /* borrowed: our type's module owns it */
    xc_link *link;       /* owned; NULL until it is started */
    xc_launch *launch;   /* owned; NULL at a worker */
    xc_region region;    /* owned: what _share() made, until it is started */
    xc_lent lent;        /* owned: what _lend() made, until it is started */
    PyObject *callbacks; /* owned dict: channel id -> (callback, endmarker) */
    PyObject *parking;   /* owned: how greenlets wait, see park.c; NULL or None: there are none */
    PyObject *role_of;   /* owned: the greenlet that has the dispatcher role; NULL: none has */
    bool dispatcher;     /* the callback thread was started */
    bool listens;        /* the worker's stderr is for _stderr() */
} GatewayObject;

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

int xcpy_gateway_setup(PyObject *module, xcpy_state *state);
int xcpy_channel_setup(PyObject *module, xcpy_state *state);

/* --- gateway.c -------------------------------------------------------------------------------------------------- */

/* 0, or -1 with an exception: the gateway was not started, or belongs to the parent process. */
int xcpy_check_usable(GatewayObject *gateway);

/* Raises how the link ended, from the Python side's _death(); `sending`: as an OSError for who wanted to send.
 * Returns NULL. */
PyObject *xcpy_raise_ended(GatewayObject *gateway, bool sending);

/* For a link to a far end: its options. False, with OSError set, where the gateway was started before. */
bool xcpy_may_start(GatewayObject *gateway, xc_link_opts *opts);

/* --- channel.c -------------------------------------------------------------------------------------------------- */

/* The Python object of that channel, made if there is none. A count of chan is taken. New reference or NULL. */
PyObject *xcpy_channel_of(GatewayObject *gateway, xc_chan *chan);

/* The item in `msg` (taken), with the string coercion that it came with. New reference or NULL. */
PyObject *xcpy_load_item(GatewayObject *gateway, xc_msg *msg);

/* The text with which the far end closed a channel, as an exception instance; msg is taken. New reference or NULL. */
PyObject *xcpy_remote_error(GatewayObject *gateway, xc_msg *msg);

/* --- callbacks.c ------------------------------------------------------------------------------------------------ */

/* Channel.setcallback: see there. 0 or -1. */
int xcpy_set_callback(ChannelObject *channel, PyObject *callback, PyObject *endmarker);

/* The caller runs inside a callback of the gateway's, or inside setcallback(). */
bool xcpy_has_role(GatewayObject *gateway);

/* The channel is closed by this side: its callback, if any, gets its endmarker and is forgotten. */
void xcpy_end_callback(GatewayObject *gateway, xc_chan *chan);

/* What a channel is closed with for the exception that is set, which is taken away. New reference; NULL: no memory. */
PyObject *xcpy_tell_error(void);

extern PyMethodDef xcpy_run_callbacks_method;

/* --- tasks.c ---------------------------------------------------------------------------------------------------- */

/* Any thread, once the pump runs: see to it that threads can end where a task keeps all fds. Does not wait. */
void xcpy_have_threads_end(void);

extern PyMethodDef xcpy_task_methods[];

/* --- relay.c ---------------------------------------------------------------------------------------------------- */

extern PyMethodDef xcpy_relay_methods[];

/* --- connected.c ------------------------------------------------------------------------------------------------ */

extern PyMethodDef xcpy_connected_methods[];

/* --- memory.c --------------------------------------------------------------------------------------------------- */

extern PyMethodDef xcpy_memory_methods[];

/* --- stderr.c --------------------------------------------------------------------------------------------------- */

extern PyMethodDef xcpy_stderr_methods[];

#endif
