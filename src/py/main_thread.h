/*
 * Which thread is the main one: for signals, whose handlers run on it, and for `threading` (see mainthread.py). Call
 * these with the GIL held.
 */
#ifndef XCPY_MAIN_THREAD_H
#define XCPY_MAIN_THREAD_H

#include "state.h"

#include <stdint.h>

/* How long (ns) this thread may sleep before it must check for signals; XC_FOREVER if signal handlers do not run on it.
 * Cheap. */
int64_t xcpy_longest_sleep(xcpy_state *state);

/* Module function: _main_thread_ident(). */
extern PyMethodDef xcpy_main_thread_methods[];

#endif
