/*
 * How a gateway stands and how it ends.
 */
#ifndef XCPY_GATEWAY_END_H
#define XCPY_GATEWAY_END_H

#include "gateway.h"

/* Raises how the link ended, from the Python side's _death(); `sending`: as an OSError for who wanted to send.
 * Returns NULL. */
PyObject *xcpy_raise_ended(GatewayObject *gateway, bool sending);

/* Methods of Gateway: hasreceiver, join, _state and others. */
extern PyMethodDef xcpy_end_methods[];

#endif
