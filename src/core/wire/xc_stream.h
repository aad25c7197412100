/*
 * Where bytes come from and go to: two non-blocking fds (which may be one and the same, a socket), or a ring in memory
 * that is shared with the far end (see xc_ring.h). Reading and writing never block and hide EINTR.
 */
#ifndef XC_STREAM_H
#define XC_STREAM_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "xc_ring.h"

typedef struct {
    int in;  /* owned; -1 when closed */
    int out; /* owned; -1 when closed; may equal `in` */
    xc_ring
        *ring; /* borrowed; NULL: none, the fds carry the bytes. Else they stay open, and tell of the far end's death */
    uint64_t checked; /* when the fds were last known to be ours: see xc_stream.c */
    bool polling;     /* who reads found nothing, and has not slept since: the fds need no other check */
    bool ends;        /* no more than `left` bytes are read from the fds, see xc_stream_end_here */
    size_t left;
    bool kept;           /* `out` outlives the writing side: the far end's I/O thread is notified through it */
    atomic_bool heard;   /* set by each read that brought something; whoever wants to know takes it back */
    atomic_size_t wrote; /* bytes so far; wraps around */
} xc_stream;

/* Takes both fds: makes them non-blocking and close-on-exec and, where they are pipes, as large as the system allows
 * (1 MiB by default on Linux; failing to enlarge is no error). On failure the fds are closed. */
xc_status xc_stream_open(xc_stream *stream, int in, int out, xc_err *err);

/* Reads at most n bytes. XC_OK: *got > 0. XC_AGAIN: nothing there. XC_EOF. XC_SYS (ECONNRESET counts as XC_EOF). */
xc_status xc_stream_read(xc_stream *stream, void *into, size_t n, size_t *got, xc_err *err);

/* The same into two places, the second one after the first is full. */
xc_status xc_stream_read_two(xc_stream *stream, const struct iovec parts[2], size_t *got, xc_err *err);

/* Who wrote at the other end is gone: what is there by now is still read, then comes XC_EOF, whoever else may write on.
 * A ring has nobody else. For who reads, alone; again it does nothing. */
void xc_stream_end_here(xc_stream *stream);

/* Writes what goes in without waiting. XC_OK: *put > 0, perhaps less than all (0 only if all parts are empty).
 * XC_AGAIN: full, *put == 0. XC_EOF: nobody reads any more (EPIPE, ECONNRESET). No SIGPIPE is raised in the caller's
 * process unless its SIGPIPE is at default, which CPython never leaves so. */
xc_status xc_stream_write(xc_stream *stream, const struct iovec *parts, int n, size_t *put, xc_err *err);

/* --- waiting, after XC_AGAIN; for who reads (`events` POLLIN) or writes (POLLOUT) alone -------------------------- */

/* Sleeps until it is worth another try, the thread's own bell rings, or the deadline passes: as xc_bell_sleep_nogil.
 * From a ring no far end's death wakes: who learns of it rings the bell. */
xc_status xc_stream_sleep_nogil(xc_stream *stream, xc_bell *bell, short events, int64_t until);

/* Whether the program has left us our fds: XC_OK or XC_SYS (EBADF). Reads and writes through them check every now and
 * then. */
xc_status xc_stream_check(const xc_stream *stream, xc_err *err);

/* What was written and nobody has taken yet (bytes); 0 where the system does not say. Any thread. */
size_t xc_stream_unread(const xc_stream *stream);
/* Something is there to be read, an end perhaps. Any thread. */
bool xc_stream_has_more(const xc_stream *stream);

/* Idempotent. Closing the writing side of a socket shuts it down; one that is kept is left open, and a ring closed. The
 * other closes what is left, and leaves a ring alone. */
void xc_stream_close_write(xc_stream *stream);
void xc_stream_close(xc_stream *stream);

/* Drops `n` bytes from the front of *parts, *count. */
void xc_iov_advance(struct iovec **parts, int *count, size_t n);

#endif
