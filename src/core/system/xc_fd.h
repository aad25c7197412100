/*
 * Our fds, and how to notice that one of them is not ours any more. A program may close it behind our back
 * (os.closerange), and then another file may get its number: that file must be neither read, written nor closed by us.
 * So a table (xc_fd.c) remembers the file behind each fd that was given to xc_fd_own. Code that uses an fd rarely
 * compares first, by xc_fd_ours.
 *
 * Files without an inode of their own (eventfd, epoll, pidfd) look all the same; only xc_fd_close compares their kind.
 */
#ifndef XC_FD_H
#define XC_FD_H

#include <fcntl.h>
#include <sys/syscall.h>

#include "xc_base.h"

#if defined(SYS_memfd_create) && defined(F_ADD_SEALS) && !defined(XC_PORTABLE)
#define XC_HAS_MEMFD 1
#else
#define XC_HAS_MEMFD 0
#endif

/*
 * Moves a new fd to another number where its own is dangerous:
 * - 0 to 2, in a process that has closed its standard streams: whoever opens those again would replace our file.
 * - A number in the table: the program has closed that fd behind our back, and its owner here does not know it yet.
 *
 * Returns `fd` where its number is fine, else a close-on-exec copy, and `fd` is closed. -1 with errno: no fd was left,
 * and `fd` is closed, too. -1 in, -1 out.
 */
int xc_fd_lift(int fd);
/* A pipe, both ends lifted and close-on-exec. False with errno: both are -1. */
bool xc_make_pipe(int ends[2]);
#if XC_HAS_MEMFD
/* Memory as a file that can be sealed: empty, lifted, close-on-exec. -1 with errno. */
int xc_make_memfd(const char *name);
#endif

/* Closes a new fd that is not in the table yet, and sets it to -1. Keeps errno. A negative fd is ignored. */
void xc_fd_drop(int *fd);

/* Remembers the file behind `fd` as ours. Any thread; a negative fd is ignored. */
void xc_fd_own(int fd);

/* False: `fd` is closed, or another file has its number. True also for an fd that is not in the table. One system
 * call. */
bool xc_fd_ours(int fd);

/* Closes `fd`, which was given to xc_fd_own, if it is still ours, and forgets it. A negative fd is ignored. A forked
 * child may call it, too. */
void xc_fd_close(int fd);

#endif
