/*
 * Locks, clocks and doorbells.
 *
 * A bell is a state and an fd. The state decides whether a ring needs the fd at all: only a ring that finds SLEEPING
 * writes to it, so waking a busy thread costs one atomic exchange. Invariant: a ring changes the state either before
 * the owner sets SLEEPING, and then the owner does not sleep, or after that, and then the owner's poll(2) watches the
 * fd that is written to (where there is no fd, the owner checks the state again after a slice).
 *
 * The write of a slow ringer may arrive after the owner has woken for another reason. Then a later sleep of the owner
 * ends once too early, which is harmless: every sleeper checks again what it waited for.
 *
 * A sleep at a word is the same with a futex: the ring that finds SLEEPING_AT changes the word, then wakes the owner
 * there. It changes the word only if it still has the value that the owner waits with, so it destroys no other news.
 *
 * All bells are in one list because of fork: the child shares each bell's fd with the parent, so the fork handler
 * closes them at once, before the child's program can reuse the numbers. The structs stay, because objects of the
 * parent may still point to them. The forking thread's bell gets a new fd in its next sleep.
 */
#include "xc_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && !defined(XC_PORTABLE)
#define HAS_EVENTFD 1
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#else
#define HAS_EVENTFD 0
#endif

/* The thread sanitizer checks owners itself, and does not allow initializing a locked mutex again. */
#if defined(__SANITIZE_THREAD__)
#define CHECKS_OWNER 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHECKS_OWNER 0
#endif
#endif
#ifndef CHECKS_OWNER
#ifdef XC_DEBUG
#define CHECKS_OWNER 1
#else
#define CHECKS_OWNER 0
#endif
#endif

#define SLICE    (5 * XC_MS)
#define SLICE_AT XC_S /* another process can make a sleeper miss a ring, but not for longer than this */

enum { IDLE, SLEEPING, SLEEPING_AT, RUNG };

struct xc_bell {
    atomic_int state;
    atomic_int fd;               /* owned: what the owner polls; -1: none */
    atomic_int into;             /* owned: what a ring writes to; for an eventfd, the same fd */
    _Atomic(atomic_uint *) word; /* borrowed: where the owner sleeps */
    atomic_uint value;           /* what *word has while the owner sleeps */
    bool bare;                   /* has no fd, because nobody would close it when the thread ends */
    xc_bell *next XC_GUARDED(bells);
    xc_bell **link XC_GUARDED(bells); /* what points to this bell */
};

static struct {
    xc_mutex mu;
    xc_bell *first XC_GUARDED(bells);
} all;

static pthread_once_t setup_once = PTHREAD_ONCE_INIT;
static pthread_key_t bell_key;
static bool have_key; /* written in setup_once */
static atomic_uint fork_count;

/* The bell of a thread for which none could be allocated; needs no destructor. */
static _Thread_local xc_bell spare;
static _Thread_local xc_bell *mine;

/* ---- mutexes ---- */

static void
must(int error, const char *what)
{
    if (error != 0) {
        xc_abort("execnet_c: %s failed with errno %d", what, error);
    }
}

void
xc_mutex_init(xc_mutex *mu)
{
    pthread_mutexattr_t attr;
    must(pthread_mutexattr_init(&attr), "pthread_mutexattr_init");
#if CHECKS_OWNER
    must(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK), "pthread_mutexattr_settype");
#endif
    must(pthread_mutex_init(&mu->raw, &attr), "pthread_mutex_init");
    pthread_mutexattr_destroy(&attr);
}

void
xc_mutex_fini(xc_mutex *mu)
{
    must(pthread_mutex_destroy(&mu->raw), "pthread_mutex_destroy");
}

#ifdef XC_DEBUG
static _Thread_local int held;
#define COUNT_HELD(more) ((void)(held += (more)))

int
xc_locks_held(void)
{
    return held;
}
#else
#define COUNT_HELD(more) ((void)0)
#endif

/* The lock analysis takes these two as given and does not look into them. */
XC_NOT_CHECKED
void
xc_lock(xc_mutex *mu)
{
    must(pthread_mutex_lock(&mu->raw), "pthread_mutex_lock");
    COUNT_HELD(1);
}

XC_NOT_CHECKED
void
xc_unlock(xc_mutex *mu)
{
    must(pthread_mutex_unlock(&mu->raw), "pthread_mutex_unlock");
    COUNT_HELD(-1);
}

