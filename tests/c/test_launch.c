/*
 * Worker processes behind links: how their end is told, what becomes of their stderr, that none stays a zombie or
 * leaves anything behind when it cannot be started; and how a worker's own process ends with its link.
 */
#include "launch_rig.h"

/* --- ends ----------------------------------------------------------------------------------------------------- */

static void
check_end_of(const char *script, int status)
{
    struct worker worker = start(script);
    rig it = {.link = worker.link};
    CHECK_RC(wait_for(&it, XC_WAIT_GONE, NULL, XC_FOREVER), XC_OK);
    CHECK_RC(wait_for(&it, XC_WAIT_FIN, NULL, XC_FOREVER), XC_OK);
    xc_launch_state state;
    xc_launch_get_state(worker.launch, &state);
    CHECK(state.ended && state.known); /* known before anybody learns that the process is gone */
    CHECK_INT(state.status, status);
    CHECK(state.pid > 0);
    CHECK_RC(state_of(&it).ended_by.code, XC_EOF);
    xc_launch_signal(worker.launch, SIGKILL); /* nobody is there to be hit */
    release(&worker);
}

static void
ends_are_told(void)
{
    check_end_of("exit 0", 0);
    check_end_of("exit 7", 7);
    check_end_of("kill -KILL $$", -SIGKILL);
    check_end_of("exec >&-; sleep 0.05; exit 3", 3); /* the stream ends first */
}

static void
talks_and_goes(void)
{
    struct worker worker = start("exec cat");
    check_echo(&worker);
    xc_link_goodbye(worker.link); /* comes back as the far end's */
    xc_launch_state state = await_end(&worker);
    CHECK_INT(state.status, 0);
    rig it = {.link = worker.link};
    await_fin(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_CLOSED);
    release(&worker);
    worker = start("exec cat");
    check_echo(&worker);
    xc_launch_signal(worker.launch, SIGTERM);
    CHECK_INT(await_end(&worker).status, -SIGTERM);
    release(&worker);
}

/* The grandchild keeps stdout and stderr open for long; the end of the worker is known all the same. */
static void
a_grandchild_holds_the_pipes(void)
{
    take_stderr();
    struct worker worker = start("sleep 1000 & echo $! >&2; exit 3");
    rig it = {.link = worker.link};
    xc_status rc = wait_for(&it, XC_WAIT_FIN, NULL, xc_after(10 * XC_S));
    xc_launch_state state = await_end(&worker);
    restore_stderr();
    close(fake_stderr);
    CHECK_RC(rc, XC_OK);
    CHECK_INT(state.status, 3);
    CHECK(state.n_tail > 0 && state.n_tail < 20);
    state.tail[state.n_tail] = '\0';
    int pid = atoi(state.tail);
    CHECK(pid > 1);
    release(&worker);
    CHECK_INT(kill(pid, SIGKILL), 0); /* with it the pump's last use goes */
}

/* Forgotten while it lives: it is reaped all the same, which the end of each case checks. */
static void
released_while_it_lives(void)
{
    struct worker worker = start("sleep 0.1");
    release(&worker);
    worker = start("sleep 0.1");
    xc_link_release(worker.link);
    CHECK_INT(await_end(&worker).status, 0);
    xc_launch_release(worker.launch);
    xc_launch_release(NULL);
}

static void *
start_some(void *arg)
{
    for (int i = 0; i < 8; i++) {
        struct worker worker = start("exec cat");
        check_echo(&worker);
        xc_link_goodbye(worker.link);
        if (i % 2 == 0) {
            CHECK_INT(await_end(&worker).status, 0);
        }
        release(&worker);
    }
    return arg;
}

static void
many_at_once(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, start_some, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
}

/* --- listening ------------------------------------------------------------------------------------------------- */

static xc_said
listen_for(struct worker *worker, bool knows_end, void *into, size_t size)
{
    xc_said said;
    while (xc_launch_listen_nogil(worker->launch, knows_end, XC_FOREVER, into, size, &said) != XC_OK) {
    }
    return said;
}

static void
who_listens_hears_it_all(void)
{
    static char want[20000], got[20000];
    size_t n = make_lines(want), have = 0;
    xc_said said = {.n = 0};
    take_stderr();
    struct worker worker = start_listening(lines);
    while (!said.ended) {
        said = listen_for(&worker, false, got + have, 1000);
        have += said.n;
        CHECK(said.n <= 1000 && said.lost == 0);
    }
    said = listen_for(&worker, true, got, 0);
    xc_launch_state state = await_end(&worker);
    release(&worker);
    close(2);
    bool passed = read_all(fake_stderr, got + have, 1);
    restore_stderr();
    close(fake_stderr);
    CHECK(!passed && have == n && memcmp(got, want, n) == 0);
    CHECK(said.closed && said.n == 0);
    CHECK_INT(state.n_tail, XC_STDERR_TAIL);
    CHECK(memcmp(state.tail, want + n - XC_STDERR_TAIL, XC_STDERR_TAIL) == 0);
}

