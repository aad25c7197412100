/*
 * Gateways through shared memory: the methods for the type Gateway.
 */
#ifndef XCPY_RINGS_H
#define XCPY_RINGS_H

#include "compat.h"

/* _share, _offer, _attach, _withdraw, _move. */
extern PyMethodDef xcpy_ring_methods[];

#endif
