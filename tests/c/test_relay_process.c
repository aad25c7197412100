/*
 * Relays to a process: what starts it, its stderr, signals to it, and how its end is told.
 */
#include "relay_rig.h"

/* --- the process ---------------------------------------------------------------------------------------------- */

typedef struct {
    rig outer;
    uint32_t stream, control;
    pid_t pid;
} process;

static xc_status
try_process(process *it, const char *script, xc_err *err)
{
    char *argv[] = {"sh", "-c", (char *)script, NULL};
    xc_chan *stream = chan_of(&it->outer, it->stream), *control = chan_of(&it->outer, it->control);
    xc_program *program = xc_program_new(argv);
    xc_status rc = xc_relay_process(it->outer.link, stream, control, program, &it->pid, err);
    xc_program_free(program);
    xc_link_drop_chan(it->outer.link, stream); /* as when its Python object goes */
    xc_link_drop_chan(it->outer.link, control);
    return rc;
}

static process
process_open(const char *script)
{
    xc_err err;
    process it = {.outer = rig_open(false), .stream = 11, .control = 13};
    CHECK_RC(try_process(&it, script, &err), XC_OK);
    CHECK(it.pid > 0);
    return it;
}

/* Reads frames until the control channel has been closed: what came out of the process, and its end. */
static size_t
read_process(process *it, char *said, size_t max, unsigned char *end, size_t *n_end)
{
    size_t n = 0;
    bool over = false;
    *n_end = 0;
    while (!over) {
        xc_frame frame;
        unsigned char *payload;
        CHECK(read_frame(it->outer.from, &frame, &payload));
        if (frame.code == XC_DATA && frame.chan == it->stream) {
            CHECK(frame.size - 6 + n <= max);
            memcpy(said + n, payload + 5, frame.size - 6);
            n += frame.size - 6;
        }
        else if (frame.code == XC_DATA) {
            CHECK_INT(frame.chan, it->control);
            CHECK_INT(*n_end, 0);
            memcpy(end, payload, frame.size);
            *n_end = frame.size;
        }
        else {
            CHECK(frame.code == (frame.chan == it->stream ? XC_LAST_MESSAGE : XC_CLOSE));
            over = frame.chan == it->control;
        }
        free(payload);
    }
    return n;
}

static void
process_ends(process *it, const char *words, int status, const char *last_words)
{
    char said[1000];
    unsigned char end[5000], want[5000] = {'F'};
    size_t n_end, n_words = strlen(words), n_last = strlen(last_words);
    CHECK_INT(read_process(it, said, sizeof said, end, &n_end), n_words);
    CHECK(memcmp(said, words, n_words) == 0);
    put32(want + 1, (uint32_t)status);
    want[5] = 'A';
    put32(want + 6, (uint32_t)n_last);
    memcpy(want + 10, last_words, n_last);
    memcpy(want + 10 + n_last, "@\0\0\0\2Q", 6);
    CHECK_INT(n_end, n_last + 16);
    CHECK(memcmp(end, want, n_end) == 0);
    rig_close(&it->outer);
}

static void
a_process_and_its_end(void)
{
    process it = process_open("cat; exit 7");
    rig_send(&it.outer, XC_DATA, it.stream, "A\0\0\0\5wordsQ", 11);
    expect_frame(it.outer.from, XC_DATA, it.stream, "A\0\0\0\5wordsQ", 11);
    rig_send(&it.outer, XC_LAST_MESSAGE, it.stream, NULL, 0);
    process_ends(&it, "", 7, "");

    it = process_open("printf out; exit 0");
    process_ends(&it, "out", 0, "");
    it = process_open("exec 2>&1; kill -KILL $$");
    process_ends(&it, "", -SIGKILL, "");
    it = process_open("printf before; sleep 3 2>/dev/null & exit 3"); /* a grandchild holds the pipe */
    process_ends(&it, "before", 3, "");
    it = process_open("exec >&-; read line; exit 4"); /* one direction first */
    expect_frame(it.outer.from, XC_LAST_MESSAGE, it.stream, NULL, 0);
    rig_send(&it.outer, XC_DATA, it.stream, "A\0\0\0\1\nQ", 7);
    process_ends(&it, "", 4, "");
}

