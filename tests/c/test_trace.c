/*
 * The trace: what a line looks like, that it never waits and is never torn, that a forked child may write on; and which
 * lines a link and its process make.
 */
#include <sys/socket.h>
#include <sys/stat.h>

#include "link_rig.h"
#include "xc_launch.h"
#include "xc_trace.h"

enum { PROGRAM_SECONDS = 60, THREADS = 4, LINES = 500, TEXT_MAX = 1 << 20 };

static char text[TEXT_MAX];

/* A file without a name, that lines go to from now on. */
static int
trace_to_file(void)
{
    char name[] = "/tmp/xc_traceXXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0 && fcntl(fd, F_SETFL, O_APPEND) == 0);
    CHECK_RC(xc_trace_to(fd, NULL), XC_OK);
    CHECK(xc_tracing());
    return fd;
}

/* What has been written to it; no more lines. */
static const char *
lines_of(int fd)
{
    CHECK_RC(xc_trace_to(-1, NULL), XC_OK);
    CHECK(!xc_tracing());
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    CHECK(n >= 0 && n < (ssize_t)sizeof text - 1);
    text[n] = '\0';
    return text;
}

static char expected[4096];

/* `body` with "[pid] " in front of each line. */
static const char *
by(pid_t pid, const char *body)
{
    char *to = expected;
    while (*body != '\0') {
        const char *end = strchr(body, '\n');
        to += snprintf(to, (size_t)(expected + sizeof expected - to), "[%d] %.*s\n", (int)pid, (int)(end - body), body);
        body = end + 1;
    }
    *to = '\0';
    return expected;
}

static void
lines(void)
{
    int fd = trace_to_file();
    errno = ENOTTY;
    xc_trace("one %d", 1);
    CHECK_INT(errno, ENOTTY);
    xc_trace("%s", "a\nb\tc\x7f \xc3\xbc");
    xc_trace_frame("sent", XC_DATA, 5, 0);
    xc_trace_frame("received", XC_CLOSE_ERROR, 0xfffffffe, 2147483647);
    xc_trace_frame("received", 77, 0, 1);
    CHECK(strcmp(lines_of(fd), by(getpid(), "one 1\na?b?c? \xc3\xbc\nsent DATA channel 5 0 bytes\n"
                                            "received CLOSE_ERROR channel -2 2147483647 bytes\n"
                                            "received ? channel 0 1 bytes\n")) == 0);
    close(fd);
}

static void
long_lines_are_cut(void)
{
    char much[5000];
    memset(much, 'm', sizeof much);
    int fd = trace_to_file();
    xc_trace("%.*s", (int)sizeof much, much);
    xc_trace("short");
    const char *got = lines_of(fd);
    const char *second = strchr(got, '\n') + 1;
    CHECK_INT(second - got, 1000);
    CHECK(strcmp(second, by(getpid(), "short\n")) == 0);
    close(fd);
}

/* The fd is the caller's; another one may follow; a wrong one changes nothing. */
static void
another_file(void)
{
    int one = trace_to_file();
    close(dup(one));
    xc_trace("one");
    int two = trace_to_file();
    xc_trace("two");
    xc_err err;
    CHECK_RC(xc_trace_to(10000, &err), XC_SYS);
    CHECK_INT(err.sys_errno, EBADF);
    xc_trace("three");
    CHECK(strcmp(lines_of(two), by(getpid(), "two\nthree\n")) == 0);
    CHECK(strcmp(lines_of(one), by(getpid(), "one\n")) == 0);
    close(one);
    close(two);
}

/* Nobody empties it: lines are lost, and nothing is changed for others who have it open. */
static void
nobody_reads(void)
{
    int ends[2], pairs[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs) == 0);
    for (int kind = 0; kind < 2; kind++) {
        int to = kind == 0 ? ends[1] : pairs[1], from = kind == 0 ? ends[0] : pairs[0];
        size_t n = 0, n_lines = 0;
        CHECK_RC(xc_trace_to(to, NULL), XC_OK);
        CHECK((fcntl(to, F_GETFL) & O_NONBLOCK) == 0);
        for (int i = 0; i < 100000; i++) {
            xc_trace("line %d is as long as all the others %0*d", i, 60, i);
        }
        CHECK_RC(xc_trace_to(-1, NULL), XC_OK);
        CHECK(fcntl(from, F_SETFL, O_NONBLOCK) == 0);
        for (ssize_t got; (got = read(from, text + n, sizeof text - n)) > 0; n += (size_t)got) {
        }
        for (size_t i = 0; i < n; i++) {
            n_lines += text[i] == '\n';
        }
        CHECK(n_lines > 10 && n_lines < 100000);
        CHECK(text[n - 1] == '\n');
    }
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(pairs[i]);
    }
}

/* SIGPIPE is at default here: it would end this process. */
static void
without_a_reader(void)
{
    int ends[2], pairs[2];
    signal(SIGPIPE, SIG_DFL);
    CHECK(pipe2(ends, O_CLOEXEC) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs) == 0);
    close(pairs[0]);
    CHECK_RC(xc_trace_to(pairs[1], NULL), XC_OK);
    xc_trace("lost");
    CHECK_RC(xc_trace_to(ends[1], NULL), XC_OK);
    xc_trace("read");
    close(ends[0]);
    xc_trace("lost");
    close(ends[1]);
    close(pairs[1]);
    CHECK_RC(xc_trace_to(-1, NULL), XC_OK);
    signal(SIGPIPE, SIG_IGN);
}

static void *
write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++) {
        xc_trace("thread %d line %d %s", *(int *)arg, i, "and something more to make it a longer line");
    }
    return NULL;
}

static void
child_writes(void)
{
    xc_trace("child");
}

