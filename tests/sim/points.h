/*
 * Included in front of each source of the core when it is built for the simulation: each atomic access is a point where
 * another thread may get the CPU, and what belongs to a thread of the real system is put where the simulated threads
 * can each have their own.
 */
#ifndef POINTS_H
#define POINTS_H

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>

void sim_point(void);
int64_t sim_now(void);

#undef atomic_load
#undef atomic_store
#undef atomic_exchange
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#define atomic_load(p)         (sim_point(), atomic_load_explicit(p, memory_order_seq_cst))
#define atomic_store(p, v)     (sim_point(), atomic_store_explicit(p, v, memory_order_seq_cst))
#define atomic_exchange(p, v)  (sim_point(), atomic_exchange_explicit(p, v, memory_order_seq_cst))
#define atomic_fetch_add(p, v) (sim_point(), atomic_fetch_add_explicit(p, v, memory_order_seq_cst))
#define atomic_fetch_sub(p, v) (sim_point(), atomic_fetch_sub_explicit(p, v, memory_order_seq_cst))
#define atomic_compare_exchange_strong(p, e, v)                                                                        \
    (sim_point(), atomic_compare_exchange_strong_explicit(p, e, v, memory_order_seq_cst, memory_order_seq_cst))
#define atomic_compare_exchange_weak(p, e, v)                                                                          \
    (sim_point(), atomic_compare_exchange_weak_explicit(p, e, v, memory_order_seq_cst, memory_order_seq_cst))

/* The CPU's counter and its pause. */
#define __builtin_ia32_rdtsc() ((uint64_t)sim_now())
#define __builtin_ia32_pause() sim_point()

#define _Thread_local __attribute__((section("sim_tls")))

#endif
