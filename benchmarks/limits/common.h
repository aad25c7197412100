/*
 * What the programs that show the system's limits share: time, a word in shared memory that one side waits for, and the
 * far end, a forked process that dies with this one.
 *
 * Whoever waits looks for a while, as long as a sleep and a wake-up take, and then sleeps on a futex; at once if the
 * other side last ran on this very CPU, which it needs. Who changes the word wakes the other only if that says that it
 * sleeps.
 */
#ifndef LIMITS_COMMON_H
#define LIMITS_COMMON_H

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
    _Atomic int setter_cpu; /* its number plus one */
} word;

enum { LOOK_NS = 50000 };

static inline void
check(bool good, const char *what)
{
    if (!good) {
        perror(what);
        _exit(1);
    }
}

static inline int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void
pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static inline void
word_set(word *w, uint32_t value)
{
    atomic_store_explicit(&w->setter_cpu, sched_getcpu() + 1, memory_order_relaxed);
    atomic_store(&w->value, value);
    if (atomic_load(&w->sleepers)) {
        syscall(SYS_futex, &w->value, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
}

/* Until it is something else than `old`; gives what it is. */
static inline uint32_t
word_wait(word *w, uint32_t old)
{
    uint32_t value;
    int64_t until = now_ns() + LOOK_NS;
    while (atomic_load_explicit(&w->setter_cpu, memory_order_relaxed) != sched_getcpu() + 1 && now_ns() < until) {
        for (int i = 0; i < 40; i++) {
            if ((value = atomic_load_explicit(&w->value, memory_order_acquire)) != old) {
                return value;
            }
            pause_briefly();
        }
    }
    atomic_fetch_add(&w->sleepers, 1);
    while ((value = atomic_load(&w->value)) == old) {
        syscall(SYS_futex, &w->value, FUTEX_WAIT, old, NULL, NULL, 0);
    }
    atomic_fetch_sub(&w->sleepers, 1);
    return value;
}

static inline void *
shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "mmap");
    return p;
}

/* True in the far end. */
static inline bool
fork_far_end(void)
{
    pid_t parent = getpid(), pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
    }
    return pid == 0;
}

#endif
