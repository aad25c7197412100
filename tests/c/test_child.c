/* Processes: what a child inherits and what not, how its end is told, and that a failure leaves nothing behind. */
#include "child_rig.h"

/* ---- streams and ends ---- */

static void
streams_are_connected(void)
{
    xc_child child;
    xc_child_pipes pipes;
    char text[100];
    start(&child, SHELL("read line; echo out $line; echo err $line >&2; cat"), &pipes);
    CHECK_INT(write(pipes.in, "one\ntwo\n", 8), 8);
    close(pipes.in);
    read_all(pipes.out, text, sizeof(text));
    CHECK(strcmp(text, "out one\ntwo\n") == 0);
    read_all(pipes.err, text, sizeof(text));
    CHECK(strcmp(text, "err one\n") == 0);
    reap(&child);
    CHECK(child.known && child.status == 0);
    close(pipes.out);
    close(pipes.err);
    xc_child_fini(&child);
}

static void
end_is_told(void)
{
    char text[10];
    CHECK_INT(run(SHELL("exit 0"), text, sizeof(text)), 0);
    CHECK_INT(run(SHELL("exit 7"), text, sizeof(text)), 7);
    CHECK_INT(run(SHELL("exit 255"), text, sizeof(text)), 255);
    CHECK_INT(run(SHELL("kill -KILL $$"), text, sizeof(text)), -SIGKILL);
    CHECK_INT(run(SHELL("ulimit -c 0; kill -ABRT $$"), text, sizeof(text)), -SIGABRT);
}

static void
reaping_never_blocks(void)
{
    xc_child child;
    xc_child_pipes pipes;
    start(&child, (char *[]){"cat", NULL}, &pipes);
    for (int i = 0; i < 100; i++) {
        CHECK_RC(xc_child_reap(&child), XC_AGAIN);
    }
    CHECK(!child.reaped);
    if (child.pidfd >= 0) {
        struct pollfd poller = {.fd = child.pidfd, .events = POLLIN};
        CHECK_INT(poll(&poller, 1, 0), 0);
        CHECK((fcntl(child.pidfd, F_GETFD) & FD_CLOEXEC) != 0);
        close(pipes.in);
        CHECK_INT(poll(&poller, 1, -1), 1);
        CHECK_RC(xc_child_reap(&child), XC_OK);
    }
    else {
        close(pipes.in);
        reap(&child);
    }
    CHECK(child.known && child.status == 0);
    close(pipes.out);
    close(pipes.err);
    xc_child_fini(&child);
    xc_child_fini(&child);
}

static void
signals_reach_it(void)
{
    static const int signals[] = {SIGTERM, SIGKILL, SIGINT};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        xc_child child;
        xc_child_pipes pipes;
        start(&child, (char *[]){"cat", NULL}, &pipes);
        xc_child_signal(&child, signals[i]);
        reap(&child);
        CHECK(child.known);
        CHECK_INT(child.status, -signals[i]);
        xc_child_signal(&child, SIGKILL);
        close_pipes(&pipes);
        xc_child_fini(&child);
    }
}

/* After it was reaped its number may be another's: no signal may go out, whatever the number says. */
static void
reaped_gets_no_signal(void)
{
    xc_child child = {.pid = getpid(), .pidfd = -1, .reaped = true};
    xc_child_signal(&child, SIGKILL);
    child = (xc_child){.pid = getpid(), .pidfd = -1};
    xc_child_signal(&child, SIGKILL);
    child = (xc_child){.pidfd = -1};
    xc_child_signal(&child, SIGKILL);
    CHECK_RC(xc_child_reap(&child), XC_OK);
}

/* ---- fds ---- */

#define LIST_FDS "cd /proc/self/fd; echo *"

/* The shell itself may have the directory open while it lists: nothing else above 2. */
static void
check_child_has_no_more_fds(void)
{
    char text[4000];
    CHECK_INT(run(SHELL(LIST_FDS), text, sizeof(text)), 0);
    CHECK(strcmp(text, "0 1 2\n") == 0 || strcmp(text, "0 1 2 3\n") == 0);
}

