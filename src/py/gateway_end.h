/*
 * The state of a gateway, and its end.
 */
#ifndef XCPY_GATEWAY_END_H
#define XCPY_GATEWAY_END_H

#include "gateway.h"

/* Raises the reason why the link ended, which the Python method _death() makes. `sending`: as an OSError, for a caller
 * that wanted to send. Returns NULL. */
PyObject *xcpy_raise_ended(GatewayObject *gateway, bool sending);

/* Methods of Gateway: hasreceiver, join, _state and others. */
extern PyMethodDef xcpy_end_methods[];

#endif
