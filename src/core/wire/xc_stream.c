/*
 * Two non-blocking fds, or a ring. Only xc_stream_sleep_nogil waits. A short read or write is no error: the caller
 * keeps the rest.
 */
#include "xc_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IOV_MAX
#define IOV_MAX 1024
#endif

/* Some systems refuse a read of more than INT_MAX bytes instead of shortening it. */
#define MOST_AT_ONCE ((size_t)1 << 30)

/* ---- opening ---- */

#ifdef F_SETPIPE_SZ
static int
read_pipe_max(void)
{
    char text[24];
    ssize_t n = -1;
    int fd = open("/proc/sys/fs/pipe-max-size", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    if (n > 0) {
        text[n] = '\0';
        long size = strtol(text, NULL, 10);
        if (size > 0 && size <= INT_MAX) {
            return (int)size;
        }
    }
    return 1024 * 1024;
}

/* Fails where it is no pipe, there is no permission, or the user's pages are used up: then the pipe stays as it is. */
static void
enlarge_pipe(int fd)
{
    static atomic_int pipe_max;
    int size = atomic_load_explicit(&pipe_max, memory_order_relaxed);
    if (size == 0) {
        size = read_pipe_max();
        atomic_store_explicit(&pipe_max, size, memory_order_relaxed);
    }
    int now = fcntl(fd, F_GETPIPE_SZ);
    if (now > 0 && now < size) {
        (void)fcntl(fd, F_SETPIPE_SZ, size);
    }
}
#else
static void
enlarge_pipe(int fd)
{
    (void)fd;
}
#endif

static bool
prepare_fd(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return false;
    }
    int fd_flags = fcntl(fd, F_GETFD);
    if (fd_flags < 0 || fcntl(fd, F_SETFD, fd_flags | FD_CLOEXEC) != 0) {
        return false;
    }
    enlarge_pipe(fd);
    return true;
}

xc_status
xc_stream_open(xc_stream *stream, int in, int out, xc_err *err)
{
    bool one = in == out;
    in = xc_fd_lift(in);
    out = one ? in : xc_fd_lift(out);
    *stream = (xc_stream){.in = in, .out = out};
    xc_fd_own(in);
    xc_fd_own(out);
    if (!prepare_fd(in) || (out != in && !prepare_fd(out))) {
        xc_status rc = xc_fail(err, XC_SYS, errno, "prepare a stream");
        xc_stream_close(stream);
        return rc;
    }
    return XC_OK;
}

/* ---- reading and writing ---- */

static xc_status
not_ours(xc_err *err)
{
    xc_failf(err, XC_SYS, "use the stream", "this process has closed the fds of the connection");
    if (err != NULL) {
        err->sys_errno = EBADF;
    }
    return XC_SYS;
}

xc_status
xc_stream_check(const xc_stream *stream, xc_err *err)
{
    return xc_fd_ours(stream->in) && xc_fd_ours(stream->out) ? XC_OK : not_ours(err);
}

/* A clock for CHECK_TICKS, which are some 0.2 ms. It is read for each short item, and xc_now() takes three times as
 * long as the CPU's counter. Where the CPUs' counters differ there is one check too many. */
static uint64_t
ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return (uint64_t)xc_now();
#endif
}

#if defined(__x86_64__)
#define CHECK_TICKS ((uint64_t)1 << 19)
#else
#define CHECK_TICKS ((uint64_t)XC_MS / 5)
#endif

/* A check costs as much as a write, so there is none for a read or write soon after the last check. */
static xc_status
check_now_and_then(xc_stream *stream, int fd, xc_err *err)
{
    uint64_t now = ticks();
    if (now - stream->checked < CHECK_TICKS) {
        return XC_OK;
    }
    stream->checked = now;
    return xc_fd_ours(fd) ? XC_OK : not_ours(err);
}

static bool
would_wait(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK;
}

static xc_status
was_read(xc_stream *stream, xc_status rc)
{
    if (rc == XC_OK) {
        atomic_store_explicit(&stream->heard, true, memory_order_relaxed);
    }
    return rc;
}

static void
was_written(xc_stream *stream, size_t n)
{
    size_t before = atomic_load_explicit(&stream->wrote, memory_order_relaxed); /* only one thread at a time writes */
    atomic_store_explicit(&stream->wrote, before + n, memory_order_relaxed);
}

static xc_status
read_result(xc_stream *stream, ssize_t r, size_t *got, xc_err *err)
{
    *got = r > 0 ? (size_t)r : 0;
    stream->polling = r < 0;
    if (r > 0) {
        stream->left -= stream->ends ? (size_t)r : 0;
        return was_read(stream, XC_OK);
    }
    if (r < 0 && would_wait(errno)) {
        return XC_AGAIN;
    }
    if (r == 0 || errno == ECONNRESET) {
        return xc_fail(err, XC_EOF, r == 0 ? 0 : errno, "read from the stream");
    }
    return errno == EBADF ? not_ours(err) : xc_fail(err, XC_SYS, errno, "read from the stream");
}

