/*
 * Which thread is the main one: for signals, whose handlers run there, and for `threading` (see mainthread.py). The GIL
 * is held.
 */
#ifndef XCPY_MAIN_THREAD_H
#define XCPY_MAIN_THREAD_H

#include "state.h"

#include <stdint.h>

/* How long (ns) this thread may sleep before it checks for signals; XC_FOREVER where their handlers do not run on it.
 * Costs next to nothing. */
int64_t xcpy_longest_sleep(xcpy_state *state);

/* Module function: _main_thread_ident(). */
extern PyMethodDef xcpy_main_thread_methods[];

#endif
