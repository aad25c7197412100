/*
 * Time, chance and the threads of the simulated machine.
 *
 * Invariant: a sleeping thread is woken by sim_wake, sim_look, a signal or its deadline, and by nothing else. When all
 * sleep, time jumps to the earliest deadline; if there is none the run has failed.
 */
#include <errno.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define BEFORE_SWITCH(save, to) __sanitizer_start_switch_fiber(save, (to)->stack, STACK)
#define AFTER_SWITCH(save)      __sanitizer_finish_switch_fiber(save, NULL, NULL)
enum { STACK = 512 * 1024 };
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, n) ((void)(at))
#define BEFORE_SWITCH(save, to)            ((void)(save))
#define AFTER_SWITCH(save)                 ((void)(save))
enum { STACK = 96 * 1024 };
#endif

enum {
    THREADS = SIM_THREADS,
    TLS = 512,
    MOST_POINTS = 1500000, /* of a run: else it never ends */
    LATE_POINTS = 800,     /* that a thread may pass after it should have been through */
};

enum { UNUSED, READY, ASLEEP }; /* UNUSED: there is no such thread, or it has ended */

struct sim_thread {
    int number; /* counted from 1 */
    const char *name;
    sim_process *process;
    void (*run)(void *arg);
    void *arg;
    const void *note;

    int state;
    bool begun;
    const void *what; /* where it sleeps */
    bool (*look)(const void *what);
    int64_t until;
    bool interruptible;
    sim_end_of_sleep how; /* its last sleep ended */
    int64_t through_by;
    uint32_t late;

    unsigned char *stack;
    ucontext_t context;
    jmp_buf jump;
    void *fiber; /* the sanitizer's */
    int error;   /* errno */
    unsigned char tls[TLS];
};

sim_machine sim_the_machine;

/* Those variables of the core of which each thread has its own: points.h. */
extern unsigned char __start_sim_tls[], __stop_sim_tls[];

static unsigned char stacks[THREADS][STACK] __attribute__((aligned(64)));
static sim_thread threads[THREADS];
static sim_thread *current;
static sim_thread at_home; /* who called sim_run */
static void *home_fiber;
static uint64_t chance;
static int64_t now;
static int64_t earliest; /* deadline of a sleeping thread, or before that */
static uint32_t countdown, points;
static int n_threads, last_number;
static bool checking; /* the world is being looked at, by functions of the core, too */

static size_t
tls_size(void)
{
    return (size_t)(__stop_sim_tls - __start_sim_tls);
}

/* --- chance and time -------------------------------------------------------------------------------------------- */

