/*
 * A pool: things that cost much to make, and of which a thread takes one for a short time. Any number of threads may
 * use it at once; none waits. A thread mostly gets the thing that it had before, as each looks first at a place of its
 * own, so that the thing is still in its caches.
 */
#ifndef XC_POOL_H
#define XC_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { XC_POOL_BITS = 4, XC_POOL_PLACES = 1 << XC_POOL_BITS };

/* A zeroed one is empty. */
typedef struct {
    _Atomic(void *) places[XC_POOL_PLACES]; /* owned, or NULL */
} xc_pool;

/* The n-th place at which this thread looks. */
static inline _Atomic(void *) *
xc_pool_place(xc_pool *pool, unsigned n)
{
    uint64_t mixed = (uint64_t)(uintptr_t)pthread_self() * UINT64_C(0x9e3779b97f4a7c15);
    return &pool->places[((unsigned)(mixed >> (64 - XC_POOL_BITS)) + n) % XC_POOL_PLACES];
}

/* Owned; NULL: the pool is empty. */
static inline void *
xc_pool_take(xc_pool *pool)
{
    for (unsigned n = 0; n < XC_POOL_PLACES; n++) {
        _Atomic(void *) *place = xc_pool_place(pool, n);
        if (atomic_load_explicit(place, memory_order_relaxed) != NULL) {
            void *thing = atomic_exchange_explicit(place, NULL, memory_order_acquire);
            if (thing != NULL) {
                return thing;
            }
        }
    }
    return NULL;
}

/* False: the pool is full, and the caller keeps the thing. */
static inline bool
xc_pool_give(xc_pool *pool, void *thing)
{
    for (unsigned n = 0; n < XC_POOL_PLACES; n++) {
        void *none = NULL;
        if (atomic_compare_exchange_strong_explicit(xc_pool_place(pool, n), &none, thing, memory_order_release,
                                                    memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

#endif
