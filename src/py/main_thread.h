/*
 * Which thread is the main one: for signals, whose handlers run there, and for `threading` (see mainthread.py). The GIL
 * is held.
 */
#ifndef XCPY_MAIN_THREAD_H
#define XCPY_MAIN_THREAD_H

#include "state.h"

#include <stdbool.h>

/* Whether handlers of signals run on this thread. Costs next to nothing. */
bool xcpy_on_main_thread(xcpy_state *state);

/* Module function: _main_thread_ident(). */
extern PyMethodDef xcpy_main_thread_methods[];

#endif