/* Takes its time, so that there is more to hear when the interrupted sleep returns. */
static void
handle_slowly(int sig)
{
    (void)sig;
    const struct timespec pause = {.tv_nsec = 20 * XC_MS};
    (void)nanosleep(&pause, NULL);
}

struct pest {
    pthread_t whom;
    atomic_bool enough;
};

static void *
interrupt_often(void *arg)
{
    struct pest *pest = arg;
    while (!atomic_load(&pest->enough)) {
        check_pause_ms(20);
        (void)pthread_kill(pest->whom, SIGUSR1);
    }
    return NULL;
}

static void
who_is_interrupted_hears_it_all(void)
{
    char got[100];
    struct sigaction before, act = {.sa_handler = handle_slowly};
    struct pest pest = {.whom = pthread_self()};
    pthread_t thread;
    size_t have = 0;
    xc_said said = {.n = 0};
    CHECK_INT(sigaction(SIGUSR1, &act, &before), 0);
    struct worker worker = start_listening("for i in 0 1 2 3 4 5 6 7 8 9; do sleep 0.01; printf $i >&2; done");
    CHECK_INT(pthread_create(&thread, NULL, interrupt_often, &pest), 0);
    while (!said.ended && have < sizeof got) {
        said = listen_for(&worker, false, got + have, sizeof got - have);
        have += said.n;
    }
    atomic_store(&pest.enough, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(sigaction(SIGUSR1, &before, NULL), 0);
    (void)await_end(&worker);
    release(&worker);
    CHECK(have == 10 && memcmp(got, "0123456789", 10) == 0);
}

static void
who_listens_late_hears_the_end(void)
{
    static char got[XC_STDERR_UNHEARD + 10];
    struct worker worker = start_listening("head -c 3000000 /dev/zero >&2; echo end >&2");
    CHECK_INT(await_end(&worker).status, 0); /* it did not have to wait */
    xc_said said = listen_for(&worker, false, got, sizeof got);
    CHECK(said.ended);
    CHECK_INT(said.n, XC_STDERR_UNHEARD);
    CHECK_INT(said.lost, 3000004 - XC_STDERR_UNHEARD);
    CHECK(memcmp(got + said.n - 5, "\0end\n", 5) == 0);
    release(&worker);
}

/* The end of the process is told, and what somebody says to whom it gave its stderr, and only then that it is closed.
 */
static void
others_may_go_on(void)
{
    char got[100];
    struct worker worker =
        start_listening("exec 3>&2; (exec >&-; read line; sleep 0.2; echo late >&3) <&0 2>&- & exit 0");
    xc_said said = listen_for(&worker, false, got, sizeof got);
    CHECK(said.ended && !said.closed && said.n == 0);
    said = listen_for(&worker, true, got, sizeof got);
    CHECK(said.n == 5 && memcmp(got, "late\n", 5) == 0);
    CHECK(listen_for(&worker, true, got, sizeof got).closed);
    release(&worker);
    worker = start_listening("exec sleep 1000");
    CHECK_RC(xc_launch_listen_nogil(worker.launch, false, xc_after(XC_MS), got, sizeof got, &said), XC_TIMEOUT);
    xc_launch_kill(worker.launch);
    CHECK(listen_for(&worker, false, got, sizeof got).ended);
    CHECK_INT(await_end(&worker).status, -SIGKILL);
    release(&worker);
}

/* --- shared memory ---------------------------------------------------------------------------------------------- */

#if XC_HAS_RING

static void
its_memory_is_fd_3(void)
{
    char *argv[] = {"sh", "-c", "readlink /proc/self/fd/3 >&2; exec 3<&-; ls -l /proc/self/fd >&2", NULL};
    xc_region region;
    xc_err err;
    struct worker worker;
    xc_link_opts opts = rig_opts(false);
    CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_OK);
    opts.region = &region;
    xc_program *program = xc_program_new(argv);
    xc_lent lent = XC_LENT_NOTHING;
    CHECK_RC(xc_launch_start(program, &opts, true, &lent, &worker.launch, &worker.link, &err), XC_OK);
    xc_program_free(program);
    xc_launch_state state = await_end(&worker);
    release(&worker);
    CHECK_INT(state.status, 0);
    state.tail[state.n_tail < sizeof state.tail ? state.n_tail : sizeof state.tail - 1] = '\0';
    const char *first = strstr(state.tail, "/memfd:execnet_c");
    CHECK(first == state.tail && strstr(first + 2, "memfd") == NULL);
}

#endif

/* --- failures ------------------------------------------------------------------------------------------------- */

