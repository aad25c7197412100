/*
 * Locks, clocks and sleeping.
 *
 * A deadline is absolute, in nanoseconds of CLOCK_MONOTONIC, so that a call that is repeated ends at the same time.
 *
 * A thread sleeps on its own doorbell (xc_bell): an eventfd, or a pipe where there is none, that lives as long as the
 * thread. So one poll(2) waits for a stream and for other threads, and a signal ends it. Bells belong to threads, not
 * to links: a thousand gateways need no fd for them.
 */
#ifndef XC_SYNC_H
#define XC_SYNC_H

#include <pthread.h>
#include <stdatomic.h>

#include "xc_fd.h"

#if defined(__clang__)
#define XC_ANNOTATE(x) __attribute__((x))
#else
#define XC_ANNOTATE(x)
#endif

/*
 * Which mutex keeps what, for clang's check (`make lint-core`); other compilers see nothing of it. In C a field cannot
 * name a mutex of its own struct. So there is a kind for each mutex: an object that does not exist, and that counts as
 * held while a mutex of this kind is. A field whose address is handed on is not checked.
 */
#define XC_NEEDS(kind)    XC_ANNOTATE(requires_capability(xc_##kind##_mu)) /* a function: the caller holds one */
#define XC_NEEDS_THIS(mu) XC_ANNOTATE(requires_capability(mu))             /* a function: the caller holds this mutex */
#define XC_EXCLUDES(...)  XC_ANNOTATE(locks_excluded(__VA_ARGS__))         /* a function: the caller does not hold it */
#define XC_LOCKS(...)     XC_ANNOTATE(acquire_capability(__VA_ARGS__))     /* a function: held when it returns */
#define XC_UNLOCKS(...)   XC_ANNOTATE(release_capability(__VA_ARGS__))
#define XC_GUARDED(kind)  XC_ANNOTATE(guarded_by(xc_##kind##_mu))   /* a field, which is only used while it is held */
#define XC_BEFORE(...)    XC_ANNOTATE(acquired_before(__VA_ARGS__)) /* a kind: these may be taken while it is held */
#define XC_NOT_CHECKED    XC_ANNOTATE(no_thread_safety_analysis)
/* The exceptions. A guarded field that is used without its mutex or role here; a comment says why that is right. */
#define XC_UNLOCKED(field) (*&(field))
/* From here to the end of the function: no other thread knows the object, as it is being made or freed. */
#define XC_ALONE(kind) xc_alone_##kind()

/* The same for a role, which is a flag under a mutex, or to be the pump's thread: who has it uses what belongs to it
 * without any mutex. */
#define XC_ROLE(role)                                                                                                  \
    extern xc_role xc_##role##_role;                                                                                   \
    static inline void xc_has_##role##_role(void) XC_ANNOTATE(assert_capability(xc_##role##_role))                     \
    {                                                                                                                  \
    }
#define XC_NEEDS_ROLE(role) XC_ANNOTATE(requires_capability(xc_##role##_role)) /* a function: its caller has it */
#define XC_OF_ROLE(role)    XC_ANNOTATE(guarded_by(xc_##role##_role))          /* a field, only used by who has it */
/* From here to the end of the block this thread has it: its flag says so, the pump calls this, or no other thread knows
 * the object. */
#define XC_HAS_ROLE(role) xc_has_##role##_role()
typedef struct XC_ANNOTATE(capability("role")) xc_role xc_role;

/* Held for a few assignments and list steps only: never across I/O, a sleep, a callback or a wait for the GIL. */
typedef struct XC_ANNOTATE(capability("mutex")) xc_mutex {
    pthread_mutex_t raw;
} xc_mutex;

/* If one of these fails it is a mistake of ours, and they abort. */
void xc_mutex_init(xc_mutex *mu);
void xc_mutex_fini(xc_mutex *mu);
void xc_lock(xc_mutex *mu) XC_LOCKS(*mu);
void xc_unlock(xc_mutex *mu) XC_UNLOCKS(*mu);
/* For a fork handler, in the child: unlocks what the forking thread locked before the fork. */
void xc_unlock_in_child(xc_mutex *mu) XC_UNLOCKS(*mu);
/* How many mutexes the calling thread holds; only for assertions, as only debug builds count them. */
int xc_locks_held(void);

typedef struct XC_ANNOTATE(capability("mutex")) xc_kind xc_kind;

/* The functions of a kind that is declared: xc_lock_link(&link->mu) and so on. */
#define XC_MUTEX_KIND(kind)                                                                                            \
    XC_NOT_CHECKED static inline void xc_lock_##kind(xc_mutex *mu) XC_LOCKS(*mu, xc_##kind##_mu)                       \
    {                                                                                                                  \
        xc_lock(mu);                                                                                                   \
    }                                                                                                                  \
    XC_NOT_CHECKED static inline void xc_unlock_##kind(xc_mutex *mu) XC_UNLOCKS(*mu, xc_##kind##_mu)                   \
    {                                                                                                                  \
        xc_unlock(mu);                                                                                                 \
    }                                                                                                                  \
    XC_NOT_CHECKED static inline void xc_unlock_##kind##_in_child(xc_mutex *mu) XC_UNLOCKS(*mu, xc_##kind##_mu)        \
    {                                                                                                                  \
        xc_unlock_in_child(mu);                                                                                        \
    }                                                                                                                  \
    static inline void xc_alone_##kind(void) XC_ANNOTATE(assert_capability(xc_##kind##_mu))                            \
    {                                                                                                                  \
    }

/*
 * The order of locks: while a mutex is held only those of kinds further up may be taken. No two of one kind are held
 * together. The fork handlers of the fork fds and of the pump lock in either order, so one is never taken inside the
 * other.
 */