/* Whole lines from all of them; children forked in the midst of it write theirs. */
static void
threads_and_children(void)
{
    pthread_t threads[THREADS];
    int names[THREADS], next[THREADS] = {0}, children = 0;
    int n_children = CHECK_TSAN ? 0 : 5; /* it takes the parent's threads for leaks of the child */
    int fd = trace_to_file();
    for (int i = 0; i < THREADS; i++) {
        names[i] = i;
        CHECK_INT(pthread_create(&threads[i], NULL, write_lines, &names[i]), 0);
    }
    for (int i = 0; i < n_children; i++) {
        CHECK_INT(check_in_child(child_writes), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    const char *at = lines_of(fd);
    int total = 0;
    for (; *at != '\0'; at = strchr(at, '\n') + 1, total++) {
        int pid, thread, line, end = 0;
        if (sscanf(at, "[%d] thread %d line %d and something more to make it a longer line%n", &pid, &thread, &line,
                   &end) == 3) {
            CHECK(end > 0 && at[end] == '\n' && pid == (int)getpid());
            CHECK_INT(line, next[thread]++);
        }
        else {
            CHECK(sscanf(at, "[%d] child%n", &pid, &end) == 1 && end > 0 && at[end] == '\n' && pid != (int)getpid());
            children++;
        }
    }
    CHECK_INT(children, n_children);
    CHECK_INT(total, THREADS * LINES + n_children);
    close(fd);
}

/* --- who makes lines -------------------------------------------------------------------------------------------- */

static void
frames_of_a_link(void)
{
    int fd = trace_to_file();
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    send_int(&it, chan->id, 1);
    expect_int(&it, chan, 1);
    rig_send(&it, XC_STATUS, 7, NULL, 0);
    CHECK_RC(xc_link_post(it.link, XC_DATA, chan->id, "LQ", 2), XC_OK);
    expect_frame(it.from, XC_DATA, chan->id, "LQ", 2);
    xc_link_goodbye(it.link);
    CHECK(xc_link_post(it.link, XC_DATA, chan->id, "LQ", 2) != XC_OK); /* not sent */
    rig_send(&it, XC_CLOSE, chan->id, NULL, 0);
    CHECK_RC(wait_for(&it, XC_WAIT_CLOSE, chan, XC_FOREVER), XC_OK);
    rig_hang_up(&it);
    CHECK_RC(wait_for(&it, XC_WAIT_FIN, NULL, XC_FOREVER), XC_OK);
    const char *got = lines_of(fd);
    CHECK(strstr(got, "received DATA channel 1 6 bytes\n") != NULL);
    CHECK(strstr(got, "received STATUS channel 7 0 bytes\n") != NULL);
    CHECK(strstr(got, "sent DATA channel 1 2 bytes\n") != NULL);
    CHECK(strstr(got, "sent TERMINATE channel 0 0 bytes\n") != NULL);
    CHECK(strstr(got, "received CLOSE channel 1 0 bytes\n") != NULL);
    CHECK(strstr(got, "connection ended: XC_EOF\n") != NULL);
    CHECK(strstr(strstr(got, "sent DATA channel 1") + 1, "sent DATA channel 1") == NULL);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
    close(fd);
}

static void
bad_frames(void)
{
    int fd = trace_to_file();
    rig it = rig_open(false);
    write_all(it.to, "what is this?", 13);
    await_fin(&it);
    CHECK(strstr(lines_of(fd), "] connection ended: XC_BAD unknown message code in 77 ") != NULL);
    rig_close(&it);
    close(fd);
}

static void
check_process(const char *script, const char *end)
{
    char *argv[] = {"sh", "-c", (char *)script, NULL}, line[100];
    xc_launch_state state;
    xc_launch *launch;
    xc_link *link;
    xc_err err;
    int fd = trace_to_file();
    xc_link_opts opts = rig_opts(false);
    xc_lent lent = XC_LENT_NOTHING;
    xc_program *program = xc_program_new(argv);
    CHECK_RC(xc_launch_start(program, &opts, false, &lent, &launch, &link, &err), XC_OK);
    xc_program_free(program);
    rig it = {.link = link};
    CHECK_RC(wait_for(&it, XC_WAIT_GONE, NULL, XC_FOREVER), XC_OK);
    xc_launch_get_state(launch, &state);
    const char *got = lines_of(fd);
    snprintf(line, sizeof line, "] started process %d: sh\n", (int)state.pid);
    CHECK(strstr(got, line) != NULL);
    snprintf(line, sizeof line, "] process %d ended: %s\n", (int)state.pid, end);
    CHECK(strstr(got, line) != NULL);
    xc_link_release(link);
    xc_launch_release(launch);
    close(fd);
}

static void
processes(void)
{
    check_process("exit 3", "3");
    check_process("kill -9 $$", "-9");
}

/* After all the others: something may want to write, and nothing is written. */
static void
off(void)
{
    int fd = trace_to_file();
    (void)lines_of(fd);
    rig it = rig_open(false);
    CHECK_RC(xc_link_post(it.link, XC_DATA, 1, "LQ", 2), XC_OK);
    rig_close(&it);
    CHECK(lines_of(fd)[0] == '\0');
    close(fd);
}

int
main(void)
{
    check_io_begin("trace", PROGRAM_SECONDS);
    CHECK(!xc_tracing());
    close(trace_to_file()); /* the copy that is kept for good: have it before fds are counted */
    CHECK_RC(xc_trace_to(-1, NULL), XC_OK);
    RUN(lines);
    RUN(long_lines_are_cut);
    RUN(another_file);
    RUN(nobody_reads);
    RUN(without_a_reader);
    RUN(threads_and_children);
    RUN_IO(frames_of_a_link);
    RUN_IO(bad_frames);
    RUN_IO(processes);
    RUN_IO(off);
    return check_end();
}
