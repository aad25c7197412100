/*
 * Interrupting tasks: Channel.interrupt(), and what a worker needs for it.
 */
#ifndef XCPY_INTERRUPT_H
#define XCPY_INTERRUPT_H

#include "compat.h"

extern PyMethodDef xcpy_interrupt_methods[];    /* of Channel */
extern PyMethodDef xcpy_interrupting_methods[]; /* of Gateway */

#endif