static void
inherited_fds_are_closed(void)
{
    int fds[200];
    check_child_has_no_more_fds();
    for (int i = 0; i < 200; i++) {
        fds[i] = fcntl(0, F_DUPFD, 3);
        CHECK(fds[i] > 2 && fcntl(fds[i], F_GETFD) == 0);
    }
    int high = fcntl(0, F_DUPFD, 900);
    CHECK(high >= 900);
    check_child_has_no_more_fds();
    close(high);
    for (int i = 0; i < 200; i++) {
        close(fds[i]);
    }
}

static void
start_without_stdio(void)
{
    xc_child child;
    xc_child_pipes pipes;
    char text[100];
    for (int closed = 1; closed < 8; closed++) {
        for (int fd = 0; fd < 3; fd++) {
            if ((closed & 1 << fd) != 0) {
                close(fd);
            }
        }
        start(&child, SHELL("read line; echo $line; echo err >&2; " LIST_FDS), &pipes);
        CHECK(child.pidfd == -1 || child.pidfd > 2);
        CHECK_INT(write(pipes.in, "word\n", 5), 5);
        read_all(pipes.out, text, sizeof(text));
        CHECK(strncmp(text, "word\n0 1 2", 10) == 0);
        read_all(pipes.err, text, sizeof(text));
        CHECK(strcmp(text, "err\n") == 0);
        reap(&child);
        CHECK(child.known && child.status == 0);
        close_pipes(&pipes);
        xc_child_fini(&child);
        for (int fd = 0; fd < 3; fd++) {
            CHECK(fcntl(fd, F_GETFD) != -1 || (closed & 1 << fd) != 0);
        }
        while (open("/dev/null", O_RDWR) < 2) {
        }
    }
}

static void
closed_stdio_is_no_trap(void)
{
    CHECK_INT(check_in_child(start_without_stdio), 0);
}

/* One fd more is allowed each time, until it works; in between nothing may stay open. */
static void
start_with_few_fds(void)
{
    struct rlimit limit, few;
    xc_child child;
    xc_child_pipes pipes;
    xc_err err;
    int refused = 0;
    /* No gaps: then the number of fds that are allowed beyond the open ones is the number to be had. */
    for (int fd = 3; fd < 1000; fd++) {
        close(fd);
    }
    int before = check_fds();
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int more = 0;; more++) {
        CHECK(more < 20);
        few = limit;
        few.rlim_cur = (rlim_t)(before + more);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
        xc_status rc = try_start(&child, (char *[]){"true", NULL}, &pipes, &err);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (rc == XC_OK) {
            break;
        }
        refused++;
        CHECK_RC(rc, XC_SYS);
        CHECK(err.sys_errno == EMFILE && strcmp(err.step, "make a pipe") == 0);
        CHECK_INT(check_fds(), before);
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    }
    CHECK(refused >= 6);
    reap(&child);
    CHECK(child.known && child.status == 0);
    close_pipes(&pipes);
    xc_child_fini(&child);
    CHECK_INT(check_fds(), before);
}

static void
want_of_fds_leaves_nothing(void)
{
    CHECK_INT(check_in_child(start_with_few_fds), 0);
}

/* A start itself needs none. */
static void
want_of_memory_is_told(void)
{
    atomic_store(&check_allowed, 0);
    xc_set_alloc_hook(check_allow_some);
    xc_program *program = xc_program_new((char *[]){"true", NULL});
    xc_set_alloc_hook(NULL);
    CHECK(program == NULL);
}

/* ---- signals ---- */

static unsigned long long
signal_set(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    CHECK(line != NULL);
    return strtoull(line + strlen(name), NULL, 16);
}

#define BIT(sig) (1ULL << ((sig)-1))

static void
on_signal(int sig)
{
    (void)sig;
}

