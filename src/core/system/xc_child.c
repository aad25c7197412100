/*
 * Starting and ending processes.
 *
 * Between vfork and exec the child runs in the parent's memory, so child_runs() does system calls only. All that needs
 * memory or could change meanwhile is in an xc_program before. All signals are blocked, and the child resets each
 * signal that the parent catches before it unblocks them: otherwise the parent's handlers would run in the child, on
 * the parent's data.
 *
 * With plain fork (thread sanitizer, systems without vfork) the child has a copy of the memory. Then its error comes
 * back through a close-on-exec pipe, not through a variable. Fork handlers run in it, too, and close the fds of
 * xc_forkfd.h; so what is to be passed on is passed as a copy, which they do not know.
 *
 * A pid alone may be another process's once somebody else has reaped the child (SIGCHLD ignored, a waitpid of the
 * program). Invariant: a signal goes through the pidfd, or to a pid of which waitid has just said that it is still our
 * child's.
 */
#include "xc_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__) && !defined(XC_PORTABLE)
#define ON_LINUX 1
#include <sys/syscall.h>
#else
#define ON_LINUX 0
#endif

#if defined(__SANITIZE_THREAD__)
#define CHILD_SHARES_MEMORY 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHILD_SHARES_MEMORY 0
#endif
#endif
#ifndef CHILD_SHARES_MEMORY
#define CHILD_SHARES_MEMORY ON_LINUX
#endif

/* These numbers are the same on every Linux; older headers lack them. */
#if ON_LINUX
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define PIDFD_TYPE ((idtype_t)3) /* P_PIDFD */
#endif

typedef struct {
    const xc_program *program; /* borrowed */
    int ends[3][2];            /* owned; for fd 0, 1, 2: read end, write end */
    int report[2];             /* owned; -1 where the child shares our memory */
    volatile int error;        /* the child's errno; 0: it runs */
    xc_child_fds fds;          /* owned copies in `keep` where the child has a copy of the memory */
    bool shielded;             /* SIGINT stays blocked */
} start_plan;

/* ---- fds ---- */

static bool
open_fds(start_plan *plan, const xc_child_fds *fds)
{
    for (int i = 0; !CHILD_SHARES_MEMORY && i < XC_CHILD_KEEPS && fds->keep[i] >= 0; i++) {
        plan->fds.keep[i] = fcntl(fds->keep[i], F_DUPFD_CLOEXEC, 3);
        if (plan->fds.keep[i] < 0) {
            return false;
        }
    }
    for (int i = 0; i < (fds->err < 0 ? 3 : 2); i++) {
        if (!xc_make_pipe(plan->ends[i])) {
            return false;
        }
    }
    return CHILD_SHARES_MEMORY || xc_make_pipe(plan->report);
}

static void
close_plan(start_plan *plan)
{
    for (int i = 0; i < 3; i++) {
        xc_fd_drop(&plan->ends[i][0]);
        xc_fd_drop(&plan->ends[i][1]);
    }
    xc_fd_drop(&plan->report[0]);
    xc_fd_drop(&plan->report[1]);
    for (int i = 0; !CHILD_SHARES_MEMORY && i < XC_CHILD_KEEPS; i++) {
        xc_fd_drop(&plan->fds.keep[i]);
    }
}

/* ---- in the child: system calls only ---- */

#if ON_LINUX
struct dirent_64 {
    uint64_t inode;
    int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* False: no /proc. The directory's order is by number, so closing while walking skips none. */
static bool
close_listed_fds(int lowest)
{
    _Alignas(struct dirent_64) char room[1024];
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return false;
    }
    for (;;) {
        long n = syscall(SYS_getdents64, dir, room, sizeof(room));
        if (n <= 0) {
            close(dir);
            return n == 0;
        }
        for (long at = 0; at < n;) {
            const struct dirent_64 *entry = (const struct dirent_64 *)(room + at);
            int fd = 0;
            for (const char *c = entry->name; *c >= '0' && *c <= '9'; c++) {
                fd = fd * 10 + (*c - '0');
            }
            if (fd >= lowest && fd != dir) {
                close(fd);
            }
            at += entry->size;
        }
    }
}
#endif

static void
close_fds_from(int lowest)
{
#if ON_LINUX
    if (syscall(SYS_close_range, (unsigned)lowest, ~0U, 0) == 0 || close_listed_fds(lowest)) {
        return;
    }
#endif
    struct rlimit limit;
    int end = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)end) {
        end = (int)limit.rlim_cur;
    }
    for (int fd = lowest; fd < end; fd++) {
        close(fd);
    }
}

