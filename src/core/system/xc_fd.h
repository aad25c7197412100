/*
 * Fds that a program may close behind our back (os.closerange), after which another file may get the number: it must
 * be neither written to nor read from nor closed by us. So it is remembered what is behind each fd of ours, and checked
 * before use where that is rare. Of files without an inode of their own (eventfd, epoll, pidfd) one looks like
 * another, and only what kind they are is known when they are closed.
 */
#ifndef XC_FD_H
#define XC_FD_H

#include "xc_base.h"

/*
 * Lifts a new fd out of 0-2, where it would land in a process that closed its standard streams: whoever reopens those
 * would take it from us; and out of the numbers of those that the program has closed behind our back, whose owners do
 * not know it yet. The fd itself where there is no need, else a close-on-exec copy, the first one being closed.
 * -1 (and errno) when there is no fd left, closed as well; -1 in, -1 out.
 */
int xc_fd_lift(int fd);
/* A pipe, both ends lifted and close-on-exec. False: both are -1, errno says why. */
bool xc_make_pipe(int ends[2]);

/* `fd` is ours as it is now. Any thread; harmless for a negative one. */
void xc_fd_own(int fd);

/* False: what is behind it now is nothing, or another's. True as well for an fd that was never owned. One system call.
 */
bool xc_fd_ours(int fd);

/* Closes it if it is ours, and forgets it. Harmless for a negative one; in a forked child, too. */
void xc_fd_close(int fd);

#endif
