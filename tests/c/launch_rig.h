/* Starts worker processes behind links and waits for their end. */
#ifndef LAUNCH_RIG_H
#define LAUNCH_RIG_H

#include <poll.h>
#include <sys/resource.h>

#include "link_rig.h"
#include "xc_launch.h"

struct worker {
    xc_launch *launch;
    xc_link *link;
    bool listens;
};

__attribute__((unused)) static xc_status
try_start(struct worker *worker, const char *script, xc_err *err)
{
    char *argv[] = {"sh", "-c", (char *)script, NULL};
    xc_link_opts opts = rig_opts(false);
    xc_lent lent = XC_LENT_NOTHING;
    xc_program *program = xc_program_new(argv);
    if (program == NULL) {
        return xc_fail(err, XC_NOMEM, 0, "name a program");
    }
    xc_status rc = xc_launch_start(program, &opts, worker->listens, &lent, &worker->launch, &worker->link, err);
    xc_program_free(program);
    return rc;
}

__attribute__((unused)) static struct worker
start(const char *script)
{
    struct worker worker = {.listens = false};
    xc_err err;
    CHECK_RC(try_start(&worker, script, &err), XC_OK);
    return worker;
}

__attribute__((unused)) static struct worker
start_listening(const char *script)
{
    struct worker worker = {.listens = true};
    xc_err err;
    CHECK_RC(try_start(&worker, script, &err), XC_OK);
    return worker;
}

__attribute__((unused)) static void
release(struct worker *worker)
{
    xc_link_release(worker->link);
    xc_launch_release(worker->launch);
}

__attribute__((unused)) static xc_launch_state
await_end(struct worker *worker)
{
    xc_launch_state state;
    do {
        xc_launch_get_state(worker->launch, &state);
        check_pause_ms(1);
    } while (!state.ended);
    return state;
}

static int real_stderr, fake_stderr;

/* From now on fd 2 is a pipe; no check may fail meanwhile, as nobody would see it. */
__attribute__((unused)) static void
take_stderr(void)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    real_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
    CHECK(real_stderr >= 0 && dup2(ends[1], 2) == 2);
    close(ends[1]);
    fake_stderr = ends[0];
}

__attribute__((unused)) static void
restore_stderr(void)
{
    dup2(real_stderr, 2);
    close(real_stderr);
}

/* Sends an item to a worker that sends everything back. */
__attribute__((unused)) static void
check_echo(struct worker *worker)
{
    rig it = {.link = worker->link};
    xc_chan *chan = new_chan(&it);
    CHECK_RC(xc_link_post(it.link, XC_DATA, chan->id, "F\0\0\0\7Q", 6), XC_OK);
    expect_int(&it, chan, 7);
    xc_link_drop_chan(it.link, chan);
}

/* Numbered lines, so that the end of them can be told from any other part. */
static const char lines[] = "i=0; while [ $i -lt 1500 ]; do echo \"line $i\"; i=$((i+1)); done >&2";

__attribute__((unused)) static size_t
make_lines(char *text)
{
    size_t n = 0;
    for (int i = 0; i < 1500; i++) {
        n += (size_t)sprintf(text + n, "line %d\n", i);
    }
    return n;
}

#endif