static void
reset_signals(bool shielded)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++) {
        struct sigaction old;
        if (sigaction(sig, NULL, &old) != 0) {
            continue;
        }
        bool caught = old.sa_handler != SIG_IGN && old.sa_handler != SIG_DFL;
        if (caught || sig == SIGPIPE || sig == SIGXFSZ) {
            sigaction(sig, &plain, NULL);
        }
    }
    sigset_t blocked;
    sigemptyset(&blocked);
    if (shielded) {
        sigaddset(&blocked, SIGINT);
    }
    sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* A file that may not be run does not end the search, but its error is the one that is reported. */
static int
exec_one_of(const start_plan *plan)
{
    int first_error = 0;
    int last = ENOENT;
    for (char **place = plan->program->places; *place != NULL; place++) {
        execve(*place, plan->program->argv, plan->program->env);
        last = errno;
        if (last != ENOENT && last != ENOTDIR && first_error == 0) {
            first_error = last;
        }
    }
    return first_error != 0 ? first_error : last;
}

/* Puts the fds to keep at 3, 4, ... and the report's fd behind them. All are copied to higher numbers first, out of the
 * way. *lowest: the first fd to close. */
static bool
place_kept(start_plan *plan, int *lowest)
{
    int kept[XC_CHILD_KEEPS], n = 0;
    while (n < XC_CHILD_KEEPS && plan->fds.keep[n] >= 0) {
        n++;
    }
    for (int i = 0; i < n; i++) {
        kept[i] = fcntl(plan->fds.keep[i], F_DUPFD_CLOEXEC, 3 + n + 1);
    }
    if (!CHILD_SHARES_MEMORY) {
        int report = fcntl(plan->report[1], F_DUPFD_CLOEXEC, 3 + n + 1);
        if (report < 0) {
            return false; /* reported through the fd that we have */
        }
        plan->report[1] = report;
    }
    for (int i = 0; i < n; i++) {
        if (kept[i] < 0 || dup2(kept[i], 3 + i) < 0) {
            return false;
        }
    }
    *lowest = 3 + n;
    if (!CHILD_SHARES_MEMORY) {
        if (dup2(plan->report[1], *lowest) < 0 || fcntl(*lowest, F_SETFD, FD_CLOEXEC) != 0) {
            return false;
        }
        plan->report[1] = (*lowest)++;
    }
    return true;
}

/* Every end is at 3 or above, so no dup2 overwrites an end that is still needed. */
static int
become_program(start_plan *plan)
{
    int lowest, err = plan->fds.err >= 0 ? plan->fds.err : plan->ends[2][1];
    if (dup2(plan->ends[0][0], 0) < 0 || dup2(plan->ends[1][1], 1) < 0 || dup2(err, 2) < 0) {
        return errno;
    }
    for (int i = 0; i < 2; i++) { /* makes room for copies: the parent may be at its limit */
        close(plan->ends[i][0]);
        close(plan->ends[i][1]);
    }
    if (!place_kept(plan, &lowest)) {
        return errno;
    }
    close_fds_from(lowest);
    reset_signals(plan->shielded);
    return exec_one_of(plan);
}

__attribute__((noinline, noreturn)) static void
child_runs(start_plan *plan)
{
    int error = become_program(plan);
    plan->error = error;
    if (!CHILD_SHARES_MEMORY) {
        ssize_t ignored = write(plan->report[1], &error, sizeof(error));
        (void)ignored;
    }
    _exit(127);
}

/* ---- in the parent ---- */

/* A function of its own: when vfork returns for the second time, none of the caller's variables is in a register. */
__attribute__((noinline)) static pid_t
fork_child(start_plan *plan)
{
#if CHILD_SHARES_MEMORY
    pid_t pid = vfork();
#else
    pid_t pid = fork();
#endif
    if (pid == 0) {
        child_runs(plan);
    }
    return pid;
}

/* Waits until the child has exec'd or failed. */
static void
hear_report(start_plan *plan)
{
    int error = 0;
    ssize_t n;
    if (CHILD_SHARES_MEMORY) {
        return;
    }
    xc_fd_drop(&plan->report[1]);
    do {
        n = read(plan->report[0], &error, sizeof(error));
    } while (n < 0 && errno == EINTR);
    plan->error = n == (ssize_t)sizeof(error) ? error : 0;
}

/* The child has called _exit, or is about to: this wait is short. */
static void
reap(pid_t pid)
{
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) != 0 && errno == EINTR) {
    }
}

static int
open_pidfd(pid_t pid)
{
#if ON_LINUX
    return xc_fd_lift((int)syscall(SYS_pidfd_open, pid, 0));
#else
    (void)pid;
    return -1;
#endif
}

