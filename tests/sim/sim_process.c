/*
 * The processes of the simulated machine: each has the core's static data, memory and an end of its own.
 *
 * The objects of the core are linked once. Their static data are in two sections of their own (see the Makefile), which
 * are exchanged when a thread of another process gets the CPU.
 *
 * Memory is handed out from one area, always the same and never twice, so that addresses are the same in each run of a
 * seed, and what is used after it was freed is noticed.
 */
#include <string.h>
#include <sys/mman.h>

#include "sim.h"
#include "sim_calls.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, n)   ((void)(at), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(at, n) ((void)(at), (void)(n))
#endif

enum { PROCESSES = 4, STATIC = 64 * 1024, GAP = 64, FILLED = 256, FREED = 0xdb };

#define AREA      ((unsigned char *)0x200000000000)
#define AREA_SIZE ((size_t)512 << 20)

struct sim_process {
    const char *name;
    bool alive;
    int64_t frozen_until;
    void (*sigint)(sim_process *process);
    uint32_t fail_after, fail_times; /* allocations */
    int spared;                      /* no allocation fails now */
    size_t blocks;
    unsigned char data[STATIC];
};

typedef struct {
    uint64_t magic;
    sim_process *owner;
    size_t size;
    size_t unused;
} block;

#define LIVING UINT64_C(0x6c6976696e67)

extern unsigned char __start_sim_data[], __stop_sim_data[], __start_sim_bss[], __stop_sim_bss[];

static sim_process processes[PROCESSES];
static int n_processes;
static sim_process *loaded;
static unsigned char fresh[STATIC];
static size_t used; /* bytes of the area */

/* --- static data ------------------------------------------------------------------------------------------------ */

/* Not memcpy: between the variables there may be bytes that the sanitizer guards. */
__attribute__((no_sanitize("address"), optimize("no-tree-loop-distribute-patterns"))) static void
copy(unsigned char *into, const unsigned char *from, size_t n)
{
    for (size_t i = 0; i < n / 8; i++) {
        ((uint64_t *)(void *)into)[i] = ((const uint64_t *)(const void *)from)[i];
    }
    for (size_t i = n & ~(size_t)7; i < n; i++) {
        into[i] = from[i];
    }
}

static void
save_data(unsigned char *into)
{
    size_t n = (size_t)(__stop_sim_data - __start_sim_data), m = (size_t)(__stop_sim_bss - __start_sim_bss);
    if (n + m + 8 > STATIC) {
        sim_fail("the core has %zu bytes of static data", n + m);
    }
    copy(into, __start_sim_data, n);
    copy(into + ((n + 7) & ~(size_t)7), __start_sim_bss, m);
}

static void
load_data(const unsigned char *from)
{
    size_t n = (size_t)(__stop_sim_data - __start_sim_data), m = (size_t)(__stop_sim_bss - __start_sim_bss);
    copy(__start_sim_data, from, n);
    copy(__start_sim_bss, from + ((n + 7) & ~(size_t)7), m);
}

void
sim_keep_static_data(void)
{
    save_data(fresh);
    if (mmap(AREA, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
             -1, 0) != AREA) {
        sim_fail("there is no room for the memory");
    }
    ASAN_POISON_MEMORY_REGION(AREA, AREA_SIZE);
}

void
sim_load_process(sim_process *process)
{
    if (process == NULL || process == loaded) {
        return;
    }
    if (loaded != NULL) {
        save_data(loaded->data);
    }
    load_data(process->data);
    loaded = process;
}

/* --- processes -------------------------------------------------------------------------------------------------- */

void
sim_reset_processes(void)
{
    n_processes = 0;
    loaded = NULL;
    ASAN_POISON_MEMORY_REGION(AREA, used);
    used = 0;
}

sim_process *
sim_new_process(const char *name)
{
    sim_process *process = &processes[n_processes++];
    process->name = name;
    process->alive = true;
    process->frozen_until = 0;
    process->sigint = NULL;
    process->fail_after = process->fail_times = 0;
    process->spared = 0;
    process->blocks = 0;
    memcpy(process->data, fresh, sizeof fresh);
    return process;
}

const char *
sim_process_name(const sim_process *process)
{
    return process == NULL ? "world" : process->name;
}

bool
sim_is_alive(const sim_process *process)
{
    return process->alive;
}

void
sim_kill(sim_process *process, bool keeps_fds)
{
    if (!process->alive) {
        return;
    }
    sim_trace("%s ends", process->name);
    process->alive = false;
    sim_close_all(process, !keeps_fds);
    sim_look();
    sim_end_threads(process);
}

void
sim_freeze(sim_process *process, int64_t until)
{
    process->frozen_until = until;
    if (until == 0) {
        sim_forgive(process);
    }
}

int64_t
sim_frozen_until(const sim_process *process)
{
    return process == NULL ? 0 : process->frozen_until;
}

void
sim_on_sigint(sim_process *process, void (*handler)(sim_process *process))
{
    process->sigint = handler;
}

void
sim_raise_sigint(sim_process *process)
{
    if (process->sigint != NULL) {
        process->sigint(process);
    }
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

void
sim_fail_allocations(sim_process *process, uint32_t n, uint32_t times)
{
    process->fail_after = n;
    process->fail_times = times;
}

void
sim_spare_allocations(sim_process *process, bool spared)
{
    process->spared += spared ? 1 : -1;
}

size_t
sim_blocks(const sim_process *process)
{
    return process->blocks;
}

void *
sim_alloc(size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if (n + GAP > AREA_SIZE - used) {
        sim_fail("this run needs too much memory");
    }
    unsigned char *at = AREA + used;
    used += n + GAP;
    ASAN_UNPOISON_MEMORY_REGION(at, n);
    return at;
}

static bool
may_allocate(sim_process *process)
{
    if (process == NULL || process->fail_times == 0 || process->spared > 0) {
        return true;
    }
    if (process->fail_after > 0) {
        process->fail_after--;
        return true;
    }
    process->fail_times--;
    sim_trace("no memory");
    return false;
}

static block *
block_of(void *p)
{
    block *it = (block *)p - 1;
    if (it->magic != LIVING) {
        sim_fail("memory is freed that is not in use");
    }
    return it;
}

void *
__wrap_xc_alloc(size_t n)
{
    sim_process *process = sim_own_process();
    if (!may_allocate(process)) {
        return NULL;
    }
    block *it = sim_alloc(sizeof *it + (n > 0 ? n : 1));
    *it = (block){.magic = LIVING, .owner = process, .size = n};
    if (process != NULL) {
        process->blocks++;
    }
    /* As malloc would give it: with anything in it. */
    memset(it + 1, 0xa5, n < FILLED ? n : FILLED);
    return it + 1;
}

void
__wrap_xc_free(void *p)
{
    if (p == NULL) {
        return;
    }
    block *it = block_of(p);
    if (it->owner != sim_own_process()) {
        sim_fail("memory of another process is freed");
    }
    it->owner->blocks--;
    it->magic = 0;
    memset(p, FREED, it->size < FILLED ? it->size : FILLED);
    ASAN_POISON_MEMORY_REGION(p, it->size);
}

void *
__wrap_xc_realloc(void *p, size_t n)
{
    void *copied = __wrap_xc_alloc(n);
    if (copied != NULL && p != NULL) {
        size_t before = block_of(p)->size;
        memcpy(copied, p, before < n ? before : n);
        __wrap_xc_free(p);
    }
    return copied;
}
