/* Streams: nothing waits, nothing is lost whatever the cuts, and each way of ending has its own result. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "check.h"
#include "xc_stream.h"

/* A pipe with both ends in one stream: what is written is read back. */
static xc_stream
open_loop(void)
{
    int ends[2];
    xc_stream stream;
    xc_err err;
    CHECK_INT(pipe(ends), 0);
    CHECK_RC(xc_stream_open(&stream, ends[0], ends[1], &err), XC_OK);
    return stream;
}

/* Two streams that talk to each other over sockets; each has one fd for both ways. */
static void
open_pair(xc_stream *a, xc_stream *b)
{
    int ends[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_RC(xc_stream_open(a, ends[0], ends[0], NULL), XC_OK);
    CHECK_RC(xc_stream_open(b, ends[1], ends[1], NULL), XC_OK);
}

static xc_status
write_text(xc_stream *stream, const char *text, size_t *put, xc_err *err)
{
    struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
    return xc_stream_write(stream, &part, 1, put, err);
}

static void
check_flags(int fd)
{
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

/* ---- opening ---- */

static int
size_that_pipes_may_have(void)
{
    int size = 0;
    FILE *file = fopen("/proc/sys/fs/pipe-max-size", "r");
    if (file != NULL) {
        CHECK_INT(fscanf(file, "%d", &size), 1);
        fclose(file);
    }
    return size;
}

static void
open_sets_flags_and_size(void)
{
    xc_stream stream = open_loop(), a, b;
    check_flags(stream.in);
    check_flags(stream.out);
    int most = size_that_pipes_may_have();
    if (most > 0) {
        CHECK_INT(fcntl(stream.in, F_GETPIPE_SZ), most);
    }
    xc_stream_close(&stream);
    CHECK(stream.in == -1 && stream.out == -1);
    xc_stream_close(&stream);
    xc_stream_close_write(&stream);
    open_pair(&a, &b);
    check_flags(a.in);
    CHECK(a.in == a.out);
    xc_stream_close(&a);
    xc_stream_close(&b);
}

static void
failed_open_closes_both(void)
{
    int ends[2];
    xc_stream stream;
    xc_err err;
    CHECK_INT(pipe(ends), 0);
    CHECK_RC(xc_stream_open(&stream, ends[0], -1, &err), XC_SYS);
    CHECK(err.code == XC_SYS && err.sys_errno == EBADF && err.step[0] != '\0');
    CHECK(stream.in == -1 && stream.out == -1);
    CHECK_RC(xc_stream_open(&stream, -1, ends[1], &err), XC_SYS);
    CHECK(fcntl(ends[0], F_GETFD) == -1 && fcntl(ends[1], F_GETFD) == -1);
}

/* ---- the ends of it ---- */

static void
nothing_there_is_again(void)
{
    xc_stream stream = open_loop();
    char byte;
    size_t got = 99;
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &got, NULL), XC_AGAIN);
    CHECK_INT(got, 0);
    CHECK_RC(write_text(&stream, "ab", &got, NULL), XC_OK);
    CHECK_INT(got, 2);
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &got, NULL), XC_OK);
    CHECK(got == 1 && byte == 'a');
    xc_stream_close_write(&stream);
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &got, NULL), XC_OK);
    CHECK(got == 1 && byte == 'b');
    xc_err err;
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &got, &err), XC_EOF);
    CHECK(got == 0 && err.code == XC_EOF && err.sys_errno == 0);
    xc_stream_close(&stream);
}

