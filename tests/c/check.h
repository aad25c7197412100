/*
 * The harness of the C tests. A test program runs its cases in order, dies by itself when one hangs, and watches that
 * no case leaves an fd, a thread or a child process behind.
 *
 *     int main(void) { check_begin("buf", 30); RUN(case_empty); ... return check_end(); }
 */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include "xc_base.h"

static atomic_uint check_count;
static const char *check_name = "";
static const char *check_case = "";
static unsigned check_seconds;

__attribute__((noreturn, unused)) static void
check_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s: %s: failed: %s\n", file, line, check_name, check_case, what);
    fflush(NULL);
    _exit(1);
}

#define CHECK(yes)                                                                                                     \
    do {                                                                                                               \
        atomic_fetch_add(&check_count, 1);                                                                             \
        if (!(yes)) {                                                                                                  \
            check_fail(__FILE__, __LINE__, #yes);                                                                      \
        }                                                                                                              \
    } while (0)

__attribute__((unused)) static void
check_equal(const char *file, int line, const char *what, long long got, long long want)
{
    atomic_fetch_add(&check_count, 1);
    if (got != want) {
        char text[300];
        snprintf(text, sizeof(text), "%s is %lld, not %lld", what, got, want);
        check_fail(file, line, text);
    }
}

__attribute__((unused)) static void
check_status(const char *file, int line, const char *what, xc_status got, xc_status want)
{
    atomic_fetch_add(&check_count, 1);
    if (got != want) {
        char text[300];
        snprintf(text, sizeof(text), "%s is %s, not %s", what, xc_status_name(got), xc_status_name(want));
        check_fail(file, line, text);
    }
}

/* The same with both values in the message. */
#define CHECK_INT(got, want) check_equal(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
#define CHECK_RC(got, want)  check_status(__FILE__, __LINE__, #got, (got), (want))

/* ---- what a case may not leave behind ---- */

__attribute__((unused)) static int
check_entries(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return -1;
    }
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n - 2;
}

/* Open fds of this process; -1 where there is no /proc. */
__attribute__((unused)) static int
check_fds(void)
{
    int n = check_entries("/proc/self/fd");
    return n < 0 ? -1 : n - 1;
}

__attribute__((unused)) static void
check_pause_ms(long ms)
{
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&span, &span) != 0 && errno == EINTR) {
    }
}

__attribute__((unused)) static void
check_run(const char *name, void (*run)(void))
{
    int fds = check_fds();
    int threads = check_entries("/proc/self/task");
    check_case = name;
    run();
    CHECK_INT(check_fds(), fds);
    /* A joined thread may stand in /proc for a moment yet. */
    for (int i = 0; i < 2000 && check_entries("/proc/self/task") > threads; i++) {
        check_pause_ms(1);
    }
    CHECK(check_entries("/proc/self/task") <= threads);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

#define RUN(name) check_run(#name, name)

/* A child may need SIGALRM for itself, or hang where the parent's alarm alone would leave it behind. */
__attribute__((unused)) static void
check_die_with_parent(void)
{
    alarm(check_seconds);
#if defined(__linux__)
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
}

/* Runs `body` in a forked child, which may do to its process what it likes; returns what waitpid says. */
__attribute__((unused)) static int
check_in_child(void (*body)(void))
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        check_die_with_parent();
        body();
        fflush(NULL);
        _exit(0);
    }
    CHECK(pid > 0);
    while (waitpid(pid, &status, 0) != pid) {
        CHECK_INT(errno, EINTR);
    }
    return status;
}

/* Fails allocation number `check_allowed` + 1 and all after it: for xc_set_alloc_hook. */
static atomic_int check_allowed;

__attribute__((unused)) static bool
check_allow_some(void)
{
    return atomic_fetch_sub(&check_allowed, 1) > 0;
}

static void *
check_nothing(void *arg)
{
    return arg;
}

static void
check_hung(int sig)
{
    const char *words[] = {check_name, ": hangs in ", check_case, "\n"};
    for (int i = 0; i < 4; i++) {
        if (write(STDERR_FILENO, words[i], strlen(words[i])) < 0) {
            break;
        }
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

/* A thread sanitizer starts a thread of its own beside the first one of the program: have it before counting. */
__attribute__((unused)) static void
check_begin(const char *name, unsigned seconds)
{
    pthread_t first;
    if (pthread_create(&first, NULL, check_nothing, NULL) == 0) {
        pthread_join(first, NULL);
    }
    check_name = name;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    seconds *= 5; /* several of these run beside one another, each many times slower */
#endif
    check_seconds = seconds;
    signal(SIGINT, SIG_DFL); /* ignored where a shell has started this in its background */
    signal(SIGALRM, check_hung);
    alarm(seconds);
}

__attribute__((unused)) static int
check_end(void)
{
    printf("%s: %u checks passed\n", check_name, atomic_load(&check_count));
    return 0;
}

#endif
