/*
 * For cases that use the pump. It ends, and closes its fds, a moment after its last user has left: RUN_IO waits for
 * that before it counts fds and threads.
 */
#ifndef CHECK_IO_H
#define CHECK_IO_H

#include "check.h"
#include "xc_sync.h"

static void (*check_io_case)(void);

/* The first thread's bell keeps its fd, so it gets one before fds are counted. SIGPIPE is ignored, as under CPython. */
static void
check_io_begin(const char *name, unsigned seconds)
{
    check_begin(name, seconds);
    signal(SIGPIPE, SIG_IGN);
    (void)xc_bell_sleep_nogil(xc_bell_mine(), -1, 0, 0);
}

static void
check_io_run(void)
{
    int fds = check_fds();
    int threads = check_entries("/proc/self/task");
    check_io_case();
    for (int i = 0; i < 10000 && (check_fds() > fds || check_entries("/proc/self/task") > threads); i++) {
        check_pause_ms(1);
    }
}

#define RUN_IO(name) (check_io_case = name, check_run(#name, check_io_run))

#if defined(__SANITIZE_THREAD__)
#define CHECK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHECK_TSAN 1
#endif
#endif
#ifndef CHECK_TSAN
#define CHECK_TSAN 0
#endif

/* Until `yes` holds; the program's alarm is the bound. */
#define AWAIT(yes)                                                                                                     \
    do {                                                                                                               \
        while (!(yes)) {                                                                                               \
            check_pause_ms(1);                                                                                         \
        }                                                                                                              \
    } while (0)

#endif
