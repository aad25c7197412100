/* Starts children, reads what they say and waits for their end. */
#ifndef CHILD_RIG_H
#define CHILD_RIG_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"
#include "xc_child.h"

#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#define SHELL(script)                                                                                                  \
    (char *[])                                                                                                         \
    {                                                                                                                  \
        "sh", "-c", script, NULL                                                                                       \
    }

__attribute__((unused)) static xc_status
try_start(xc_child *child, char *const argv[], xc_child_pipes *pipes, xc_err *err)
{
    xc_program *program = xc_program_new(argv);
    CHECK(program != NULL);
    xc_status rc = xc_child_start(child, program, pipes, err);
    xc_program_free(program);
    return rc;
}

__attribute__((unused)) static void
start(xc_child *child, char *const argv[], xc_child_pipes *pipes)
{
    xc_err err;
    xc_status rc = try_start(child, argv, pipes, &err);
    if (rc != XC_OK) {
        fprintf(stderr, "%s: %s: %s\n", err.step, err.detail, strerror(err.sys_errno));
    }
    CHECK_RC(rc, XC_OK);
    CHECK(child->pid > 0 && !child->reaped);
    CHECK(pipes->in > 2 && pipes->out > 2 && pipes->err > 2);
    CHECK((fcntl(pipes->in, F_GETFD) & fcntl(pipes->out, F_GETFD) & fcntl(pipes->err, F_GETFD) & FD_CLOEXEC) != 0);
}

/* Waits for the end without a wait of its own: as an owner without a pidfd would. */
__attribute__((unused)) static void
reap(xc_child *child)
{
    while (xc_child_reap(child) == XC_AGAIN) {
        CHECK(!child->reaped);
        struct pollfd poller = {.fd = child->pidfd, .events = POLLIN};
        poll(&poller, 1, child->pidfd < 0 ? 2 : 1000);
    }
    CHECK(child->reaped);
    CHECK_RC(xc_child_reap(child), XC_OK);
}

__attribute__((unused)) static void
close_pipes(xc_child_pipes *pipes)
{
    close(pipes->in);
    close(pipes->out);
    close(pipes->err);
}

/* Reads until the end of the stream; the text is terminated and fits, or the test fails. */
__attribute__((unused)) static void
read_all(int fd, char *text, size_t room)
{
    size_t have = 0;
    ssize_t n;
    while ((n = read(fd, text + have, room - 1 - have)) > 0) {
        have += (size_t)n;
        CHECK(have < room - 1);
    }
    CHECK_INT(n, 0);
    text[have] = '\0';
}

/* Runs a program to its end; its output is in `text`. */
__attribute__((unused)) static int
run(char *const argv[], char *text, size_t room)
{
    xc_child child;
    xc_child_pipes pipes;
    start(&child, argv, &pipes);
    read_all(pipes.out, text, room);
    reap(&child);
    CHECK(child.known);
    close_pipes(&pipes);
    xc_child_fini(&child);
    CHECK_INT(child.pidfd, -1);
    return child.status;
}

__attribute__((unused)) static void
check_refused(char *const argv[], int want)
{
    xc_child child;
    xc_child_pipes pipes;
    xc_err err;
    CHECK_RC(try_start(&child, argv, &pipes, &err), XC_SYS);
    CHECK(err.code == XC_SYS && strcmp(err.step, "start a process") == 0 && strcmp(err.detail, argv[0]) == 0);
    CHECK_INT(err.sys_errno, want);
    CHECK(child.pid == 0 && child.pidfd == -1 && pipes.in == -1 && pipes.out == -1 && pipes.err == -1);
    CHECK_RC(try_start(&child, argv, &pipes, NULL), XC_SYS);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    xc_child_signal(&child, SIGKILL);
    xc_child_fini(&child);
}

#endif
