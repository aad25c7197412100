/*
 * Where bytes come from and go to: two non-blocking fds (which may be one and the same, a socket), or a ring in memory
 * that is shared with the far end (see xc_ring.h). Reading and writing never block, and EINTR is handled inside.
 */
#ifndef XC_STREAM_H
#define XC_STREAM_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "xc_ring.h"

typedef struct {
    int in;           /* owned; -1 when closed */
    int out;          /* owned; -1 when closed; may equal `in` */
    xc_ring *ring;    /* borrowed; NULL: the fds carry the bytes. Else they stay open and tell of the far end's death */
    uint64_t checked; /* when the fds were last found to be ours: ticks() in xc_stream.c */
    bool polling;     /* the last read found nothing, and nobody slept since: the fd was checked then */
    bool ends;        /* xc_stream_end_here was called: `left` more bytes, then XC_EOF */
    size_t left;
    bool kept;           /* xc_stream_close_write leaves `out` open: the far end's pump is notified through it */
    atomic_bool heard;   /* set by each read that brought something; xc_keepalive.c clears it */
    atomic_size_t wrote; /* bytes written so far; wraps around */
} xc_stream;

/* Takes both fds: makes them non-blocking and close-on-exec. Pipes become as large as the system allows (1 MiB by
 * default on Linux; failing to enlarge one is no error). On failure the fds are closed. */
xc_status xc_stream_open(xc_stream *stream, int in, int out, xc_err *err);

/* Reads at most n bytes. XC_OK: *got > 0. XC_AGAIN: nothing there. XC_EOF. XC_SYS (ECONNRESET counts as XC_EOF). */
xc_status xc_stream_read(xc_stream *stream, void *into, size_t n, size_t *got, xc_err *err);

/* The same into two places, the second one after the first is full. */
xc_status xc_stream_read_two(xc_stream *stream, const struct iovec parts[2], size_t *got, xc_err *err);

/*
 * The process at the other end has died, but another may hold the pipe and write: what is there now is still read, then
 * comes XC_EOF. Nothing to do for a ring, which nobody else has. Only the reader calls it; a second call does nothing.
 */
void xc_stream_end_here(xc_stream *stream);

/*
 * Writes what there is room for, without waiting. XC_OK: *put > 0, perhaps less than all (0 only if all parts are
 * empty). XC_AGAIN: full, *put == 0. XC_EOF: nobody reads any more (EPIPE, ECONNRESET). A SIGPIPE is raised only in a
 * process that has it at default, which CPython never leaves so.
 */
xc_status xc_stream_write(xc_stream *stream, const struct iovec *parts, int n, size_t *put, xc_err *err);

/* --- waiting, after XC_AGAIN; for the reader role (`events` POLLIN) or the writer role (POLLOUT) ------------------ */

/* Sleeps until another try is worth it, the thread's own bell rings, or the deadline passes: as xc_bell_sleep_nogil. A
 * ring does not tell of the far end's death: whoever learns of it rings the bell. */
xc_status xc_stream_sleep_nogil(xc_stream *stream, xc_bell *bell, short events, int64_t until) XC_HOLDS_NONE;

/* Whether our fds are still ours, or the program has closed them: XC_OK or XC_SYS (EBADF). Reads and writes check it
 * now and then themselves. */
xc_status xc_stream_check(const xc_stream *stream, xc_err *err);

/* Bytes that were written and that nobody has read yet; 0 where the system does not say. Any thread. */
size_t xc_stream_unread(const xc_stream *stream);
/* There are bytes to be read, or an end of file. Any thread. */
bool xc_stream_has_more(const xc_stream *stream);

/* Idempotent. The first closes the writing side: it shuts a socket down, closes a ring, and closes `out` unless that is
 * kept. The second closes the fds that are left; it does not touch a ring. */
void xc_stream_close_write(xc_stream *stream);
void xc_stream_close(xc_stream *stream);

/* Drops `n` bytes from the front of *parts, *count. */
void xc_iov_advance(struct iovec **parts, int *count, size_t n);

#endif
