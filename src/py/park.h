/*
 * Waiting on a thread that greenlets share (gevent, eventlet): the greenlet is parked, and others run on its thread.
 */
#ifndef XCPY_PARK_H
#define XCPY_PARK_H

#include "gateway.h"

enum { XCPY_NOT_PARKED = 2 };

/* True: a wait of this gateway may be a greenlet's. */
bool xcpy_parks(GatewayObject *gateway);

/* Like xcpy_wait. XCPY_NOT_PARKED: no greenlet shares this thread, so it may sleep. */
int xcpy_park(GatewayObject *gateway, xc_wait *wait);

/* Lets other greenlets run for a moment. 0; -1: an exception was thrown in. XCPY_NOT_PARKED: as above, and nothing
 * happened. */
int xcpy_pause(GatewayObject *gateway);

/* The running greenlet, only to be compared; None on a thread without greenlets. New reference or NULL. */
PyObject *xcpy_who(GatewayObject *gateway);

/* Runs func() in a new greenlet or thread: 0 or -1. */
int xcpy_start_beside(GatewayObject *gateway, PyObject *func);

/* A new Registration for `wait`, whose channel is `channel`: `number` is written to `fd` when that is over. NULL. */
PyObject *xcpy_notify(GatewayObject *gateway, PyObject *channel, const xc_wait *wait, int fd,
                      unsigned long long number);

int xcpy_registration_setup(PyObject *module, xcpy_state *state);

#endif
