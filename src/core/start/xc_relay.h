/*
 * A stream of bytes through a channel of a link: what makes a gateway through another gateway.
 *
 * Each XC_DATA of the channel is one bytes object with a piece of the stream. What arrives is written to one fd, what
 * is read from another one is sent, by the I/O thread alone and is not decoded. The end of either
 * direction is told by XC_LAST_MESSAGE; XC_CLOSE ends both.
 *
 * It reads only while little waits to be written to the link: a slow link holds back who writes to the fd. What
 * arrives faster than the fd takes it is kept in memory.
 */
#ifndef XC_RELAY_H
#define XC_RELAY_H

#include "xc_launch.h"

/* Bytes in one message at most: its frame fits into a reader's buffer as a whole. */
enum { XC_RELAY_PIECE = 48 * 1024 };

/*
 * The stream runs until both directions have ended; nobody has to see to it. The functions take counts of their own,
 * and on failure leave nothing behind. None of them sleeps but for the start of a process.
 */

/* Over these two fds, which are taken. */
xc_status xc_relay_fds(xc_link *link, xc_chan *stream, int in, int out, xc_err *err);

/* The near end: a new link (one count for the caller) whose stream is that one. */
xc_status xc_relay_link(xc_link *outer, xc_chan *stream, const xc_link_opts *opts, xc_link **link, xc_err *err);

/*
 * The far end: starts the program (as xc_launch_start does), its standard input and output being the stream. An int
 * that comes on `control` is a signal for it. Once it has ended, (status or None, end of its stderr as bytes) goes out
 * there, and the channel is closed. *pid is valid at once.
 */
xc_status xc_relay_process(xc_link *link, xc_chan *stream, xc_chan *control, const xc_program *program, pid_t *pid,
                           xc_err *err);

#endif
