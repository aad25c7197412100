/*
 * The open type Gateway: its object, and what other files ask of it.
 */
#ifndef XCPY_GATEWAY_H
#define XCPY_GATEWAY_H

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

int xcpy_gateway_setup(PyObject *module, xcpy_state *state);

/* 0, or -1 with an exception: the gateway was not started, or belongs to the parent process. */
int xcpy_check_usable(GatewayObject *gateway);

/* For a link to a far end: its options. False, with OSError set, where the gateway was started before. */
bool xcpy_may_start(GatewayObject *gateway, xc_link_opts *opts);

#endif