static void
look_at_childs_signals(void)
{
    char text[8000];
    sigset_t some, now;
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    sigaddset(&some, SIGTERM);
    sigaddset(&some, SIGRTMIN + 3);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    CHECK_INT(sigaction(SIGUSR2, &action, NULL), 0);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &some, NULL), 0);
    raise(SIGUSR1);
    CHECK_INT(run((char *[]){"cat", "/proc/self/status", NULL}, text, sizeof(text)), 0);
    CHECK_INT(signal_set(text, "SigBlk:"), 0);
    CHECK_INT(signal_set(text, "SigPnd:"), 0);
    CHECK_INT(signal_set(text, "SigCgt:"), 0);
    unsigned long long ignored = signal_set(text, "SigIgn:");
    CHECK((ignored & (BIT(SIGPIPE) | BIT(SIGXFSZ) | BIT(SIGUSR2) | BIT(SIGUSR1) | BIT(SIGTERM))) == 0);
    CHECK((ignored & BIT(SIGINT)) != 0 && (ignored & BIT(SIGHUP)) != 0);
    /* The caller's are as they were, also after a start that failed. */
    check_refused((char *[]){"/xc/no/such/program", NULL}, ENOENT);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, NULL, &now), 0);
    for (int sig = 1; sig < NSIG; sig++) {
        CHECK_INT(sigismember(&now, sig), sigismember(&some, sig));
    }
    CHECK_INT(sigaction(SIGUSR2, NULL, &action), 0);
    CHECK(action.sa_handler == on_signal);
    CHECK(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
}

static void
child_has_clean_signals(void)
{
    CHECK_INT(check_in_child(look_at_childs_signals), 0);
}

static void
child_stays_in_the_group(void)
{
    char text[1000];
    int group = -1;
    CHECK_INT(run((char *[]){"cat", "/proc/self/stat", NULL}, text, sizeof(text)), 0);
    const char *behind_name = strrchr(text, ')');
    CHECK(behind_name != NULL && sscanf(behind_name + 1, " %*c %*d %d", &group) == 1);
    CHECK_INT(group, getpgrp());
}

/* ---- a status that somebody else took ---- */

static void
check_end_unknown(xc_child *child, xc_child_pipes *pipes)
{
    CHECK_RC(xc_child_reap(child), XC_AGAIN);
    close(pipes->in);
    pipes->in = -1;
    reap(child);
    CHECK(!child->known);
    xc_child_signal(child, SIGKILL);
    xc_child_fini(child);
    close(pipes->out);
    close(pipes->err);
}

static void
ignore_children(void)
{
    xc_child child;
    xc_child_pipes pipes;
    signal(SIGCHLD, SIG_IGN);
    start(&child, (char *[]){"cat", NULL}, &pipes);
    check_end_unknown(&child, &pipes);
    start(&child, (char *[]){"cat", NULL}, &pipes);
    if (child.pidfd >= 0) {
        close(child.pidfd);
        child.pidfd = -1;
    }
    check_end_unknown(&child, &pipes);
    for (int i = 0; i < 20; i++) {
        start(&child, (char *[]){"true", NULL}, &pipes);
        reap(&child);
        CHECK(!child.known);
        close_pipes(&pipes);
        xc_child_fini(&child);
    }
    check_refused((char *[]){"/xc/no/such/program", NULL}, ENOENT);
}

static void
ignored_children_end_unknown(void)
{
    CHECK_INT(check_in_child(ignore_children), 0);
}

static void
status_taken_by_a_stranger(void)
{
    for (int with_pidfd = 0; with_pidfd < 2; with_pidfd++) {
        xc_child child;
        xc_child_pipes pipes;
        start(&child, (char *[]){"true", NULL}, &pipes);
        CHECK_INT(waitpid(child.pid, NULL, 0), child.pid);
        if (!with_pidfd) {
            xc_child_fini(&child);
        }
        xc_child_signal(&child, SIGTERM);
        CHECK_RC(xc_child_reap(&child), XC_OK);
        CHECK(child.reaped && !child.known);
        close_pipes(&pipes);
        xc_child_fini(&child);
    }
}

static xc_child inherited;

/* In a fork the process is nobody's child, but it lives: only the pidfd knows. */
static void
look_from_a_fork(void)
{
    CHECK_RC(xc_child_reap(&inherited), XC_AGAIN);
    CHECK(!inherited.reaped);
}

static void
living_stranger_is_not_reaped(void)
{
    xc_child_pipes pipes;
    start(&inherited, (char *[]){"cat", NULL}, &pipes);
    if (inherited.pidfd >= 0) {
        CHECK_INT(check_in_child(look_from_a_fork), 0);
    }
    close_pipes(&pipes);
    reap(&inherited);
    CHECK(inherited.known && inherited.status == 0);
    xc_child_fini(&inherited);
}

/* ---- threads ---- */

