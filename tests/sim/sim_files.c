/*
 * The fds of the simulated machine: pipes, sockets, eventfds, epoll; and the system calls with them. The core's table
 * of fds (xc_fd.h) is done by this one.
 *
 * A read or write may do a part only, where the real system would do all: the core must live with that.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "sim.h"
#include "sim_calls.h"
#include "sim_files.h"
#include "xc_fd.h"

enum { FIRST = 100, FDS = 96, PIPES = 12 };

struct sim_pipe {
    unsigned char *bytes;
    size_t room, start, n;
    uint64_t written; /* all bytes that ever were, but those that a cut has lost */
    int readers, writers;
    bool stalled;
    bool shut; /* nothing more is written, though there are writers */
    bool broken;
};

static file files[FDS];
static sim_pipe pipes_of_run[PIPES];
static int n_pipes;
static bool lost[FDS]; /* the program has closed it, and the core does not know yet */

file *
sim_file_of(int fd)
{
    if (fd >= FIRST && fd < FIRST + FDS && files[fd - FIRST].kind != FREE) {
        return &files[fd - FIRST];
    }
    errno = EBADF;
    return NULL;
}

int
sim_new_fd(int kind, sim_process *owner)
{
    for (int i = 0; i < FDS; i++) {
        if (files[i].kind == FREE && !lost[i]) {
            files[i] = (file){.kind = kind, .owner = owner};
            return FIRST + i;
        }
    }
    sim_fail("no fd is left");
}

/* --- what is ready ---------------------------------------------------------------------------------------------- */

size_t
sim_unread(const sim_pipe *pipe)
{
    return pipe->stalled ? 0 : pipe->n;
}

uint64_t
sim_written(const sim_pipe *pipe)
{
    return pipe->written;
}

uint64_t
sim_read(const sim_pipe *pipe)
{
    return pipe->written - pipe->n;
}

bool
sim_has_reader(const sim_pipe *pipe)
{
    return pipe->readers > 0 && !pipe->broken;
}

bool
sim_has_writer(const sim_pipe *pipe)
{
    return pipe->writers > 0 && !pipe->shut && !pipe->broken;
}

bool
sim_has_room(const sim_pipe *pipe)
{
    return sim_has_reader(pipe) && pipe->n < pipe->room;
}

bool
sim_is_stalled(const sim_pipe *pipe)
{
    return pipe->stalled;
}

short
sim_ready_events(int fd)
{
    const file *it = sim_file_of(fd);
    short events = 0;
    if (it == NULL) {
        return POLLNVAL;
    }
    if (it->kind == EVENT) {
        return (short)(POLLOUT | (it->count > 0 ? POLLIN : 0));
    }
    if (it->in != NULL && !it->in->stalled) {
        events |= it->in->n > 0 ? POLLIN : 0;
        /* A socket is hung up when both directions are. */
        short end = it->out == NULL || !sim_has_reader(it->out) ? POLLHUP : POLLIN;
        events |= sim_has_writer(it->in) ? 0 : end;
    }
    if (it->out != NULL) {
        events |= it->out->n < it->out->room ? POLLOUT : 0;
        events |= !sim_has_reader(it->out) && (it->in == NULL || !it->in->stalled) ? POLLERR : 0;
    }
    return events;
}

/* --- reading and writing ---------------------------------------------------------------------------------------- */

static size_t
shorten(size_t n)
{
    return n > 1 && sim_chance(sim_the_machine.shortens) ? 1 + sim_random((uint32_t)n - 1) : n;
}

static ssize_t
read_pipe(sim_pipe *pipe, const struct iovec *parts, int n)
{
    size_t got = 0, most = shorten(pipe->n);
    if (sim_chance(sim_the_machine.interrupts)) {
        errno = EINTR;
        return -1;
    }
    if (pipe->stalled || (pipe->n == 0 && sim_has_writer(pipe))) {
        errno = EAGAIN;
        return -1;
    }
    for (int i = 0; i < n; i++) {
        unsigned char *into = parts[i].iov_base;
        for (size_t left = parts[i].iov_len; left > 0 && got < most;) {
            size_t k = pipe->room - pipe->start;
            k = k < left ? k : left;
            k = k < most - got ? k : most - got;
            memcpy(into, pipe->bytes + pipe->start, k);
            pipe->start = (pipe->start + k) % pipe->room;
            into += k;
            left -= k;
            got += k;
        }
    }
    pipe->n -= got;
    sim_look();
    return (ssize_t)got;
}

