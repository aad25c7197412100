/*
 * Waiting where threads are shared by greenlets (gevent, eventlet): a greenlet is parked, and others run on its thread.
 */
#ifndef XCPY_PARK_H
#define XCPY_PARK_H

#include "gateway.h"

enum { XCPY_NOT_PARKED = 2 };

/* The gateway's waits may be for greenlets. */
bool xcpy_parks(GatewayObject *gateway);

/* As xcpy_wait. XCPY_NOT_PARKED: nobody else runs on this thread, so it may sleep. */
int xcpy_park(GatewayObject *gateway, xc_wait *wait);

/* Lets others run for a moment, before the caller tries again to send. 0; -1: an exception was thrown in.
 * XCPY_NOT_PARKED: as above, and nothing happened. */
int xcpy_pause(GatewayObject *gateway);

/* Who is running, for comparing only: a greenlet, or None on a thread without any. New reference or NULL. */
PyObject *xcpy_who(GatewayObject *gateway);

/* Has func() run beside the caller: 0 or -1. */
int xcpy_start_beside(GatewayObject *gateway, PyObject *func);

int xcpy_registration_setup(PyObject *module, xcpy_state *state);

#endif