static void
no_such_program(void)
{
    char *argv[] = {"/no/such/program", NULL};
    xc_link_opts opts = rig_opts(false);
    struct worker worker;
    xc_lent lent = XC_LENT_NOTHING;
    xc_err err;
    xc_program *program = xc_program_new(argv);
    CHECK_RC(xc_launch_start(program, &opts, false, &lent, &worker.launch, &worker.link, &err), XC_SYS);
    CHECK_INT(err.sys_errno, ENOENT);
    xc_program_free(program);
}

/* With room for 0, 1, 2 ... fds more: a failure leaves neither an fd nor a process, until there are enough. */
static void
started_without_fds(void)
{
    struct rlimit old;
    struct worker worker = {.listens = false};
    xc_err err;
    int fds = check_fds(), refused = 0;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    int first_free = dup(0);
    close(first_free);
    for (int more = 0;; more++) {
        struct rlimit tight = {.rlim_cur = (rlim_t)(first_free + more), .rlim_max = old.rlim_max};
        CHECK(more < 40);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
        xc_status rc = try_start(&worker, "exec cat", &err);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
        if (rc == XC_OK) {
            check_echo(&worker);
            xc_link_goodbye(worker.link);
            CHECK_INT(await_end(&worker).status, 0);
            release(&worker);
            break;
        }
        refused++;
        CHECK_RC(rc, XC_SYS);
        CHECK_INT(err.sys_errno, EMFILE);
        AWAIT(check_fds() == fds);
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    }
    CHECK(refused >= 5);
}

static void
started_without_memory(void)
{
    int fds = check_fds();
    for (int allowed = 0;; allowed++) {
        struct worker worker = {.listens = allowed % 2 == 1};
        xc_err err;
        atomic_store(&check_allowed, allowed);
        xc_set_alloc_hook(check_allow_some);
        xc_status rc = try_start(&worker, "exec cat", &err);
        xc_set_alloc_hook(NULL);
        if (rc == XC_OK) {
            check_echo(&worker);
            xc_link_goodbye(worker.link);
            CHECK_INT(await_end(&worker).status, 0);
            release(&worker);
            CHECK(allowed > 2);
            return;
        }
        CHECK(rc == XC_NOMEM || rc == XC_SYS);
        CHECK_RC(err.code, rc);
        AWAIT(check_fds() == fds);
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    }
}

/* --- the worker's own end ------------------------------------------------------------------------------------- */

/* What the process does that has a task; it must come to an end by what the link does. */
static void
be_a_worker(int last_code, bool ignore_sigint)
{
    rig it = rig_open(true);
    signal(SIGINT, ignore_sigint ? SIG_IGN : SIG_DFL);
    rig_send(&it, XC_EXEC, 1, "NQ", 2);
    if (last_code >= 0) {
        rig_send(&it, last_code, 0, NULL, 0);
    }
    rig_hang_up(&it);
    check_pause_ms(20000);
    _exit(77);
}

static void
hung_up(void)
{
    be_a_worker(-1, false);
}

static void
hung_up_and_deaf(void)
{
    be_a_worker(-1, true);
}

static void
dismissed(void)
{
    be_a_worker(XC_TERMINATE, false);
}

/* After a goodbye, and with no task, it is left alone: it ends itself. */
static void
dismissed_without_a_task(void)
{
    rig it = rig_open(true);
    rig_send(&it, XC_TERMINATE, 0, NULL, 0);
    await_fin(&it);
    check_pause_ms(200);
    rig_close(&it);
}

static void
check_exit_policy(void (*body)(void), int sig, int64_t at_least, int64_t at_most)
{
    int64_t began = xc_now();
    int status = check_in_child(body);
    CHECK(WIFSIGNALED(status));
    CHECK_INT(WTERMSIG(status), sig);
    int64_t took = xc_now() - began;
    CHECK(took >= at_least && took < at_most);
}

static void
a_worker_ends_with_its_link(void)
{
    check_exit_policy(hung_up, SIGINT, 0, 10 * XC_S);
    check_exit_policy(hung_up_and_deaf, SIGKILL, XC_S, 10 * XC_S);
    check_exit_policy(dismissed, SIGINT, 4 * XC_S, 15 * XC_S); /* execnet's timeouts */
    CHECK_INT(check_in_child(dismissed_without_a_task), 0);
}

int
main(void)
{
    check_io_begin("launch", 100);
    RUN_IO(ends_are_told);
    RUN_IO(talks_and_goes);
    RUN_IO(a_grandchild_holds_the_pipes);
    RUN_IO(released_while_it_lives);
    RUN_IO(many_at_once);
    RUN_IO(who_listens_hears_it_all);
    RUN_IO(who_is_interrupted_hears_it_all);
    RUN_IO(who_listens_late_hears_the_end);
    RUN_IO(others_may_go_on);
#if XC_HAS_RING
    RUN_IO(its_memory_is_fd_3);
#endif
    RUN_IO(no_such_program);
    RUN_IO(started_without_fds);
    RUN_IO(started_without_memory);
    RUN_IO(a_worker_ends_with_its_link);
    return check_end();
}