static ssize_t
write_pipe(sim_pipe *pipe, const struct iovec *parts, int n)
{
    size_t put = 0, sum = 0;
    if (n > 1 && sim_chance(sim_the_machine.interrupts)) {
        errno = EINTR;
        return -1;
    }
    if (!sim_has_reader(pipe)) {
        errno = EPIPE;
        return -1;
    }
    for (int i = 0; i < n; i++) {
        sum += parts[i].iov_len;
    }
    if (pipe->n == pipe->room && sum > 0) {
        errno = EAGAIN;
        return -1;
    }
    size_t free = pipe->room - pipe->n, most = shorten(sum < free ? sum : free);
    for (int i = 0; i < n; i++) {
        const unsigned char *from = parts[i].iov_base;
        for (size_t left = parts[i].iov_len; left > 0 && put < most;) {
            size_t end = (pipe->start + pipe->n) % pipe->room, k = pipe->room - end;
            k = k < left ? k : left;
            k = k < most - put ? k : most - put;
            memcpy(pipe->bytes + end, from, k);
            pipe->n += k;
            pipe->written += k;
            from += k;
            left -= k;
            put += k;
        }
    }
    sim_look();
    return (ssize_t)put;
}

static ssize_t
use_event(file *it, bool writes, const struct iovec *part)
{
    if (!writes && it->count == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (writes) {
        uint64_t more;
        memcpy(&more, part->iov_base, sizeof more);
        it->count += more;
        sim_look();
    }
    else {
        memcpy(part->iov_base, &it->count, sizeof it->count);
        it->count = 0;
    }
    return sizeof it->count;
}

static ssize_t
transfer(int fd, bool writes, const struct iovec *parts, int n)
{
    sim_point();
    file *it = sim_file_of(fd);
    if (it == NULL) {
        return -1;
    }
    if (it->owner != sim_own_process()) {
        sim_fail("%s uses an fd of %s", sim_process_name(sim_own_process()), sim_process_name(it->owner));
    }
    if (it->kind == EVENT) {
        return use_event(it, writes, parts);
    }
    sim_pipe *pipe = writes ? it->out : it->in;
    ssize_t result = writes ? write_pipe(pipe, parts, n) : read_pipe(pipe, parts, n);
    sim_trace("%s(%d) = %zd", writes ? "write" : "read", fd, result);
    return result;
}

ssize_t
__wrap_read(int fd, void *into, size_t n)
{
    struct iovec part = {into, n};
    return transfer(fd, false, &part, 1);
}

ssize_t
__wrap_readv(int fd, const struct iovec *parts, int n)
{
    return transfer(fd, false, parts, n);
}

ssize_t
__wrap_write(int fd, const void *from, size_t n)
{
    struct iovec part = {(void *)from, n};
    return transfer(fd, true, &part, 1);
}

ssize_t
__wrap_writev(int fd, const struct iovec *parts, int n)
{
    return transfer(fd, true, parts, n);
}

int
__wrap_ioctl(int fd, unsigned long what, ...)
{
    va_list args;
    va_start(args, what);
    int *into = va_arg(args, int *);
    va_end(args);
    const file *it = sim_file_of(fd);
    if (it == NULL) {
        return -1;
    }
    const sim_pipe *pipe = what == TIOCOUTQ && it->in != NULL ? it->out : it->in != NULL ? it->in : it->out;
    if (what == TIOCOUTQ && it->in == NULL) {
        errno = ENOTTY;
        return -1;
    }
    *into = (int)(pipe == it->in ? sim_unread(pipe) : pipe->n);
    return 0;
}

int
__wrap_eventfd(unsigned count, int flags)
{
    (void)flags;
    int fd = sim_new_fd(EVENT, sim_own_process());
    sim_file_of(fd)->count = count;
    return fd;
}

int
sim_eventfd(void)
{
    return __wrap_eventfd(0, 0);
}

/* --- opening and closing ---------------------------------------------------------------------------------------- */

static int
join(sim_pipe *in, sim_pipe *out)
{
    int fd = sim_new_fd(PIPE, NULL);
    file *it = sim_file_of(fd);
    it->in = in;
    it->out = out;
    if (in != NULL) {
        in->readers++;
    }
    if (out != NULL) {
        out->writers++;
    }
    return fd;
}

void
sim_connect(size_t room, bool socket, int in[2], int out[2], sim_pipe *pipes[2])
{
    for (int i = 0; i < 2; i++) {
        pipes[i] = &pipes_of_run[n_pipes++];
        *pipes[i] = (sim_pipe){.bytes = sim_alloc(room), .room = room};
    }
    for (int i = 0; i < 2; i++) {
        in[i] = join(pipes[1 - i], socket ? pipes[i] : NULL);
        out[i] = socket ? in[i] : join(NULL, pipes[i]);
    }
}

void
sim_give_fd(int fd, sim_process *process, bool inherited)
{
    sim_file_of(fd)->owner = process;
    sim_file_of(fd)->inherited = inherited;
}

sim_pipe *
sim_pipe_of(int fd, bool writes)
{
    const file *it = sim_file_of(fd);
    if (it == NULL) {
        return NULL;
    }
    return writes ? it->out : it->in;
}

static void
close_file(file *it)
{
    int fd = FIRST + (int)(it - files);
    it->kind = FREE;
    if (it->in != NULL) {
        it->in->readers--;
    }
    if (it->out != NULL) {
        it->out->writers--;
    }
    for (int i = 0; i < FDS; i++) {
        for (int k = files[i].kind == EPOLL ? files[i].n_watches - 1 : -1; k >= 0; k--) {
            if (files[i].watches[k].fd == fd) {
                files[i].watches[k] = files[i].watches[--files[i].n_watches];
            }
        }
    }
    sim_look();
}

void
sim_close(int fd)
{
    close_file(sim_file_of(fd));
}

int
__wrap_close(int fd)
{
    sim_point();
    file *it = sim_file_of(fd);
    if (it == NULL) {
        return -1;
    }
    close_file(it);
    return 0;
}

void
sim_close_all(sim_process *process, bool inherited)
{
    for (int i = 0; i < FDS; i++) {
        if (files[i].kind != FREE && files[i].owner == process && (inherited || !files[i].inherited)) {
            close_file(&files[i]);
        }
    }
}

size_t
sim_fds(const sim_process *process)
{
    size_t n = 0;
    for (int i = 0; i < FDS; i++) {
        n += files[i].kind != FREE && files[i].owner == process;
    }
    return n;
}

void
sim_reset_files(void)
{
    memset(files, 0, sizeof files);
    memset(lost, 0, sizeof lost);
    n_pipes = 0;
}

int
__wrap_shutdown(int fd, int how)
{
    file *it = sim_file_of(fd);
    if (it == NULL || it->in == NULL || it->out == NULL) {
        errno = it == NULL ? EBADF : ENOTSOCK;
        return -1;
    }
    /* The copies of the fd stay, and can be closed. */
    if (how == SHUT_WR || how == SHUT_RDWR) {
        it->out->shut = true;
    }
    if (how == SHUT_RDWR) {
        it->in->shut = true;
    }
    sim_look();
    return 0;
}

int
__wrap_fcntl(int fd, int what, ...)
{
    file *it = sim_file_of(fd);
    if (it == NULL) {
        return -1;
    }
    if (what == F_DUPFD_CLOEXEC) {
        int copy = join(it->in, it->out);
        sim_file_of(copy)->owner = it->owner;
        return copy;
    }
    return 0; /* flags, and the size of a pipe, which is not known */
}

int
__wrap_open(const char *path, int flags, ...)
{
    (void)path;
    (void)flags;
    errno = ENOENT;
    return -1;
}

void
sim_stall(sim_pipe *pipe, bool stalled)
{
    pipe->stalled = stalled;
    sim_look();
}

void
sim_cut(sim_pipe *pipe, size_t keep)
{
    pipe->broken = true;
    pipe->stalled = false;
    size_t lost = pipe->n > keep ? pipe->n - keep : 0;
    pipe->n -= lost;
    pipe->written -= lost;
    sim_look();
}

/* --- xc_fd.h ---------------------------------------------------------------------------------------------------- */

int
xc_fd_lift(int fd)
{
    return fd;
}

void
xc_fd_own(int fd)
{
    (void)fd;
}

bool
xc_fd_ours(int fd)
{
    return fd < FIRST || fd >= FIRST + FDS || !lost[fd - FIRST];
}

void
xc_fd_close(int fd)
{
    if (fd >= 0 && xc_fd_ours(fd)) {
        (void)__wrap_close(fd);
    }
    else if (fd >= 0) {
        lost[fd - FIRST] = false;
    }
}

void
xc_fd_drop(int *fd)
{
    if (*fd >= 0) {
        (void)__wrap_close(*fd);
        *fd = -1;
    }
}

bool
xc_make_pipe(int ends[2])
{
    sim_pipe *pipe = &pipes_of_run[n_pipes++];
    *pipe = (sim_pipe){.bytes = sim_alloc(sim_the_machine.room), .room = sim_the_machine.room};
    ends[0] = join(pipe, NULL);
    ends[1] = join(NULL, pipe);
    sim_give_fd(ends[0], sim_own_process(), false);
    sim_give_fd(ends[1], sim_own_process(), false);
    return true;
}

int
xc_make_memfd(const char *name)
{
    (void)name;
    return -1;
}
