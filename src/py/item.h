/*
 * From a message that has arrived to the Python object in it.
 */
#ifndef XCPY_ITEM_H
#define XCPY_ITEM_H

#include "gateway.h"

/* The item in `msg` (taken), with the string coercion that the message has. New reference or NULL. `chan`: where the
 * message goes back to when a signal handler raises while an object of the program's is being made of a pickle; NULL:
 * nowhere. */
PyObject *xcpy_load_item(GatewayObject *gateway, xc_msg *msg, xc_chan *chan);

/* The error with which the far end closed a channel, as an exception instance; msg is taken. New reference or NULL. */
PyObject *xcpy_remote_error(GatewayObject *gateway, xc_msg *msg);

#endif