/* The second place gets what the first one has no room for, and the results are those of a plain read. */
static void
two_places(void)
{
    xc_stream stream = open_loop();
    char first[4] = "....", second[4] = "....";
    struct iovec parts[2] = {{first, 3}, {second, 2}};
    size_t got = 99;
    xc_err err;
    CHECK_RC(xc_stream_read_two(&stream, parts, &got, NULL), XC_AGAIN);
    CHECK_INT(got, 0);
    CHECK_RC(write_text(&stream, "ab", &got, NULL), XC_OK);
    CHECK_RC(xc_stream_read_two(&stream, parts, &got, NULL), XC_OK);
    CHECK(got == 2 && memcmp(first, "ab..", 4) == 0 && memcmp(second, "....", 4) == 0);
    CHECK_RC(write_text(&stream, "cdefgh", &got, NULL), XC_OK);
    CHECK_RC(xc_stream_read_two(&stream, parts, &got, NULL), XC_OK);
    CHECK(got == 5 && memcmp(first, "cde.", 4) == 0 && memcmp(second, "fg..", 4) == 0);
    parts[1].iov_len = (size_t)1 << 31; /* more than some systems read at once: the first place only */
    parts[0].iov_len = 1;
    CHECK_RC(xc_stream_read_two(&stream, parts, &got, NULL), XC_OK);
    CHECK(got == 1 && memcmp(first, "hde.", 4) == 0 && memcmp(second, "fg..", 4) == 0);
    xc_stream_close_write(&stream);
    CHECK_RC(xc_stream_read_two(&stream, parts, &got, &err), XC_EOF);
    CHECK(got == 0 && err.code == XC_EOF && err.sys_errno == 0);
    xc_stream_close(&stream);
}

/* Who wrote is gone, and somebody else writes on. */
static void
an_end_here(void)
{
    char text[16] = "";
    struct iovec parts[2] = {{.iov_base = text + 3, .iov_len = 4}, {.iov_base = text + 7, .iov_len = 4}};
    size_t n = 0;
    xc_err err;
    xc_stream stream = open_loop();
    CHECK_RC(write_text(&stream, "12345678", &n, NULL), XC_OK);
    CHECK_RC(xc_stream_read(&stream, text, 3, &n, NULL), XC_OK);
    xc_stream_end_here(&stream);
    CHECK_RC(write_text(&stream, "others", &n, NULL), XC_OK);
    xc_stream_end_here(&stream);
    for (size_t got = 3; got < 8; got += n) {
        CHECK_RC(xc_stream_read_two(&stream, parts, &n, NULL), XC_OK);
        parts[0] = (struct iovec){.iov_base = text + got + n, .iov_len = 8};
        parts[1] = (struct iovec){.iov_base = text, .iov_len = 0};
    }
    CHECK(memcmp(text, "12345678", 8) == 0);
    CHECK_RC(xc_stream_read(&stream, text, 3, &n, &err), XC_EOF);
    CHECK_RC(xc_stream_read_two(&stream, parts, &n, &err), XC_EOF);
    xc_stream_close(&stream);
    /* Nothing was there. */
    stream = open_loop();
    xc_stream_end_here(&stream);
    CHECK_RC(write_text(&stream, "others", &n, NULL), XC_OK);
    CHECK_RC(xc_stream_read(&stream, text, 3, &n, &err), XC_EOF);
    xc_stream_close(&stream);
}

static void
full_is_again(void)
{
    xc_stream stream = open_loop();
    static char block[100000];
    struct iovec part = {.iov_base = block, .iov_len = sizeof(block)};
    size_t total = 0, put;
    xc_status rc;
    while ((rc = xc_stream_write(&stream, &part, 1, &put, NULL)) == XC_OK) {
        CHECK(put > 0 && put <= sizeof(block));
        total += put;
    }
    CHECK_RC(rc, XC_AGAIN);
    CHECK_INT(put, 0);
    while (total > 0) {
        CHECK_RC(xc_stream_read(&stream, block, sizeof(block), &put, NULL), XC_OK);
        CHECK(put <= total);
        total -= put;
    }
    CHECK_RC(xc_stream_read(&stream, block, 1, &put, NULL), XC_AGAIN);
    xc_stream_close(&stream);
}

