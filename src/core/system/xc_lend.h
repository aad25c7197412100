/*
 * How a worker on this machine gets this process's own stderr.
 *
 * Until the worker serves, its stderr is a file; or a pipe, where a program in between may close other fds. Then the
 * worker puts our stderr in its place. So the order of what both processes print is kept, and a terminal stays a
 * terminal. From then on the file is for last words that nobody else would see: the traceback of a crash, or the
 * exception that ended the worker.
 *
 * The file begins with what the worker printed before it served, or else with a zero byte and then the last words. A
 * zero byte ends both. The file is sealed memory that nobody can shrink, and it is mapped, so this side needs no fd for
 * it. Where there is no such memory it is a file without a name, and its fd stays open.
 */
#ifndef XC_LEND_H
#define XC_LEND_H

#include "xc_sync.h"

enum { XC_LEND_CHUNK = 4096 };

typedef struct {
    int ends[2]; /* owned, close-on-exec: the pipe; both -1 if there is none */
    int file;    /* owned, close-on-exec */
    int ours;    /* owned, close-on-exec: our stderr, or /dev/null where that is closed; -1: nothing is lent */
    const unsigned char *map; /* owned; NULL: the file is read. Not in forked children */
    uint32_t forks;           /* const: xc_fork_count at birth */
} xc_lent;

#define XC_LENT_NOTHING ((xc_lent){.ends = {-1, -1}, .file = -1, .ours = -1})

/* `by_pipe`: use a pipe until the worker serves. XC_SYS: no fd left, or no file can be made; nothing is left behind
 * then. */
xc_status xc_lend(bool by_pipe, xc_lent *out, xc_err *err);

/* The fd that is the worker's stderr at first; borrowed. */
int xc_lent_stderr(const xc_lent *lent);

/* Call it when the worker has its copies, or could not be started: closes all that is not needed for reading. */
void xc_lent_passed(xc_lent *lent);

/* Whether the worker has put our stderr in place of the file: if so, the text in the file is its last words. */
bool xc_lent_taken(const xc_lent *lent);

/* Copies the text in the file from byte `at` on, XC_LEND_CHUNK bytes at most. Returns the number of bytes; 0: the
 * end. */
size_t xc_lent_read(const xc_lent *lent, size_t at, void *into);

/* Idempotent. */
void xc_lent_close(xc_lent *lent);

#endif
