/*
 * What a worker of this machine is lent so that it can have our own stderr.
 *
 * Until it serves, its stderr is caught: by a file, or by a pipe where a program in between may not let other fds
 * through. Then it puts ours there, as it is: the order of what both say is kept, and a terminal stays one. From then
 * on the file is for its last words, which nobody else gets to see: a crash's traceback, an exception that ended it.
 *
 * The file begins with what was said before the worker served, or else with a zero byte that the last words follow;
 * a zero byte ends both. It is memory that cannot be cut off under us, and mapped, so that this side needs no fd for
 * it; where there is no such memory, a file without a name, whose fd stays open.
 */
#ifndef XC_LEND_H
#define XC_LEND_H

#include "xc_sync.h"

enum { XC_LEND_CHUNK = 4096 };

typedef struct {
    int ends[2]; /* owned, close-on-exec: the pipe, -1 where there is none */
    int file;    /* owned, close-on-exec */
    int ours;    /* owned, close-on-exec: our stderr, or /dev/null where that is closed; -1: nothing is lent */
    const unsigned char *map; /* owned; NULL: the file is read. Not in forked children */
    uint32_t forks;           /* const: xc_fork_count at birth */
} xc_lent;

#define XC_LENT_NOTHING ((xc_lent){.ends = {-1, -1}, .file = -1, .ours = -1})

/* `by_pipe`: what is said until the worker serves. XC_SYS: no fds, no such file can be made; nothing is left behind. */
xc_status xc_lend(bool by_pipe, xc_lent *out, xc_err *err);

/* The fd that is the worker's stderr at first; borrowed. */
int xc_lent_stderr(const xc_lent *lent);

/* The worker has its copies, or there is none: closes all that is not for reading. */
void xc_lent_passed(xc_lent *lent);

/* Whether the worker has put our stderr in its place: what can be read are its last words then. */
bool xc_lent_taken(const xc_lent *lent);

/* The text in the file, from its byte `at` on, XC_LEND_CHUNK bytes at most: how many; 0: that was all. */
size_t xc_lent_read(const xc_lent *lent, size_t at, void *into);

/* Idempotent. */
void xc_lent_close(xc_lent *lent);

#endif
