/*
 * Gateways through other gateways: the methods for the type Gateway.
 */
#ifndef XCPY_RELAY_H
#define XCPY_RELAY_H

#include "compat.h"

/* _post, _start_over, _relay. */
extern PyMethodDef xcpy_relay_methods[];

#endif
