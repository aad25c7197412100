/*
 * Gateways over sockets: the methods for the type Gateway.
 */
#ifndef XCPY_SOCKETS_H
#define XCPY_SOCKETS_H

#include "compat.h"

/* _start_on. */
extern PyMethodDef xcpy_socket_methods[];

#endif
