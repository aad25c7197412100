/*
 * Sends that do not wait: Channel._send_soon() and Gateway._send_soon().
 */
#ifndef XCPY_SOON_H
#define XCPY_SOON_H

#include "channel.h"

extern PyMethodDef xcpy_soon_methods[];         /* of Channel */
extern PyMethodDef xcpy_gateway_soon_methods[]; /* of Gateway */

int xcpy_sending_setup(PyObject *module, xcpy_state *state);

#endif