static xc_status
run_plan(start_plan *plan, xc_child *child, xc_err *err)
{
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    pid_t pid = fork_child(plan);
    int why = errno;
    if (pid > 0) {
        hear_report(plan);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        return xc_fail(err, XC_SYS, why, "fork");
    }
    if (plan->error != 0) {
        reap(pid);
        xc_failf(err, XC_SYS, "start a process", "%s", plan->program->argv[0]);
        if (err != NULL) {
            err->sys_errno = plan->error;
        }
        return XC_SYS;
    }
    child->pid = pid;
    child->pidfd = open_pidfd(pid);
    xc_fd_own(child->pidfd);
    return XC_OK;
}

static xc_status
start(xc_child *child, const xc_program *program, const xc_child_fds *fds, bool shielded, xc_child_pipes *pipes,
      xc_err *err)
{
    start_plan plan = {
        .program = program,
        .fds = CHILD_SHARES_MEMORY ? *fds : (xc_child_fds){.err = fds->err, .keep = {-1, -1, -1}},
        .shielded = shielded,
        .ends = {{-1, -1}, {-1, -1}, {-1, -1}},
        .report = {-1, -1},
    };
    xc_status rc;
    XC_ASSERT(program->argv[0] != NULL && program->places[0] != NULL);
    XC_ASSERT(xc_locks_held() == 0);
    *child = (xc_child){.pidfd = -1};
    *pipes = (xc_child_pipes){-1, -1, -1};
    if (!open_fds(&plan, fds)) {
        rc = xc_fail(err, XC_SYS, errno, "make a pipe");
        goto done;
    }
    rc = run_plan(&plan, child, err);
    if (rc == XC_OK) {
        *pipes = (xc_child_pipes){.in = plan.ends[0][1], .out = plan.ends[1][0], .err = plan.ends[2][0]};
        plan.ends[0][1] = plan.ends[1][0] = plan.ends[2][0] = -1;
    }
done:
    close_plan(&plan);
    return rc;
}

xc_status
xc_child_start(xc_child *child, const xc_program *program, xc_child_pipes *pipes, xc_err *err)
{
    static const xc_child_fds none = {.err = -1, .keep = {-1}};
    return start(child, program, &none, false, pipes, err);
}

xc_status
xc_child_start_shielded(xc_child *child, const xc_program *program, const xc_child_fds *fds, xc_child_pipes *pipes,
                        xc_err *err)
{
    return start(child, program, fds, true, pipes, err);
}

/* -1: there is none, or it is not ours any more. */
static int
pidfd_of(const xc_child *child)
{
    return child->pidfd >= 0 && xc_fd_ours(child->pidfd) ? child->pidfd : -1;
}

/* waitid on the child, WNOHANG with WEXITED and `flags`: 0 with info->si_pid == 0 while it lives, else an errno. */
static int
ask(const xc_child *child, int flags, siginfo_t *info)
{
    int r = -1, pidfd = pidfd_of(child);
    (void)pidfd;
    *info = (siginfo_t){0};
    do {
#if ON_LINUX
        /* Linux 5.3 has pidfds, but waits for them only from 5.4 on. */
        if (pidfd >= 0) {
            r = waitid(PIDFD_TYPE, (id_t)pidfd, info, WEXITED | WNOHANG | flags);
        }
        if (pidfd < 0 || (r != 0 && errno == EINVAL))
#endif
            r = waitid(P_PID, (id_t)child->pid, info, WEXITED | WNOHANG | flags);
    } while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : errno;
}

/* After ECHILD. Without a pidfd: the pid is not our child's any more, so the child has ended. */
static bool
has_ended(const xc_child *child)
{
    struct pollfd poller = {.fd = pidfd_of(child), .events = POLLIN};
    return poller.fd < 0 || poll(&poller, 1, 0) > 0;
}

xc_status
xc_child_reap(xc_child *child)
{
    siginfo_t info;
    if (child->reaped || child->pid == 0) {
        return XC_OK;
    }
    int error = ask(child, 0, &info);
    if (error != 0) {
        if (!has_ended(child)) {
            return XC_AGAIN;
        }
        child->reaped = true;
        return XC_OK;
    }
    if (info.si_pid == 0) {
        return XC_AGAIN;
    }
    child->status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    child->known = true;
    child->reaped = true;
    return XC_OK;
}

void
xc_child_signal(xc_child *child, int sig)
{
    siginfo_t info;
    if (child->reaped || child->pid == 0) {
        return;
    }
#if ON_LINUX
    int pidfd = pidfd_of(child);
    if (pidfd >= 0 && (syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) == 0 || errno != ENOSYS)) {
        return;
    }
#endif
    if (ask(child, WNOWAIT, &info) == 0) {
        kill(child->pid, sig);
    }
}

void
xc_child_fini(xc_child *child)
{
    xc_fd_close(child->pidfd);
    child->pidfd = -1;
}
