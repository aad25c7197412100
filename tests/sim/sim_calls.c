/*
 * What the core calls of the system besides files: threads and mutexes, clocks, futexes, processes. The linker puts
 * these functions in the place of the C library's (--wrap, see the Makefile).
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "sim.h"
#include "sim_calls.h"
#include "xc_trace.h"

enum { KEYS = 4, NS = 1000000000 };

/* --- mutexes ---------------------------------------------------------------------------------------------------- */

/* A mutex is the number of the thread that has it, where the C library has its own state. */
static int *
owner_of(pthread_mutex_t *mu)
{
    return (int *)(void *)mu;
}

int
__wrap_pthread_mutex_init(pthread_mutex_t *mu, const pthread_mutexattr_t *attr)
{
    (void)attr;
    *owner_of(mu) = 0;
    return 0;
}

int
__wrap_pthread_mutex_destroy(pthread_mutex_t *mu)
{
    return *owner_of(mu) == 0 ? 0 : EBUSY;
}

int
__wrap_pthread_mutex_lock(pthread_mutex_t *mu)
{
    sim_point();
    int self = sim_thread_number(sim_self());
    if (*owner_of(mu) == self && self != 0) {
        return EDEADLK;
    }
    while (*owner_of(mu) != 0) {
        (void)sim_block(mu, SIM_NEVER, false, NULL);
    }
    *owner_of(mu) = self;
    return 0;
}

int
__wrap_pthread_mutex_unlock(pthread_mutex_t *mu)
{
    if (*owner_of(mu) != sim_thread_number(sim_self())) {
        return EPERM;
    }
    *owner_of(mu) = 0;
    sim_wake(mu);
    sim_point();
    return 0;
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

static void (*destructors[KEYS])(void *value);
static unsigned n_keys;
static struct {
    int thread; /* its number */
    void *value;
} values[KEYS][SIM_THREADS];

void
sim_reset_calls(void)
{
    n_keys = 0;
    memset(values, 0, sizeof values);
}

pthread_t
__wrap_pthread_self(void)
{
    return (pthread_t)sim_thread_number(sim_self());
}

int
__wrap_pthread_once(pthread_once_t *once, void (*setup)(void))
{
    if (*once == PTHREAD_ONCE_INIT) {
        *once = PTHREAD_ONCE_INIT + 1; /* no point comes inside of `setup` */
        setup();
    }
    return 0;
}

int
__wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare;
    (void)parent;
    (void)child;
    return 0;
}

int
__wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)how;
    (void)set;
    (void)old;
    return 0;
}

int
__wrap_pthread_setname_np(pthread_t thread, const char *name)
{
    (void)thread;
    (void)name;
    return 0;
}

int
__wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *value))
{
    if (n_keys == KEYS) {
        return EAGAIN;
    }
    *key = n_keys;
    destructors[n_keys++] = destructor;
    return 0;
}

int
__wrap_pthread_setspecific(pthread_key_t key, const void *value)
{
    for (int i = 0; i < SIM_THREADS; i++) {
        if (values[key][i].value == NULL) {
            values[key][i].thread = sim_thread_number(sim_self());
            values[key][i].value = (void *)value;
            return 0;
        }
    }
    return ENOMEM;
}

void
sim_end_of_thread(void)
{
    for (unsigned key = 0; key < n_keys; key++) {
        for (int i = 0; i < SIM_THREADS; i++) {
            void *value = values[key][i].value;
            if (value != NULL && values[key][i].thread == sim_thread_number(sim_self())) {
                values[key][i].value = NULL;
                destructors[key](value);
            }
        }
    }
}

/* The pump: the core starts no other thread. What it returns interests nobody. */
static void *(*pump_main)(void *arg);

static void
run_pump(void *arg)
{
    (void)pump_main(arg);
}

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    (void)attr;
    pump_main = run;
    *thread = (pthread_t)sim_thread_number(sim_start(sim_own_process(), "pump", run_pump, arg));
    return 0;
}

/* --- clocks ----------------------------------------------------------------------------------------------------- */

int
__wrap_clock_gettime(clockid_t clock, struct timespec *into)
{
    (void)clock;
    sim_point();
    into->tv_sec = (time_t)(sim_now() / NS);
    into->tv_nsec = (long)(sim_now() % NS);
    return 0;
}

int
__wrap_nanosleep(const struct timespec *span, struct timespec *left)
{
    (void)left;
    sim_sleep((int64_t)span->tv_sec * NS + span->tv_nsec);
    return 0;
}

int
__wrap_xc_cpu_count(void)
{
    return (int)sim_the_machine.cpus;
}

int
__wrap_sched_getcpu(void)
{
    return (int)sim_random(sim_the_machine.cpus);
}

/* --- futexes and the rest --------------------------------------------------------------------------------------- */

static long
wait_at(atomic_uint *word, unsigned value, const struct timespec *until)
{
    sim_point();
    if (atomic_load(word) != value || sim_chance(sim_the_machine.spurious)) {
        errno = EAGAIN;
        return -1;
    }
    switch (sim_block(word, (int64_t)until->tv_sec * NS + until->tv_nsec, true, NULL)) {
    case SIM_WOKEN:
        return 0;
    case SIM_TIMEOUT:
        errno = ETIMEDOUT;
        return -1;
    default:
        errno = EINTR;
        return -1;
    }
}

long
__wrap_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    long result = -1;
    errno = ENOSYS;
    if (number == SYS_futex) {
        atomic_uint *word = va_arg(args, atomic_uint *);
        int what = va_arg(args, int);
        if (what == FUTEX_WAIT_BITSET) {
            unsigned value = va_arg(args, unsigned);
            result = wait_at(word, value, va_arg(args, const struct timespec *));
        }
        else {
            sim_point();
            sim_wake(word);
            result = 0;
        }
    }
    else if (number == SYS_getcwd) {
        char *into = va_arg(args, char *);
        memcpy(into, "/sim", 5);
        result = 5;
    }
    va_end(args);
    return result;
}

pid_t
__wrap_getpid(void)
{
    return 1;
}

int
__wrap_kill(pid_t pid, int number)
{
    (void)pid;
    sim_trace("%s sends itself signal %d", sim_process_name(sim_own_process()), number);
    if (number == SIGKILL) {
        sim_kill(sim_own_process(), false);
    }
    sim_raise_sigint(sim_own_process());
    return 0;
}

void
__wrap__exit(int status)
{
    (void)status;
    sim_kill(sim_own_process(), false);
}

_Noreturn void
__wrap_xc_assert_failed(const char *file, int line, const char *function, const char *condition)
{
    sim_fail("%s:%d: %s: failed: %s", file, line, function, condition);
}

/* The core's own trace joins ours. */
void
__wrap_xc_trace(const char *format, ...)
{
    char line[200];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    sim_trace("%s", line);
}

void
__wrap_xc_trace_frame(const char *verb, uint8_t code, uint32_t chan, size_t size)
{
    sim_trace("%s %s for %u, %zu bytes", verb, xc_code_name(code), chan, size);
}

/* Regions are made by the world, see world.c. */
int
__wrap_munmap(void *at, size_t n)
{
    (void)at;
    (void)n;
    return 0;
}