/* A mutex that checks its owner would refuse, as the child's thread has another id. So it is initialized again. */
XC_NOT_CHECKED
void
xc_unlock_in_child(xc_mutex *mu)
{
#if CHECKS_OWNER
    xc_mutex_init(mu);
    COUNT_HELD(-1);
#else
    xc_unlock(mu);
#endif
}

/* ---- clocks ---- */

int64_t
xc_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * XC_S + now.tv_nsec;
}

int64_t
xc_after(int64_t ns)
{
    int64_t now = xc_now();
    return ns > XC_FOREVER - now ? XC_FOREVER : now + ns;
}

/* ---- fork and the end of a thread ---- */

static void
close_fds(xc_bell *bell)
{
    int fd = atomic_exchange(&bell->fd, -1);
    int into = atomic_exchange(&bell->into, -1);
    xc_fd_close(fd);
    if (into != fd) {
        xc_fd_close(into);
    }
}

static void
before_fork(void) XC_LOCKS(xc_bells_mu, all.mu)
{
    xc_lock_bells(&all.mu);
}

static void
after_fork_in_parent(void) XC_UNLOCKS(xc_bells_mu, all.mu)
{
    xc_unlock_bells(&all.mu);
}

/* The list is locked during each fork, so the child finds it whole. */
static void
after_fork_in_child(void) XC_UNLOCKS(xc_bells_mu, all.mu)
{
    atomic_fetch_add(&fork_count, 1);
    for (xc_bell *bell = all.first; bell != NULL; bell = bell->next) {
        close_fds(bell);
        atomic_store(&bell->state, IDLE);
    }
    xc_unlock_bells_in_child(&all.mu);
}

static void
thread_ends(void *arg)
{
    xc_bell *bell = arg;
    mine = NULL;
    xc_lock_bells(&all.mu);
    *bell->link = bell->next;
    if (bell->next != NULL) {
        bell->next->link = bell->link;
    }
    close_fds(bell);
    xc_unlock_bells(&all.mu);
    xc_free(bell);
}

static void
setup(void)
{
    xc_mutex_init(&all.mu);
    have_key = pthread_key_create(&bell_key, thread_ends) == 0;
    must(pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child), "pthread_atfork");
}

void
xc_sync_setup(void)
{
    must(pthread_once(&setup_once, setup), "pthread_once");
}

uint32_t
xc_fork_count(void)
{
    return atomic_load_explicit(&fork_count, memory_order_relaxed);
}

/* ---- bells ---- */

static void
bell_init(xc_bell *bell, bool bare)
{
    atomic_init(&bell->state, IDLE);
    atomic_init(&bell->fd, -1);
    atomic_init(&bell->into, -1);
    atomic_init(&bell->word, NULL);
    atomic_init(&bell->value, 0);
    bell->bare = bare;
}

static xc_bell *
make_mine(void) XC_TAKES_BELLS
{
    xc_sync_setup();
    xc_bell *bell = have_key ? xc_alloc(sizeof(*bell)) : NULL;
    if (bell != NULL && pthread_setspecific(bell_key, bell) != 0) {
        xc_free(bell);
        bell = NULL;
    }
    if (bell == NULL) {
        bell_init(&spare, true);
        return &spare;
    }
    bell_init(bell, false);
    xc_lock_bells(&all.mu);
    bell->next = all.first;
    bell->link = &all.first;
    if (bell->next != NULL) {
        bell->next->link = &bell->next;
    }
    all.first = bell;
    xc_unlock_bells(&all.mu);
    return bell;
}

xc_bell *
xc_bell_mine(void)
{
    if (mine == NULL) {
        mine = make_mine();
    }
    return mine;
}

#if HAS_EVENTFD
/* A fork at this moment must either find the fd in the bell or not have it at all. */
static void
open_fds_locked(xc_bell *bell) XC_NEEDS(bells)
{
    int fd = xc_fd_lift(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    xc_fd_own(fd);
    atomic_store(&bell->fd, fd);
    atomic_store(&bell->into, fd);
}
#else
static bool
prepare_end(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static void
open_fds_locked(xc_bell *bell) XC_NEEDS(bells)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return;
    }
    ends[0] = xc_fd_lift(ends[0]);
    ends[1] = xc_fd_lift(ends[1]);
    xc_fd_own(ends[0]);
    xc_fd_own(ends[1]);
    atomic_store(&bell->fd, ends[0]);
    atomic_store(&bell->into, ends[1]);
    if (ends[0] < 0 || ends[1] < 0 || !prepare_end(ends[0]) || !prepare_end(ends[1])) {
        close_fds(bell);
    }
}
#endif

