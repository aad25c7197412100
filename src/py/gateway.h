/*
 * The type Gateway, which programs subclass: its object, and what other files use of it.
 */
#ifndef XCPY_GATEWAY_H
#define XCPY_GATEWAY_H

#include "state.h"
#include "xc_launch.h"

typedef struct {
    PyObject_HEAD PyObject *dict;
    PyObject *weakrefs;
    xcpy_state *state;       /* borrowed: our type's module owns it */
    xc_link *link;           /* owned; NULL before the gateway is started */
    xc_launch *launch;       /* owned; NULL at a worker */
    xc_region region;        /* owned: what _share() made, before the gateway is started */
    xc_lent lent;            /* owned: what _lend() made, before the gateway is started */
    PyObject *callbacks;     /* owned dict: channel id -> (callback, endmarker) */
    PyObject *parking;       /* owned: how greenlets wait, see park.c; NULL or None: without greenlets */
    PyObject *role_greenlet; /* owned: the greenlet that has the dispatcher role; NULL: none */
    bool dispatcher;         /* the callback thread was started */
    bool listens;            /* the worker's stderr is for _stderr() */
    bool is_worker;          /* it serves: the process that started it is trusted */
    atomic_bool pickles;     /* pickles are sent without being asked for, and loaded: see pickled.h */
} GatewayObject;

int xcpy_gateway_setup(PyObject *module, xcpy_state *state);

/* 0, or -1 with an exception: the gateway was not started, or belongs to the parent process. */
int xcpy_check_usable(GatewayObject *gateway);

/* The options of a link to a far end. False, with OSError set: the gateway was started before. */
bool xcpy_may_start(GatewayObject *gateway, xc_link_opts *opts);

#endif
