/*
 * How a Python thread waits and sends: the only place where the GIL is released.
 */
#ifndef XCPY_IO_H
#define XCPY_IO_H

#include "gateway.h"

/* None: XC_FOREVER. A number of seconds: the deadline; what is too far away to count is for ever.
 * 0, or -1 with TypeError or ValueError (negative where `negative_ok` is false, nan). */
int xcpy_deadline(PyObject *timeout, bool negative_ok, int64_t *until);

/*
 * Waits, GIL released, for wait->until at most. 0: it holds. 1: the deadline passed. -1: an exception came out of a
 * signal handler; nothing was lost. Ctrl-C on the main thread ends it within 0.1 s: by EINTR, or, when the signal came
 * just before the sleep, by the end of a slice.
 */
int xcpy_wait(GatewayObject *gateway, xc_wait *wait);

/* How a method with a timeout begins: the gateway is usable, and wait->until is the deadline. 0 or -1. */
int xcpy_begin_wait(GatewayObject *gateway, PyObject *timeout, xc_wait *wait);

/* Waits for `kind`; None or a number of seconds. New reference to True (it holds) or False; NULL. */
PyObject *xcpy_wait_for(GatewayObject *gateway, xc_wait_kind kind, PyObject *timeout);

/* Sends a message whose payload is the encoding of `item` (NULL: no payload). 0 or -1. What an exception out of a
 * signal handler interrupts is written to its end by others where it is one frame; of a long message nothing will
 * arrive. */
int xcpy_send(GatewayObject *gateway, xc_code code, uint32_t id, PyObject *item);

/* The same for bytes that are no frame; borrowed. */
int xcpy_send_raw(GatewayObject *gateway, const void *bytes, size_t n);

#endif