/* Each cat ends when its stdin is closed: it would hang if another child had inherited the writing end. */
static void *
start_many(void *arg)
{
    for (int i = 0; i < 15; i++) {
        xc_child child;
        xc_child_pipes pipes;
        char text[100];
        start(&child, (char *[]){"cat", NULL}, &pipes);
        CHECK_INT(write(pipes.in, "hello", 5), 5);
        close(pipes.in);
        read_all(pipes.out, text, sizeof(text));
        CHECK(strcmp(text, "hello") == 0);
        reap(&child);
        CHECK(child.known && child.status == 0);
        close(pipes.out);
        close(pipes.err);
        xc_child_fini(&child);
    }
    return arg;
}

static void
threads_start_at_once(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, start_many, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
}

/* ---- older and stricter systems ---- */

#if defined(__linux__)

/* From here on, this process gets `error` from these system calls. False: the system has no such filter. */
static bool
deny(const int *calls, int n, int error)
{
    struct sock_filter code[16];
    int at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < n; i++) {
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = (unsigned short)at, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum { PIDFD_SEND_SIGNAL = 424, PIDFD_OPEN = 434, CLOSE_RANGE = 436, NO_FILTER = 77 };

static void
require_denied(const int *calls, int n, int error)
{
    if (!deny(calls, n, error)) {
        _exit(NO_FILTER);
    }
}

static void
run_on_old_kernel(void)
{
    static const int calls[] = {PIDFD_SEND_SIGNAL, PIDFD_OPEN, CLOSE_RANGE};
    require_denied(calls, 3, ENOSYS);
    xc_child child;
    xc_child_pipes pipes;
    start(&child, (char *[]){"cat", NULL}, &pipes);
    CHECK_INT(child.pidfd, -1);
    CHECK_RC(xc_child_reap(&child), XC_AGAIN);
    xc_child_signal(&child, SIGTERM);
    reap(&child);
    CHECK(child.known && child.status == -SIGTERM);
    close_pipes(&pipes);
    xc_child_fini(&child);
    end_is_told();
    reaping_never_blocks();
    inherited_fds_are_closed();
    status_taken_by_a_stranger();
    ignore_children();
}

static void
run_without_sending_by_pidfd(void)
{
    static const int calls[] = {PIDFD_SEND_SIGNAL};
    require_denied(calls, 1, ENOSYS);
    signals_reach_it();
}

static void
run_without_forks(void)
{
    static const int calls[] = {
#ifdef SYS_vfork
        SYS_vfork,
#endif
#ifdef SYS_fork
        SYS_fork,
#endif
        SYS_clone, 435 /* clone3 */};
    xc_child child;
    xc_child_pipes pipes;
    xc_err err;
    int before = check_fds();
    require_denied(calls, sizeof(calls) / sizeof(calls[0]), EAGAIN);
    CHECK_RC(try_start(&child, (char *[]){"true", NULL}, &pipes, &err), XC_SYS);
    CHECK(err.sys_errno == EAGAIN && strcmp(err.step, "fork") == 0);
    CHECK_INT(check_fds(), before);
}

static void
check_filtered(void (*body)(void))
{
    int status = check_in_child(body);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FILTER) {
        fprintf(stderr, "%s: %s: left out, no system call filter here\n", check_name, check_case);
        return;
    }
    CHECK_INT(status, 0);
}

static void
old_kernels_will_do(void)
{
    check_filtered(run_on_old_kernel);
    check_filtered(run_without_sending_by_pidfd);
}

static void
failed_fork_leaves_nothing(void)
{
    check_filtered(run_without_forks);
}

#endif

int
main(void)
{
    check_begin("child", 120);
    RUN(streams_are_connected);
    RUN(end_is_told);
    RUN(reaping_never_blocks);
    RUN(signals_reach_it);
    RUN(reaped_gets_no_signal);
    RUN(inherited_fds_are_closed);
    RUN(closed_stdio_is_no_trap);
    RUN(want_of_fds_leaves_nothing);
    RUN(want_of_memory_is_told);
    RUN(child_has_clean_signals);
    RUN(child_stays_in_the_group);
    RUN(ignored_children_end_unknown);
    RUN(status_taken_by_a_stranger);
    RUN(living_stranger_is_not_reaped);
    RUN(threads_start_at_once);
#if defined(__linux__)
    RUN(old_kernels_will_do);
    RUN(failed_fork_leaves_nothing);
#endif
    return check_end();
}
