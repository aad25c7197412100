/*
 * No lock, so a fork at any moment leaves nothing locked: a line is made on the stack and written with one write(2).
 *
 * That write must not wait until somebody empties a pipe or a terminal. O_NONBLOCK on the caller's fd would change it
 * for all who share it, so such a file is opened once more; where that fails, poll(2) says whether there is room.
 */
#include "xc_trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xc_fd.h"

#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0
#endif

enum { LINE_MAX_BYTES = 1000 }; /* less than a pipe takes in one piece */

atomic_bool xc_trace_on;
static atomic_int trace_fd = -1; /* owned. Once it is set its number never changes, only the file behind it */
static atomic_bool is_socket;

/* A close-on-exec copy of `fd` for us, 3 or more; -1 and errno. */
static int
open_own(int fd, const struct stat *what)
{
    if (S_ISFIFO(what->st_mode) || S_ISCHR(what->st_mode)) {
        char name[40];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        int own = xc_fd_lift(open(name, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        if (own >= 0) {
            return own;
        }
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

xc_status
xc_trace_to(int fd, xc_err *err)
{
    struct stat what;
    if (fd < 0) {
        atomic_store(&xc_trace_on, false);
        return XC_OK;
    }
    int own = fstat(fd, &what) == 0 ? open_own(fd, &what) : -1;
    int before = atomic_load(&trace_fd);
    if (own < 0) {
        return xc_fail(err, XC_SYS, errno, "trace");
    }
    atomic_store(&is_socket, S_ISSOCK(what.st_mode));
    if (before < 0) {
        xc_fd_own(own);
        atomic_store(&trace_fd, own);
    }
    else { /* a thread may be writing a line to it just now */
        (void)dup2(own, before);
        (void)fcntl(before, F_SETFD, FD_CLOEXEC);
        xc_fd_own(before);
        close(own);
    }
    atomic_store(&xc_trace_on, true);
    return XC_OK;
}

static void
put(const char *line, size_t n)
{
    struct pollfd poller = {.fd = atomic_load(&trace_fd), .events = POLLOUT};
    ssize_t lost;
    if (!xc_fd_ours(poller.fd)) {
        return;
    }
    if (atomic_load(&is_socket)) {
        lost = send(poller.fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    else if (poll(&poller, 1, 0) == 1 && poller.revents == POLLOUT) {
        lost = write(poller.fd, line, n);
    }
    (void)lost;
}

void
xc_trace(const char *format, ...)
{
    char line[LINE_MAX_BYTES + 1];
    int error = errno; /* the caller may read it after this */
    int n = snprintf(line, sizeof line, "[%ld] ", (long)getpid());
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    n = more < 0 ? n : n + more;
    n = n < LINE_MAX_BYTES ? n : LINE_MAX_BYTES - 1;
    for (int i = 0; i < n; i++) {
        line[i] = (unsigned char)line[i] < 0x20 || line[i] == 0x7f ? '?' : line[i];
    }
    line[n] = '\n';
    put(line, (size_t)n + 1);
    errno = error;
}

void
xc_trace_frame(const char *verb, uint8_t code, uint32_t chan, size_t size)
{
    xc_trace("%s %s channel %ld %zu bytes", verb, xc_code_name(code), (long)(int32_t)chan, size);
}