static void
open_fds(xc_bell *bell) XC_TAKES_BELLS
{
    if (bell->bare || atomic_load(&bell->fd) >= 0) {
        return;
    }
    xc_lock_bells(&all.mu);
    open_fds_locked(bell);
    xc_unlock_bells(&all.mu);
}

#if XC_FUTEX
static void
ring_at_word(xc_bell *bell)
{
    atomic_uint *word = atomic_load(&bell->word);
    unsigned value = atomic_load(&bell->value);
    (void)atomic_compare_exchange_strong(word, &value, 0); /* if the owner is about to sleep there, it does not */
    xc_wake_at(word);                                      /* if the owner sleeps there, it wakes */
}
#endif

void
xc_bell_ring(xc_bell *bell)
{
    int was = atomic_exchange(&bell->state, RUNG);
#if XC_FUTEX
    if (was == SLEEPING_AT) {
        ring_at_word(bell);
    }
#endif
    if (was != SLEEPING) {
        return;
    }
    int into = atomic_load(&bell->into);
    if (into >= 0 && xc_fd_ours(into)) {
        /* If it is full, it is readable already: nothing to do. */
        uint64_t one = 1;
        ssize_t ignored = write(into, &one, HAS_EVENTFD ? sizeof(one) : 1);
        (void)ignored;
    }
}

void
xc_bell_clear(xc_bell *bell)
{
    XC_ASSERT(bell == xc_bell_mine());
    atomic_store(&bell->state, IDLE);
}

static void
drain(xc_bell *bell)
{
    unsigned char into[64];
    ssize_t ignored = read(atomic_load(&bell->fd), into, sizeof(into));
    (void)ignored;
}

static void
forget_fds(xc_bell *bell)
{
    atomic_store(&bell->fd, -1);
    atomic_store(&bell->into, -1);
}

/* poll(2) for at most `ns`, never a moment less. */
static int
poll_for(struct pollfd *fds, nfds_t n, int64_t ns)
{
#if defined(__linux__) && !defined(XC_PORTABLE)
    struct timespec span = {.tv_sec = (time_t)(ns / XC_S), .tv_nsec = (long)(ns % XC_S)};
    return ppoll(fds, n, ns == XC_FOREVER ? NULL : &span, NULL);
#else
    int64_t ms = ns / XC_MS + (ns % XC_MS != 0);
    return poll(fds, n, ns == XC_FOREVER ? -1 : ms > INT_MAX ? INT_MAX : (int)ms);
#endif
}

/*
 * One poll. XC_AGAIN: nothing happened in `ns`. A ring that comes together with a signal is left for the next call,
 * so that neither of them is lost.
 */
static xc_status
nap(xc_bell *bell, int fd, short events, int64_t ns)
{
    int bell_fd = atomic_load(&bell->fd);
    struct pollfd fds[2] = {{.fd = bell_fd, .events = POLLIN}, {.fd = fd, .events = events}};
    int idle = IDLE;
    if (!atomic_compare_exchange_strong(&bell->state, &idle, SLEEPING)) {
        atomic_store(&bell->state, IDLE);
        return XC_OK;
    }
    if (bell_fd < 0 && ns > SLICE) {
        ns = SLICE;
    }
    int n = poll_for(fds, 2, ns);
    if (n < 0 && errno == EINTR) {
        int sleeping = SLEEPING;
        atomic_compare_exchange_strong(&bell->state, &sleeping, IDLE);
        return XC_INTR;
    }
    bool rung = atomic_exchange(&bell->state, IDLE) == RUNG;
    if (n < 0) {
        /* poll(2) itself fails (fewer than two fds allowed, no memory): sleep a little and let the caller check. */
        struct timespec slice = {.tv_nsec = ns < SLICE ? (long)ns : (long)SLICE};
        nanosleep(&slice, NULL);
        return XC_OK;
    }
    if (n > 0 && fds[0].revents != 0 && !xc_fd_ours(bell_fd)) {
        /* The program has closed all its fds. The number is free, or another file's by now: forget it. */
        forget_fds(bell);
    }
    else if (n > 0 && fds[0].revents != 0) {
        drain(bell);
    }
    return n > 0 || rung ? XC_OK : XC_AGAIN;
}

