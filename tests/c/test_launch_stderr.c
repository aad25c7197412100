/*
 * The stderr of a worker process: kept and passed on, held up by nobody, and ours where it is lent.
 */
#include "launch_rig.h"

/* --- stderr --------------------------------------------------------------------------------------------------- */

static void
stderr_is_kept_and_passed_on(void)
{
    static char want[20000], got[20000];
    size_t n = make_lines(want);
    take_stderr();
    struct worker worker = start(lines);
    xc_launch_state state = await_end(&worker);
    release(&worker);
    restore_stderr();
    CHECK_INT(state.n_tail, XC_STDERR_TAIL);
    CHECK(memcmp(state.tail, want + n - XC_STDERR_TAIL, XC_STDERR_TAIL) == 0);
    CHECK(read_all(fake_stderr, got, n)); /* all of it, in order */
    CHECK(memcmp(got, want, n) == 0);
    close(fake_stderr);
    take_stderr();
    worker = start("printf short >&2; exit 1");
    state = await_end(&worker);
    restore_stderr();
    close(fake_stderr);
    CHECK_INT(state.n_tail, 5);
    CHECK(memcmp(state.tail, "short", 5) == 0);
    release(&worker);
}

static size_t
fill_up(int fd)
{
    static const char dots[4096];
    size_t n = 0;
    int copy = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, copy | O_NONBLOCK);
    for (ssize_t put; (put = write(fd, dots, sizeof dots)) > 0;) {
        n += (size_t)put;
    }
    fcntl(fd, F_SETFL, copy);
    return n;
}

/* Our stderr is full and nobody reads it: the pump does not block, other links and timers go on. */
static void
a_full_stderr_holds_up_nobody(void)
{
    enum { NOISE = 300000 };
    char *drained = malloc(1 << 20);
    CHECK(drained != NULL);
    take_stderr();
    size_t filled = fill_up(2);
    struct worker noisy = start("head -c 300000 /dev/zero >&2 & exec cat"), quiet = start("exec cat");
    for (int i = 0; i < 20; i++) {
        check_echo(&noisy);
        check_echo(&quiet);
        check_pause_ms(2);
    }
    /* A process that ends meanwhile is known to, and so are its last words. */
    struct worker last = start("echo last words >&2; exit 4");
    xc_launch_state state = await_end(&last);
    bool known = state.status == 4 && state.n_tail == 11 && memcmp(state.tail, "last words\n", 11) == 0;
    release(&last);
    /* Somebody reads again: what waited comes. */
    bool all = read_all(fake_stderr, drained, filled);
    for (size_t n = 0; all && n < NOISE;) {
        ssize_t got = read(fake_stderr, drained, 1 << 20);
        all = got > 0;
        n += (size_t)got;
    }
    xc_link_goodbye(noisy.link);
    xc_link_goodbye(quiet.link);
    state = await_end(&noisy);
    release(&noisy);
    release(&quiet);
    restore_stderr();
    close(fake_stderr);
    free(drained);
    CHECK(known && all);
    CHECK_INT(state.status, 0);
}

static void
without_stderr(void)
{
    int kept = dup(2);
    close(2);
    struct worker worker = start("echo gone >&2; exit 5");
    xc_launch_state state = await_end(&worker);
    release(&worker);
    dup2(kept, 2);
    CHECK(state.status == 5 && state.n_tail == 5);
}

static void
our_stderr_may_be_closed(void)
{
    CHECK_INT(check_in_child(without_stderr), 0);
}

/* --- our stderr is lent --------------------------------------------------------------------------------------- */

static xc_launch_state
end_of_borrower(const char *script, bool by_pipe)
{
    char *argv[] = {"sh", "-c", (char *)script, NULL};
    xc_link_opts opts = rig_opts(false);
    struct worker worker;
    xc_lent lent;
    CHECK_RC(xc_lend(by_pipe, &lent, NULL), XC_OK);
    xc_program *program = xc_program_new(argv);
    CHECK_RC(xc_launch_start(program, &opts, false, &lent, &worker.launch, &worker.link, NULL), XC_OK);
    xc_program_free(program);
    CHECK(lent.file < 0 && lent.map == NULL);
    xc_launch_state state = await_end(&worker);
    release(&worker);
    return state;
}

static void
check_borrower(const char *script, bool by_pipe, const char *passed, bool words, const char *tail)
{
    char got[100];
    take_stderr();
    xc_launch_state state = end_of_borrower(script, by_pipe);
    restore_stderr();
    CHECK_INT(state.words, words);
    CHECK_INT(state.n_tail, strlen(tail));
    CHECK(memcmp(state.tail, tail, strlen(tail)) == 0);
    CHECK_INT(read(fake_stderr, got, sizeof got), strlen(passed));
    CHECK(memcmp(got, passed, strlen(passed)) == 0);
    close(fake_stderr);
}

/* Its fds: 3 is the file, 4 our stderr. */
static void
what_becomes_of_a_lent_stderr(void)
{
    check_borrower("echo early >&2; exit 3", false, "early\n", false, "early\n");
    check_borrower("echo early >&2; exit 3", true, "early\n", false, "early\n");
    check_borrower("exec 2>&4; printf '\\000last words' >&3; echo ours >&2", false, "ours\n", true, "last words");
    check_borrower("exec 2>&4; printf '\\000last words' >&3; echo ours >&2", true, "ours\n", true, "last words");
    check_borrower("exec 2>&4 3>&-; echo ours >&2", false, "ours\n", false, "");
}

static void
only_the_end_of_a_lent_stderr(void)
{
    static char want[20000];
    size_t n = make_lines(want);
    take_stderr();
    xc_launch_state state = end_of_borrower(lines, false);
    restore_stderr();
    CHECK_INT(state.n_tail, XC_STDERR_TAIL);
    CHECK(memcmp(state.tail, want + n - XC_STDERR_TAIL, XC_STDERR_TAIL) == 0);
    close(fake_stderr);
}

int
main(void)
{
    check_io_begin("launch_stderr", 100);
    RUN_IO(stderr_is_kept_and_passed_on);
    RUN_IO(a_full_stderr_holds_up_nobody);
    RUN_IO(our_stderr_may_be_closed);
    RUN_IO(what_becomes_of_a_lent_stderr);
    RUN_IO(only_the_end_of_a_lent_stderr);
    return check_end();
}