static void
nobody_reads_is_eof(void)
{
    xc_stream stream = open_loop(), a, b;
    size_t put;
    xc_err err;
    close(stream.in);
    stream.in = -1;
    CHECK_RC(write_text(&stream, "x", &put, &err), XC_EOF);
    CHECK(put == 0 && err.code == XC_EOF && err.sys_errno == EPIPE);
    xc_stream_close(&stream);

    open_pair(&a, &b);
    xc_stream_close(&b);
    CHECK_RC(write_text(&a, "x", &put, &err), XC_EOF);
    xc_stream_close(&a);

    /* The peer went without reading what it had. */
    open_pair(&a, &b);
    CHECK_RC(write_text(&a, "x", &put, &err), XC_OK);
    xc_stream_close(&b);
    char byte;
    CHECK_RC(xc_stream_read(&a, &byte, 1, &put, &err), XC_EOF);
    CHECK_INT(err.sys_errno, ECONNRESET);
    xc_stream_close(&a);
}

/* Also right behind a use that found them ours. */
static void
fds_that_were_closed_are_the_cause(void)
{
    xc_stream stream = open_loop();
    char byte;
    size_t n;
    xc_err err;
    CHECK_RC(write_text(&stream, "ab", &n, NULL), XC_OK);
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &n, NULL), XC_OK);
    close(stream.in);
    close(stream.out);
    CHECK_RC(write_text(&stream, "c", &n, &err), XC_SYS);
    CHECK(err.sys_errno == EBADF && strstr(err.detail, "has closed the fds") != NULL);
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &n, &err), XC_SYS);
    CHECK(err.sys_errno == EBADF && strstr(err.detail, "has closed the fds") != NULL);
    xc_stream_close(&stream);
}

static void
other_errors_are_told(void)
{
    xc_stream closed = {.in = -1, .out = -1};
    char byte;
    size_t n;
    xc_err err;
    CHECK_RC(xc_stream_read(&closed, &byte, 1, &n, &err), XC_SYS);
    CHECK(err.sys_errno == EBADF && n == 0);
    CHECK_RC(write_text(&closed, "x", &n, &err), XC_SYS);
    CHECK(err.sys_errno == EBADF && n == 0);
}

static void
check_half_closed(xc_stream *a, xc_stream *b)
{
    char bytes[10];
    size_t n;
    CHECK_RC(write_text(a, "last", &n, NULL), XC_OK);
    xc_stream_close_write(a);
    xc_stream_close_write(a);
    CHECK(a->out == -1 && a->in >= 0);
    CHECK_RC(xc_stream_read(b, bytes, sizeof(bytes), &n, NULL), XC_OK);
    CHECK(n == 4 && memcmp(bytes, "last", 4) == 0);
    CHECK_RC(xc_stream_read(b, bytes, sizeof(bytes), &n, NULL), XC_EOF);
    CHECK_RC(write_text(b, "answer", &n, NULL), XC_OK);
    CHECK_RC(xc_stream_read(a, bytes, sizeof(bytes), &n, NULL), XC_OK);
    CHECK_INT(n, 6);
}

static void
socket_closes_one_way(void)
{
    xc_stream a, b;
    open_pair(&a, &b);
    check_half_closed(&a, &b);
    xc_stream_close(&a);
    xc_stream_close(&b);
    /* The same where the two fds are copies of one socket. */
    open_pair(&a, &b);
    a.out = xc_fd_lift(dup(a.in));
    xc_fd_own(a.out);
    check_half_closed(&a, &b);
    xc_stream_close(&a);
    xc_stream_close(&b);
}

/* A forked child that gives its copy up must not end the parent's connection. */
static void
close_shuts_nothing_down(void)
{
    xc_stream a, b;
    char byte;
    size_t n;
    open_pair(&a, &b);
    int copy = dup(a.in);
    xc_stream_close(&a);
    CHECK_RC(xc_stream_read(&b, &byte, 1, &n, NULL), XC_AGAIN);
    close(copy);
    CHECK_RC(xc_stream_read(&b, &byte, 1, &n, NULL), XC_EOF);
    xc_stream_close(&b);
}

static void
on_signal(int sig)
{
    (void)sig;
}

static void *
write_after_signals(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    check_pause_ms(50);
    CHECK_INT(write(*(int *)arg, "x", 1), 1);
    return NULL;
}