static uint64_t
next_chance(void)
{
    uint64_t x = (chance += UINT64_C(0x9e3779b97f4a7c15));
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint32_t
sim_random(uint32_t n)
{
    return (uint32_t)((next_chance() >> 32) * n >> 32);
}

bool
sim_chance(uint32_t n)
{
    return n != 0 && sim_random(n) == 0;
}

int64_t
sim_now(void)
{
    return now;
}

/* --- the CPU ---------------------------------------------------------------------------------------------------- */

static void
end_sleep(sim_thread *thread, sim_end_of_sleep how)
{
    thread->state = READY;
    thread->how = how;
}

/* Wakes those whose time has come, and finds the next deadline. */
static void
look_at_clock(void)
{
    earliest = SIM_NEVER;
    for (int i = 0; i < n_threads; i++) {
        sim_thread *thread = &threads[i];
        int64_t frozen = sim_frozen_until(thread->process);
        if (thread->state == UNUSED) {
            continue;
        }
        if (thread->state == ASLEEP && thread->until <= now) {
            end_sleep(thread, SIM_TIMEOUT);
        }
        int64_t until = thread->state == ASLEEP ? thread->until : frozen > now ? frozen : SIM_NEVER;
        earliest = until < earliest ? until : earliest;
    }
}

/* One of those that can run, by chance. */
static sim_thread *
choose(void)
{
    sim_thread *ready[THREADS];
    uint32_t n = 0;
    for (int i = 0; i < n_threads; i++) {
        if (threads[i].state == READY && sim_frozen_until(threads[i].process) <= now) {
            ready[n++] = &threads[i];
        }
    }
    return n == 0 ? NULL : ready[n == 1 ? 0 : sim_random(n)];
}

/* The thread that runs next; NULL: all have ended. */
static sim_thread *
choose_or_wait(void)
{
    sim_thread *next;
    if (now >= earliest) {
        look_at_clock();
    }
    while ((next = choose()) == NULL && sim_next_thread(NULL, SIM_ANY) != NULL) {
        look_at_clock();
        if ((next = choose()) != NULL) {
            break;
        }
        checking = true;
        sim_all_asleep(earliest);
        checking = false;
        if (earliest == SIM_NEVER) {
            sim_fail("deadlock: all sleep, and nothing will wake them");
        }
        now = earliest;
        look_at_clock();
    }
    return next;
}

/* Gives the CPU to that thread; NULL: the run is over. A thread that has ended does not come back. */
static void
switch_to(sim_thread *to)
{
    void **volatile save = &home_fiber; /* it lives through _setjmp */
    if (current != NULL) {
        current->error = errno;
        memcpy(current->tls, __start_sim_tls, tls_size());
        save = current->state == UNUSED ? NULL : &current->fiber;
        if (current->state != UNUSED && _setjmp(current->jump) != 0) {
            AFTER_SWITCH(current->fiber);
            return;
        }
    }
    current = to;
    countdown = 1 + sim_random(2 * sim_the_machine.switches);
    if (to == NULL) {
        BEFORE_SWITCH(save, &at_home);
        _longjmp(at_home.jump, 1);
    }
    memcpy(__start_sim_tls, to->tls, tls_size());
    sim_load_process(to->process);
    errno = to->error;
    BEFORE_SWITCH(save, to);
    if (to->begun) {
        _longjmp(to->jump, 1);
    }
    to->begun = true;
    setcontext(&to->context);
}

static void
yield(void)
{
    sim_thread *next = choose_or_wait();
    if (next == current) {
        countdown = 1 + sim_random(2 * sim_the_machine.switches);
        return;
    }
    switch_to(next);
}

void
sim_point(void)
{
    if (current == NULL || checking) {
        return;
    }
    now += sim_the_machine.tick;
    if (++points == MOST_POINTS) {
        sim_fail("this run does not end");
    }
    if (now > current->through_by && ++current->late > LATE_POINTS) {
        sim_fail("%s goes on and on after its deadline", current->name);
    }
    if (--countdown == 0 || now >= earliest) {
        yield();
    }
}

void
sim_be_through_by(int64_t when)
{
    current->through_by = when;
    current->late = 0;
}

void
sim_forgive(const sim_process *process)
{
    const int64_t grace = INT64_C(10000000);
    for (int i = 0; i < n_threads; i++) {
        if (threads[i].process == process && threads[i].through_by < now + grace) {
            threads[i].through_by = now + grace;
        }
    }
}

/* --- sleeping --------------------------------------------------------------------------------------------------- */

sim_end_of_sleep
sim_block(const void *what, int64_t until, bool interruptible, bool (*look)(const void *what))
{
    if (look != NULL && look(what)) {
        return SIM_WOKEN;
    }
    if (until <= now) {
        return SIM_TIMEOUT;
    }
    current->state = ASLEEP;
    current->what = what;
    current->until = until;
    current->interruptible = interruptible;
    current->look = look;
    earliest = until < earliest ? until : earliest;
    yield();
    return current->how;
}

void
sim_wake(const void *what)
{
    for (int i = 0; i < n_threads; i++) {
        if (threads[i].state == ASLEEP && threads[i].what == what) {
            end_sleep(&threads[i], SIM_WOKEN);
        }
    }
}

void
sim_look(void)
{
    for (int i = 0; i < n_threads; i++) {
        if (threads[i].state == ASLEEP && threads[i].look != NULL && threads[i].look(threads[i].what)) {
            end_sleep(&threads[i], SIM_WOKEN);
        }
    }
}

void
sim_interrupt(sim_thread *thread)
{
    if (thread->state == ASLEEP && thread->interruptible) {
        end_sleep(thread, SIM_INTERRUPTED);
    }
}

void
sim_sleep(int64_t ns)
{
    (void)sim_block(&now, now + ns, false, NULL);
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

static void
end_here(void)
{
    current->state = UNUSED;
    switch_to(choose_or_wait());
}

static void
run_current(void)
{
    AFTER_SWITCH(NULL);
    current->run(current->arg);
    sim_end_of_thread();
    end_here();
}

sim_thread *
sim_start(sim_process *process, const char *name, void (*run)(void *arg), void *arg)
{
    int i = 0;
    while (i < n_threads && threads[i].state != UNUSED) {
        i++;
    }
    if (i == THREADS) {
        sim_fail("too many threads");
    }
    n_threads = i == n_threads ? n_threads + 1 : n_threads;
    sim_thread *thread = &threads[i];
    *thread = (sim_thread){.number = ++last_number,
                           .name = name,
                           .process = process,
                           .run = run,
                           .arg = arg,
                           .state = READY,
                           .through_by = SIM_NEVER};
    ASAN_UNPOISON_MEMORY_REGION(stacks[i], STACK); /* another thread has ended there, with what guards its frames */
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp = thread->stack = stacks[i];
    thread->context.uc_stack.ss_size = STACK;
    makecontext(&thread->context, run_current, 0);
    return thread;
}

void
sim_end_threads(sim_process *process)
{
    for (int i = 0; i < n_threads; i++) {
        if (threads[i].process == process) {
            threads[i].state = UNUSED;
        }
    }
    if (current != NULL && current->process == process) {
        end_here();
    }
}

sim_thread *
sim_self(void)
{
    return current;
}

sim_process *
sim_own_process(void)
{
    return current == NULL ? NULL : current->process;
}

int
sim_thread_number(const sim_thread *thread)
{
    return thread == NULL ? 0 : thread->number;
}

const char *
sim_thread_name(const sim_thread *thread)
{
    return thread == NULL ? "the world" : thread->name;
}

sim_thread *
sim_next_thread(const sim_thread *after, const sim_process *process)
{
    for (sim_thread *thread = after == NULL ? threads : threads + (after - threads) + 1; thread < threads + n_threads;
         thread++) {
        if (thread->state != UNUSED && (process == SIM_ANY || thread->process == process)) {
            return thread;
        }
    }
    return NULL;
}

bool
sim_is_asleep(const sim_thread *thread)
{
    return thread->state == ASLEEP;
}

int64_t
sim_sleeps_until(const sim_thread *thread)
{
    return thread->until;
}

void
sim_note(const void *note)
{
    current->note = note;
}

const void *
sim_note_of(const sim_thread *thread)
{
    return thread->note;
}

void
sim_run(uint64_t seed, void (*begin)(void))
{
    chance = seed;
    now = INT64_C(1000000000);
    earliest = SIM_NEVER;
    points = 0;
    n_threads = last_number = 0;
    current = NULL;
    begin();
    if (_setjmp(at_home.jump) == 0) {
        switch_to(choose_or_wait());
    }
    AFTER_SWITCH(home_fiber);
}

uint32_t
sim_points(void)
{
    return points;
}
