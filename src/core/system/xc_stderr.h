/*
 * This process's own stderr, written to without ever waiting for it. It may be a pipe that nobody empties or a terminal
 * that was halted, and it is shared: making it non-blocking would change it for others, and what poll(2) says of its
 * room others may have used up a moment later.
 */
#ifndef XC_STDERR_H
#define XC_STDERR_H

#include "xc_base.h"

/* Writes at most n bytes, of which n <= 4096 go into a pipe whole. XC_OK: *put > 0. XC_AGAIN: no room now. XC_EOF: it
 * is closed or broken, and nobody there to be told. Changes nothing about fd 2. */
xc_status xc_stderr_write(const void *bytes, size_t n, size_t *put);

#endif