xc_status
xc_stream_read(xc_stream *stream, void *into, size_t n, size_t *got, xc_err *err)
{
    XC_ASSERT(n > 0); /* reading nothing would look like the end of the file */
    ssize_t r;
    if (stream->ring != NULL) {
        return was_read(stream, xc_ring_read(stream->ring, into, n, got, err));
    }
    if (!stream->polling && check_now_and_then(stream, stream->in, err) != XC_OK) {
        return XC_SYS;
    }
    if (n > MOST_AT_ONCE) {
        n = MOST_AT_ONCE;
    }
    if (stream->ends && stream->left == 0) {
        return xc_fail(err, XC_EOF, 0, "read from the stream");
    }
    if (stream->ends && n > stream->left) {
        n = stream->left;
    }
    do {
        r = read(stream->in, into, n);
    } while (r < 0 && errno == EINTR);
    return read_result(stream, r, got, err);
}

xc_status
xc_stream_read_two(xc_stream *stream, const struct iovec parts[2], size_t *got, xc_err *err)
{
    XC_ASSERT(parts[0].iov_len > 0);
    ssize_t r;
    if (stream->ring != NULL) {
        return was_read(stream, xc_ring_read_two(stream->ring, parts, got, err));
    }
    if (stream->ends || parts[0].iov_len + parts[1].iov_len > MOST_AT_ONCE) {
        return xc_stream_read(stream, parts[0].iov_base, parts[0].iov_len, got, err);
    }
    if (!stream->polling && check_now_and_then(stream, stream->in, err) != XC_OK) {
        return XC_SYS;
    }
    do {
        r = readv(stream->in, parts, 2);
    } while (r < 0 && errno == EINTR);
    return read_result(stream, r, got, err);
}

void
xc_stream_end_here(xc_stream *stream)
{
    int n = 0;
    if (!stream->ends && stream->ring == NULL && ioctl(stream->in, FIONREAD, &n) == 0 && n >= 0) {
        stream->ends = true;
        stream->left = (size_t)n;
    }
}

xc_status
xc_stream_write(xc_stream *stream, const struct iovec *parts, int n, size_t *put, xc_err *err)
{
    XC_ASSERT(n > 0);
    ssize_t w;
    *put = 0;
    if (stream->ring != NULL) {
        xc_status rc = xc_ring_write(stream->ring, parts, n, put, err);
        was_written(stream, *put);
        return rc;
    }
    if (check_now_and_then(stream, stream->out, err) != XC_OK) {
        return XC_SYS;
    }
    do {
        w = writev(stream->out, parts, n < IOV_MAX ? n : IOV_MAX);
    } while (w < 0 && errno == EINTR);
    if (w >= 0) {
        *put = (size_t)w;
        was_written(stream, (size_t)w);
        return XC_OK;
    }
    if (would_wait(errno)) {
        return XC_AGAIN;
    }
    if (errno == EBADF) {
        return not_ours(err);
    }
    bool gone = errno == EPIPE || errno == ECONNRESET;
    return xc_fail(err, gone ? XC_EOF : XC_SYS, errno, "write to the stream");
}

void
xc_iov_advance(struct iovec **parts, int *count, size_t n)
{
    while (*count > 0 && n >= (*parts)->iov_len) {
        n -= (*parts)->iov_len;
        (*parts)++;
        (*count)--;
    }
    XC_ASSERT(*count > 0 || n == 0);
    if (*count > 0 && n > 0) {
        (*parts)->iov_base = (char *)(*parts)->iov_base + n;
        (*parts)->iov_len -= n;
    }
}

/* ---- waiting ---- */

xc_status
xc_stream_sleep_nogil(xc_stream *stream, xc_bell *bell, short events, int64_t until)
{
    XC_ASSERT(events == POLLIN || events == POLLOUT);
    XC_ASSERT(stream->ring == NULL || stream->ring->writes == (events == POLLOUT));
    if (stream->ring != NULL) {
        return xc_ring_sleep_nogil(stream->ring, bell, until);
    }
    stream->polling = false;
    return xc_bell_sleep_nogil(bell, events == POLLIN ? stream->in : stream->out, events, until);
}

size_t
xc_stream_unread(const xc_stream *stream)
{
    int n = 0;
    if (stream->ring != NULL) {
        return xc_ring_filled(stream->ring);
    }
    if (stream->out < 0 || (ioctl(stream->out, TIOCOUTQ, &n) != 0 && ioctl(stream->out, FIONREAD, &n) != 0) || n < 0) {
        return 0;
    }
    return (size_t)n;
}

bool
xc_stream_has_more(const xc_stream *stream)
{
    struct pollfd fd = {.fd = stream->in, .events = POLLIN};
    return (stream->ring != NULL && xc_ring_filled(stream->ring) > 0) || poll(&fd, 1, 0) > 0;
}

/* ---- closing ---- */

/* A shutdown even where `out` has its own fd: that may be a copy of `in`, and closing one copy of a socket tells
 * nobody. */
void
xc_stream_close_write(xc_stream *stream)
{
    if (stream->ring != NULL) {
        xc_ring_close(stream->ring);
    }
    if (stream->out < 0 || stream->kept) {
        return;
    }
    if (xc_fd_ours(stream->out)) {
        (void)shutdown(stream->out, SHUT_WR);
    }
    if (stream->out != stream->in) {
        xc_fd_close(stream->out);
    }
    stream->out = -1;
}

/* No shutdown here: a forked child closes its copies, which must not end the parent's connection. */
void
xc_stream_close(xc_stream *stream)
{
    if (stream->out != stream->in) {
        xc_fd_close(stream->out);
    }
    xc_fd_close(stream->in);
    stream->in = stream->out = -1;
}
