/*
 * A stream of bytes through a channel of a link: it carries a gateway through another gateway.
 *
 * Each XC_DATA of the channel is one bytes object with a piece of the stream. The pump alone writes what arrives to one
 * fd, and sends what it reads from another; nothing is decoded. XC_LAST_MESSAGE tells the end of one direction;
 * XC_CLOSE ends both.
 *
 * The relay only reads while little waits to be written to the link, and while what the other end has not written to
 * its fd yet is less than a window: so a slow link, or a slow reader at the other end, slows down whoever writes to the
 * fd. What arrives faster than the fd takes it is kept in memory: a window at most.
 */
#ifndef XC_RELAY_H
#define XC_RELAY_H

#include "xc_launch.h"

/* Bytes in one message at most: so its whole frame fits into a reader's buffer. */
enum { XC_RELAY_PIECE = 48 * 1024 };

/* The limit of the channel in each direction, which both ends know: as much as a link of 100 MB/s carries in 10 ms. */
enum { XC_RELAY_WINDOW = 1024 * 1024 };

/* The stream runs until both directions have ended, and then frees itself. The functions take counts of their own, and
 * on failure leave nothing behind. None of them sleeps, except while a process starts. */

/* Through these two fds, which are taken. */
xc_status xc_relay_fds(xc_link *link, xc_chan *stream, int in, int out, xc_err *err) XC_TAKES_LINK;

/* The near end: a new link (one count for the caller) whose bytes go through `stream`. `err` is not NULL. */
xc_status xc_relay_link(xc_link *outer, xc_chan *stream, const xc_link_opts *opts, xc_link **link,
                        xc_err *err) XC_TAKES_LINK;

/*
 * The far end: starts the program (as xc_launch_start does) with its standard input and output connected to `stream`.
 * An int that comes on `control` is a signal for the process. When it has ended, (status or None, end of its stderr as
 * bytes) is sent on `control`, which is then closed. *pid is valid at once.
 */
xc_status xc_relay_process(xc_link *link, xc_chan *stream, xc_chan *control, const xc_program *program, pid_t *pid,
                           xc_err *err) XC_TAKES_LINK;

#endif