xc_status
xc_bell_sleep_nogil(xc_bell *bell, int fd, short events, int64_t until)
{
    XC_ASSERT_NOGIL();
    XC_ASSERT(bell == xc_bell_mine() && xc_locks_held() == 0);
    XC_ASSERT(fd < 0 || events != 0);
    for (;;) {
        int64_t left = XC_FOREVER;
        if (until != XC_FOREVER) {
            int64_t now = xc_now();
            left = until > now ? until - now : 0;
        }
        open_fds(bell);
        /* Where the program has closed our fd and another file has its number, poll(2) would sleep at that. So check
         * now and then. */
        xc_status rc = nap(bell, fd, events, left < SLICE_AT ? left : SLICE_AT);
        if (rc == XC_AGAIN && left > SLICE_AT && !xc_fd_ours(atomic_load(&bell->fd))) {
            forget_fds(bell);
            return XC_OK;
        }
        if (rc == XC_AGAIN && left > SLICE_AT && !xc_fd_ours(fd)) {
            return XC_OK;
        }
        if (rc != XC_AGAIN) {
            return rc;
        }
        if (until != XC_FOREVER && xc_now() >= until) {
            return XC_TIMEOUT;
        }
    }
}

#if XC_FUTEX
void
xc_wake_at(atomic_uint *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

xc_status
xc_bell_sleep_at_nogil(xc_bell *bell, atomic_uint *word, unsigned value, int64_t until)
{
    XC_ASSERT_NOGIL();
    XC_ASSERT(bell == xc_bell_mine() && xc_locks_held() == 0);
    XC_ASSERT(value != 0);
    int64_t slice = xc_after(SLICE_AT), end = until < slice ? until : slice;
    struct timespec when = {.tv_sec = (time_t)(end / XC_S), .tv_nsec = (long)(end % XC_S)};
    int state = IDLE;
    atomic_store(&bell->word, word);
    atomic_store(&bell->value, value);
    if (!atomic_compare_exchange_strong(&bell->state, &state, SLEEPING_AT)) {
        atomic_store(&bell->state, IDLE);
        return XC_OK;
    }
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &when, NULL, FUTEX_BITSET_MATCH_ANY);
    if (rc != 0 && errno == EINTR) {
        state = SLEEPING_AT; /* a ring that came, too, is left for the next call */
        (void)atomic_compare_exchange_strong(&bell->state, &state, IDLE);
        return XC_INTR;
    }
    bool over = rc != 0 && errno == ETIMEDOUT && xc_now() >= until;
    bool rung = atomic_exchange(&bell->state, IDLE) == RUNG;
    return over && !rung ? XC_TIMEOUT : XC_OK;
}
#else
void
xc_wake_at(atomic_uint *word)
{
    (void)word;
}

xc_status
xc_bell_sleep_at_nogil(xc_bell *bell, atomic_uint *word, unsigned value, int64_t until)
{
    int64_t slice = xc_after(XC_MS);
    if (atomic_load(word) != value) {
        return XC_OK;
    }
    xc_status rc = xc_bell_sleep_nogil(bell, -1, 0, until < slice ? until : slice);
    return rc == XC_TIMEOUT && xc_now() < until ? XC_OK : rc;
}
#endif

/* ---- the machine ---- */

static int
count_cpus(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return CPU_COUNT(&set);
    }
#endif
    /* The set is too small for this many CPUs, or there is no such call. */
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > INT_MAX ? INT_MAX : (int)n;
}

int
xc_cpu_count(void)
{
    static atomic_int count;
    static _Atomic int64_t again_at;
    int64_t now = xc_now();
    int n = atomic_load_explicit(&count, memory_order_relaxed);
    if (n == 0 || now >= atomic_load_explicit(&again_at, memory_order_relaxed)) {
        n = count_cpus();
        atomic_store_explicit(&count, n, memory_order_relaxed);
        atomic_store_explicit(&again_at, now + XC_S, memory_order_relaxed);
    }
    return n;
}

void
xc_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}