/* O_NONBLOCK belongs to what is opened, not to the fd: another process may have taken it away. */
static void
read_through_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct itimerval timer = {.it_interval.tv_usec = 2000, .it_value.tv_usec = 2000};
    xc_stream stream = open_loop();
    pthread_t thread;
    char byte;
    size_t got;
    CHECK_INT(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_INT(fcntl(stream.in, F_SETFL, 0), 0);
    CHECK_INT(pthread_create(&thread, NULL, write_after_signals, &stream.out), 0);
    CHECK_INT(setitimer(ITIMER_REAL, &timer, NULL), 0);
    CHECK_RC(xc_stream_read(&stream, &byte, 1, &got, NULL), XC_OK);
    CHECK(got == 1 && byte == 'x');
    pthread_join(thread, NULL);
}

static void
signals_are_hidden(void)
{
    CHECK_INT(check_in_child(read_through_signals), 0);
}

/* ---- cuts ---- */

static unsigned char
byte_at(size_t at)
{
    return (unsigned char)(at * 2654435761u >> 13);
}

/* Reads and writes of every size up to 300 in turn; the bytes come out as they went in. */
static void
odd_cuts_lose_nothing(void)
{
    enum { TOTAL = 300000 };
    xc_stream stream = open_loop();
    unsigned char bytes[300];
    size_t in = 0, out = 0, write_size = 0, read_size = 150, n;
    while (out < TOTAL) {
        write_size = write_size % sizeof(bytes) + 1;
        size_t want = TOTAL - in < write_size ? TOTAL - in : write_size;
        for (size_t i = 0; i < want; i++) {
            bytes[i] = byte_at(in + i);
        }
        struct iovec part = {.iov_base = bytes, .iov_len = want};
        if (want > 0 && xc_stream_write(&stream, &part, 1, &n, NULL) == XC_OK) {
            in += n;
        }
        read_size = read_size % 299 + 1;
        xc_status rc = xc_stream_read(&stream, bytes, read_size, &n, NULL);
        if (in == out) {
            CHECK_RC(rc, XC_AGAIN);
            continue;
        }
        CHECK_RC(rc, XC_OK);
        CHECK(n > 0 && n <= read_size);
        for (size_t i = 0; i < n; i++) {
            if (bytes[i] != byte_at(out + i)) {
                CHECK(!"a byte changed");
            }
        }
        out += n;
    }
    CHECK_INT(in, TOTAL);
    xc_stream_close(&stream);
}

enum { N_PARTS = 8, N_BYTES = 17 };

/* Parts of 0, 3, 5, 1, 0, 0, 7 and 1 bytes that lie behind each other in `text`. */
static void
cut_parts(char text[N_BYTES], struct iovec parts[N_PARTS])
{
    static const size_t sizes[N_PARTS] = {0, 3, 5, 1, 0, 0, 7, 1};
    size_t at = 0;
    for (int i = 0; i < N_PARTS; i++) {
        parts[i] = (struct iovec){.iov_base = text + at, .iov_len = sizes[i]};
        at += sizes[i];
    }
    CHECK_INT(at, N_BYTES);
}

static void
advance_stops_at_every_byte(void)
{
    char text[N_BYTES + 1] = "abcdefghijklmnopq";
    for (size_t first = 0; first <= N_BYTES; first++) {
        for (size_t second = 0; first + second <= N_BYTES; second++) {
            struct iovec all[N_PARTS], *parts = all;
            int count = N_PARTS;
            cut_parts(text, all);
            xc_iov_advance(&parts, &count, first);
            xc_iov_advance(&parts, &count, second);
            size_t at = first + second;
            CHECK(count == 0 || parts->iov_len > 0);
            for (int i = 0; i < count; i++) {
                CHECK(parts[i].iov_len == 0 || parts[i].iov_base == text + at);
                at += parts[i].iov_len;
            }
            CHECK_INT(at, N_BYTES);
        }
    }
}

