/*
 * Writes to this process's own stderr without ever waiting. fd 2 may be a pipe that nobody empties or a halted
 * terminal, and it is shared with other processes: making it non-blocking would change it for them, too. And if poll(2)
 * says that there is room, another process may use that up a moment later.
 */
#ifndef XC_STDERR_H
#define XC_STDERR_H

#include "xc_base.h"

/* Writes at most n bytes; up to 4096 go into a pipe whole. XC_OK: *put > 0. XC_AGAIN: no room now. XC_EOF: fd 2 is
 * closed or broken, so that nobody can be told. Changes nothing about fd 2. */
xc_status xc_stderr_write(const void *bytes, size_t n, size_t *put);

#endif
