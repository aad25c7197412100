/*
 * A pipe or terminal is opened once more for each write, through /proc/self/fd/2: the new description can be
 * non-blocking, and the others who share fd 2 do not notice. It is opened each time because fd 2 may be another file by
 * then. Where it cannot be opened (another user made it, no /proc) poll(2) decides, and the write may wait if others
 * are faster.
 */
#include "xc_stderr.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static ssize_t
write_if_ready(const void *bytes, size_t n)
{
    struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&fd, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(STDERR_FILENO, bytes, n);
}

static ssize_t
write_opened_anew(const void *bytes, size_t n)
{
    int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENXIO ? -1 : write_if_ready(bytes, n); /* ENXIO: a pipe that nobody reads */
    }
    ssize_t put = write(fd, bytes, n);
    int error = errno;
    close(fd);
    errno = error;
    return put;
}

xc_status
xc_stderr_write(const void *bytes, size_t n, size_t *put)
{
    struct stat what;
    ssize_t w = -1;
    *put = 0;
    if (fstat(STDERR_FILENO, &what) != 0) {
        return XC_EOF;
    }
    if (S_ISSOCK(what.st_mode)) {
        w = send(STDERR_FILENO, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    else if (S_ISFIFO(what.st_mode) || isatty(STDERR_FILENO)) {
        w = write_opened_anew(bytes, n);
    }
    else {
        w = write_if_ready(bytes, n);
    }
    if (w < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? XC_AGAIN : XC_EOF;
    }
    *put = (size_t)w;
    return w > 0 || n == 0 ? XC_OK : XC_AGAIN;
}