/* Gathered writes of 1, 2, 3... bytes at a time: each cut of the parts happens. */
static void
gathered_write_resumes_anywhere(void)
{
    char text[N_BYTES + 1] = "abcdefghijklmnopq";
    for (size_t room = 1; room <= N_BYTES; room++) {
        int ends[2];
        xc_stream stream;
        struct iovec all[N_PARTS], *parts = all;
        char got[N_BYTES + 1] = "";
        size_t n, have = 0;
        int count = N_PARTS;
        cut_parts(text, all);
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        CHECK_RC(xc_stream_open(&stream, ends[0], ends[1], NULL), XC_OK);
        while (count > 0) {
            /* How short a write is, is up to the system: so less is offered. */
            struct iovec offered[N_PARTS];
            size_t left = room;
            int used = 0;
            for (; used < count && left > 0; used++) {
                offered[used] = parts[used];
                offered[used].iov_len = parts[used].iov_len < left ? parts[used].iov_len : left;
                left -= offered[used].iov_len;
            }
            CHECK_RC(xc_stream_write(&stream, offered, used, &n, NULL), XC_OK);
            CHECK(n <= room);
            xc_iov_advance(&parts, &count, n);
            while (xc_stream_read(&stream, got + have, sizeof(got) - have, &n, NULL) == XC_OK) {
                have += n;
            }
        }
        CHECK_INT(have, N_BYTES);
        CHECK(memcmp(got, text, N_BYTES) == 0);
        xc_stream_close(&stream);
    }
}

/* More parts than one system call takes, and a stream that is full in between. */
static void
many_parts_go_through(void)
{
    enum { COUNT = 5 * IOV_MAX, EACH = 1500 };
    xc_stream stream = open_loop();
    static unsigned char text[COUNT + EACH], got[65536];
    struct iovec *all = calloc(COUNT, sizeof(*all)), *parts = all;
    size_t out = 0, n;
    int count = COUNT, full = 0;
    CHECK(all != NULL);
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = byte_at(i);
    }
    for (int i = 0; i < COUNT; i++) {
        all[i] = (struct iovec){.iov_base = text + i, .iov_len = EACH};
    }
    while (out < (size_t)COUNT * EACH) {
        xc_status rc = XC_AGAIN;
        while (count > 0 && (rc = xc_stream_write(&stream, parts, count, &n, NULL)) == XC_OK) {
            xc_iov_advance(&parts, &count, n);
        }
        full += count > 0;
        CHECK(count == 0 || rc == XC_AGAIN);
        CHECK_RC(xc_stream_read(&stream, got, sizeof(got), &n, NULL), XC_OK);
        for (size_t i = 0; i < n; i++, out++) {
            if (got[i] != text[out / EACH + out % EACH]) {
                CHECK(!"a byte changed");
            }
        }
    }
    CHECK(count == 0 && full > 0);
    CHECK_RC(xc_stream_read(&stream, got, 1, &n, NULL), XC_AGAIN);
    free(all);
    xc_stream_close(&stream);
}

static void
empty_parts_are_no_error(void)
{
    xc_stream stream = open_loop();
    struct iovec parts[2] = {{.iov_base = NULL}, {.iov_base = NULL}};
    size_t put = 9;
    CHECK_RC(xc_stream_write(&stream, parts, 2, &put, NULL), XC_OK);
    CHECK_INT(put, 0);
    xc_stream_close(&stream);
}

int
main(void)
{
    check_begin("stream", 60);
    signal(SIGPIPE, SIG_IGN);
    RUN(open_sets_flags_and_size);
    RUN(failed_open_closes_both);
    RUN(nothing_there_is_again);
    RUN(two_places);
    RUN(an_end_here);
    RUN(full_is_again);
    RUN(nobody_reads_is_eof);
    RUN(fds_that_were_closed_are_the_cause);
    RUN(other_errors_are_told);
    RUN(socket_closes_one_way);
    RUN(close_shuts_nothing_down);
    RUN(signals_are_hidden);
    RUN(odd_cuts_lose_nothing);
    RUN(advance_stops_at_every_byte);
    RUN(gathered_write_resumes_anywhere);
    RUN(many_parts_go_through);
    RUN(empty_parts_are_no_error);
    return check_end();
}