extern xc_kind xc_bells_mu;
extern xc_kind xc_pump_mu XC_BEFORE(xc_bells_mu);
#define XC_INSIDE_PUMP xc_bells_mu
extern xc_kind xc_forkfds_mu XC_BEFORE(xc_pump_mu, XC_INSIDE_PUMP);
#define XC_INSIDE_FORKFDS xc_pump_mu, XC_INSIDE_PUMP
extern xc_kind xc_writer_mu XC_BEFORE(xc_forkfds_mu, XC_INSIDE_FORKFDS);
#define XC_INSIDE_WRITER xc_forkfds_mu, XC_INSIDE_FORKFDS
extern xc_kind xc_launch_mu XC_BEFORE(xc_writer_mu, XC_INSIDE_WRITER);
#define XC_INSIDE_LAUNCH xc_writer_mu, XC_INSIDE_WRITER
extern xc_kind xc_relay_mu XC_BEFORE(xc_launch_mu, XC_INSIDE_LAUNCH);
#define XC_INSIDE_RELAY xc_launch_mu, XC_INSIDE_LAUNCH
extern xc_kind xc_link_mu XC_BEFORE(xc_relay_mu, XC_INSIDE_RELAY);
#define XC_INSIDE_LINK xc_relay_mu, XC_INSIDE_RELAY

/* A function that takes a mutex of the kind: its caller holds neither such a one nor one that is only taken inside. */
#define XC_TAKES_BELLS   XC_EXCLUDES(xc_bells_mu)
#define XC_TAKES_PUMP    XC_EXCLUDES(xc_pump_mu, XC_INSIDE_PUMP)
#define XC_TAKES_FORKFDS XC_EXCLUDES(xc_forkfds_mu, XC_INSIDE_FORKFDS)
#define XC_TAKES_WRITER  XC_EXCLUDES(xc_writer_mu, XC_INSIDE_WRITER)
#define XC_TAKES_RELAY   XC_EXCLUDES(xc_relay_mu, XC_INSIDE_RELAY)
#define XC_TAKES_LAUNCH  XC_EXCLUDES(xc_launch_mu, XC_INSIDE_LAUNCH)
#define XC_TAKES_LINK    XC_EXCLUDES(xc_link_mu, XC_INSIDE_LINK)
/* A function that sleeps, or calls what may take any mutex: its caller holds none. */
#define XC_HOLDS_NONE XC_TAKES_LINK

XC_MUTEX_KIND(bells)
XC_MUTEX_KIND(pump)
XC_MUTEX_KIND(forkfds)
XC_MUTEX_KIND(writer)
XC_MUTEX_KIND(launch)
XC_MUTEX_KIND(relay)
XC_MUTEX_KIND(link)

#define XC_FOREVER INT64_MAX
#define XC_MS      INT64_C(1000000)
#define XC_S       INT64_C(1000000000)

int64_t xc_now(void);
/* now + ns, or XC_FOREVER where that would overflow. */
int64_t xc_after(int64_t ns);

/*
 * Changes with each fork, in the child only. An object made under another number belongs to the parent process:
 * its locks may be held by threads that are not here, so nothing of it may be touched.
 */
uint32_t xc_fork_count(void);
/* Registers the fork handler; safe to call often. The core's other fork handlers call it first. */
void xc_sync_setup(void);

typedef struct xc_bell xc_bell;

/* The calling thread's bell, made at the first call and freed when the thread ends. Never NULL: a bell without an fd
 * works, too, but sleeps in slices of 5 ms. */
xc_bell *xc_bell_mine(void) XC_TAKES_BELLS;

/* Wakes the bell's thread, now or in its next sleep. Any thread, never blocks. The caller makes sure that the bell's
 * thread cannot end meanwhile (it holds the mutex of the list where it found the bell). */
void xc_bell_ring(xc_bell *bell);

/* Takes a ring back that has not woken the thread yet. Only the bell's own thread. */
void xc_bell_clear(xc_bell *bell);

/*
 * Sleeps until the bell rings, fd (-1: none) is ready for `events` (POLLIN, POLLOUT), or the deadline passes. Only
 * the bell's own thread. XC_OK: the bell rang or the fd is ready or in error: check again. XC_TIMEOUT. XC_INTR: a
 * signal handler ran. Never fails otherwise. Does not need the bell to be cleared before: a ring is consumed here.
 */
xc_status xc_bell_sleep_nogil(xc_bell *bell, int fd, short events, int64_t until) XC_HOLDS_NONE;

/* Not on 32-bit systems, where a system call may take a timespec of another size than ours. */
#if defined(__linux__) && !defined(XC_PORTABLE) && UINTPTR_MAX > UINT32_MAX
#define XC_FUTEX 1
#else
#define XC_FUTEX 0
#endif

/*
 * The same at a word of memory that other processes may share: sleeps while *word is `value`, which is not 0. Ringing
 * the bell makes the word 0. XC_OK may also come without a reason. Another process can write to the word and so make a
 * sleeper miss a ring; therefore no sleep is longer than a second (without XC_FUTEX: than 1 ms, as only a bell wakes).
 * The caller takes its bell off the list where others find it before the word's memory is freed.
 */
xc_status xc_bell_sleep_at_nogil(xc_bell *bell, atomic_uint *word, unsigned value, int64_t until) XC_HOLDS_NONE;
/* Wakes all that sleep at the word, in any process, to check again. Never blocks. */
void xc_wake_at(atomic_uint *word);

/* How many CPUs this process may use now (at least 1): with one, spinning before sleeping is useless. */
int xc_cpu_count(void);
/* One pause between two polls. */
void xc_pause(void);

#endif
