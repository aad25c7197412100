/*
 * How a Python thread waits and sends. Most releases of the GIL are in here.
 */
#ifndef XCPY_IO_H
#define XCPY_IO_H

#include "channel.h"
#include "dump.h"

/*
 * A frame of up to this size (bytes) is first tried with the GIL held: the fd is non-blocking and takes such a frame in
 * a few microseconds, but beside a computing Python thread a release of the GIL may cost the switch interval, 5 ms. The
 * round trip of an int beside such a thread takes 1.0 ms this way, and 2.6 to 3.3 ms with the GIL released for each
 * write.
 */
enum { XCPY_SMALL_FRAME = 16 * 1024, XCPY_STACK_PARTS = 10 };

/* None: XC_FOREVER. A number of seconds: the deadline; XC_FOREVER if that is too far away. 0, or -1 with TypeError or
 * ValueError (nan; a negative number unless `negative_ok`). */
int xcpy_deadline(PyObject *timeout, bool negative_ok, int64_t *until);

/*
 * Waits with the GIL released, until wait->until at most. 0: the condition holds. 1: the deadline passed. -1: a signal
 * handler raised; nothing was lost. On the main thread Ctrl-C ends the wait within 0.1 s: by EINTR, or, if the signal
 * came just before the sleep, by the end of a slice.
 */
int xcpy_wait(GatewayObject *gateway, xc_wait *wait);

/* The beginning of a method with a timeout: checks that the gateway is usable, and sets wait->until. 0 or -1. */
int xcpy_begin_wait(GatewayObject *gateway, PyObject *timeout, xc_wait *wait);

/* Waits for `kind`; timeout: None or a number of seconds. New reference to True (the condition holds) or False;
 * NULL. */
PyObject *xcpy_wait_for(GatewayObject *gateway, xc_wait_kind kind, PyObject *timeout);

/* Sends a message whose payload is the encoding of `item` (NULL: no payload). 0 or -1. If a signal handler raises
 * meanwhile, others write the rest of a single frame; nothing of a long message will arrive. */
int xcpy_send(GatewayObject *gateway, xc_code code, uint32_t id, PyObject *item);

/* Sends an item, as a pickle if `pickled` says so; where the channel has a limit it first waits for credit: see
 * xcpy_claim. */
int xcpy_send_item(ChannelObject *channel, PyObject *item, bool pickled, PyObject *timeout, int64_t until);

/* The same as xcpy_send for bytes that are no frame; they are borrowed. */
int xcpy_send_raw(GatewayObject *gateway, const void *bytes, size_t n);

/* --- the steps of a send, for soon.c --- */

/* Encodes an item (NULL: no payload) into the empty `frame`, behind room for a header. `channel`: NULL if it is no item
 * of one. 0 or -1; in both cases xcpy_dumped_fini is to be called. */
int xcpy_encode(GatewayObject *gateway, ChannelObject *channel, xc_code code, PyObject *item, bool pickled,
                xcpy_dumped *frame);
/* The pieces of a frame, *n of them, begin at [1]; [0] is free. Returns `few`, or an array to be freed by PyMem_Free;
 * NULL. */
struct iovec *xcpy_parts_of(const xcpy_dumped *frame, struct iovec few[XCPY_STACK_PARTS], int *n);
/* Sends a payload in `n` parts; the first part has room for a header in front, and parts[-1] is free. *sent: it will
 * arrive, whatever the result is. 0 or -1. */
int xcpy_send_message(GatewayObject *gateway, xc_long_frame *message, struct iovec *parts, int n, bool *sent);
/* Tells the far end the limits of the channels in what was sent. */
void xcpy_tell_limits(GatewayObject *gateway, const xcpy_dumped *frame);
/* Raises why a frame was not sent. Returns -1. */
int xcpy_raise_unsent(GatewayObject *gateway, const xc_err *err);

#endif