static void
its_stderr_is_told(void)
{
    int real = fcntl(2, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(real >= 0 && null >= 0 && dup2(null, 2) == 2);
    process it = process_open("echo last words >&2; exit 1");
    char said[10];
    unsigned char end[100];
    size_t n_end;
    size_t n = read_process(&it, said, sizeof said, end, &n_end);
    dup2(real, 2);
    close(real);
    close(null);
    CHECK_INT(n, 0);
    CHECK_INT(n_end, 11 + 16);
    CHECK(memcmp(end, "F\0\0\0\1A\0\0\0\x0blast words\n@\0\0\0\2Q", n_end) == 0);
    rig_close(&it.outer);
}

static void
signals_reach_it(void)
{
    process it = process_open("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done");
    expect_frame(it.outer.from, XC_DATA, it.stream, "A\0\0\0\6ready\nQ", 12);
    rig_send(&it.outer, XC_DATA, it.control, "N\0\0\0\1xQ", 7); /* no signal */
    send_int(&it.outer, it.control, 100000);                    /* none either */
    send_int(&it.outer, it.control, SIGUSR1);
    process_ends(&it, "", 9, "");

    /* One that came before the process was there. */
    it = (process){.outer = rig_open(false), .stream = 11, .control = 13};
    xc_err err;
    xc_chan *control = chan_of(&it.outer, it.control);
    send_int(&it.outer, it.control, SIGKILL);
    CHECK_RC(wait_for(&it.outer, XC_WAIT_ITEM, control, XC_FOREVER), XC_OK);
    CHECK_RC(try_process(&it, "exec sleep 1000", &err), XC_OK);
    xc_link_drop_chan(it.outer.link, control);
    process_ends(&it, "", -SIGKILL, "");
}

static void
a_hang_up_ends_its_input(void)
{
    for (int closed = 0; closed < 2; closed++) {
        process it = process_open("cat >/dev/null");
        if (closed) {
            rig_send(&it.outer, XC_CLOSE, it.control, NULL, 0);
            rig_send(&it.outer, XC_CLOSE, it.stream, NULL, 0);
        }
        else {
            rig_hang_up(&it.outer);
        }
        AWAIT(kill(it.pid, 0) < 0 && errno == ESRCH); /* ended by itself, and reaped */
        rig_close(&it.outer);
    }
}

static void
a_process_that_cannot_be_started(void)
{
    process it = {.outer = rig_open(false), .stream = 11, .control = 13};
    char *argv[] = {"/nonexistent/program", NULL};
    xc_err err;
    xc_chan *stream = chan_of(&it.outer, it.stream), *control = chan_of(&it.outer, it.control);
    int fds = check_fds();
    xc_program *program = xc_program_new(argv);
    CHECK_RC(xc_relay_process(it.outer.link, stream, control, program, &it.pid, &err), XC_SYS);
    xc_program_free(program);
    CHECK_INT(err.sys_errno, ENOENT);
    CHECK(strstr(err.detail, argv[0]) != NULL);
    CHECK_INT(check_fds(), fds);
    xc_link_drop_chan(it.outer.link, stream);
    expect_frame(it.outer.from, XC_CLOSE, it.stream, NULL, 0);
    xc_link_drop_chan(it.outer.link, control);
    expect_frame(it.outer.from, XC_CLOSE, it.control, NULL, 0);

    xc_status rc;
    int n = 0;
    program = xc_program_new((char *[]){"true", NULL});
    do {
        stream = chan_of(&it.outer, it.stream);
        control = chan_of(&it.outer, it.control);
        atomic_store(&check_allowed, n++);
        xc_set_alloc_hook(check_allow_some);
        rc = xc_relay_process(it.outer.link, stream, control, program, &it.pid, &err);
        xc_set_alloc_hook(NULL);
        CHECK(rc == XC_OK || rc == XC_NOMEM);
        xc_link_drop_chan(it.outer.link, stream);
        xc_link_drop_chan(it.outer.link, control);
        if (rc != XC_OK) {
            expect_frame(it.outer.from, XC_CLOSE, it.stream, NULL, 0);
            expect_frame(it.outer.from, XC_CLOSE, it.control, NULL, 0);
        }
    } while (rc != XC_OK);
    xc_program_free(program);
    CHECK(n > 2);
    process_ends(&it, "", 0, "");
}

int
main(void)
{
    check_io_begin("relay_process", 100);
    RUN_IO(a_process_and_its_end);
    RUN_IO(its_stderr_is_told);
    RUN_IO(signals_reach_it);
    RUN_IO(a_hang_up_ends_its_input);
    RUN_IO(a_process_that_cannot_be_started);
    return check_end();
}
