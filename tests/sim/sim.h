/*
 * The simulated machine: its time, its threads and processes, what goes wrong there. All is decided by the seed.
 *
 * A thread is a coroutine. It goes on until sim_point() takes the CPU from it, which the core meets at each mutex, each
 * atomic access and each system call; or until it sleeps. So in a run one thread of the real system does all.
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_NEVER INT64_MAX
enum { SIM_THREADS = 96 /* at a time */ };

typedef struct sim_thread sim_thread;
typedef struct sim_process sim_process;

/* --- chance and time (sim_threads.c) -------------------------------------------------------------------------- */

/* 0 to n - 1. */
uint32_t sim_random(uint32_t n);
/* True once in n times; n = 0: never. */
bool sim_chance(uint32_t n);
int64_t sim_now(void);

/* What differs between machines; chosen by the seed. Changed only before threads run. */
typedef struct {
    int64_t tick;        /* ns between two points of a thread */
    uint32_t switches;   /* another thread gets the CPU about once in so many points */
    size_t room;         /* of a pipe that the core makes, bytes */
    uint32_t cpus;       /* how many CPUs the core believes in */
    uint32_t shortens;   /* once in so many times a read or write does a part only; 0: never */
    uint32_t interrupts; /* the same for EINTR of a read or write */
    uint32_t spurious;   /* the same for a sleep at a word that ends without a reason */
} sim_machine;
extern sim_machine sim_the_machine;

/* --- threads (sim_threads.c) ---------------------------------------------------------------------------------- */

/* A run: the first threads are started by `begin`; it is over when all have ended. */
void sim_run(uint64_t seed, void (*begin)(void));

/* A new thread of that process; NULL: one of the world, to which no process belongs. `name` is borrowed. */
sim_thread *sim_start(sim_process *process, const char *name, void (*run)(void *), void *arg);
sim_thread *sim_self(void); /* NULL outside of a run */
sim_process *sim_own_process(void);
int sim_thread_number(const sim_thread *thread);
const char *sim_thread_name(const sim_thread *thread);
/* The next living one of that process, or of SIM_ANY; after NULL: the first. */
#define SIM_ANY ((const sim_process *)-1)
sim_thread *sim_next_thread(const sim_thread *after, const sim_process *process);
bool sim_is_asleep(const sim_thread *thread);
int64_t sim_sleeps_until(const sim_thread *thread);
/* What the thread is to have from others, for whoever checks; a thread has one such note. NULL: nothing. */
void sim_note(const void *note);
const void *sim_note_of(const sim_thread *thread);

void sim_point(void);
uint32_t sim_points(void); /* how many there were in this run */
void sim_sleep(int64_t ns);
/* A signal: if the thread sleeps and may be interrupted (sim_block), its sleep ends. */
void sim_interrupt(sim_thread *thread);
/* By when the running thread should be through; after that it may pass a few thousand points. SIM_NEVER: no matter. */
void sim_be_through_by(int64_t when);
/* The threads of that process were stopped, and their time of grace begins now. */
void sim_forgive(const sim_process *process);

typedef enum { SIM_WOKEN, SIM_TIMEOUT, SIM_INTERRUPTED } sim_end_of_sleep;
/* The threads of that process are no more; does not return if the running one is among them. */
void sim_end_threads(sim_process *process);
/* The running thread is about to end: what it has registered for that is called. */
void sim_end_of_thread(void);

/* Sleeps until sim_wake(what), `until`, or a signal if `interruptible`. `look`: whether the sleep is over already;
 * called by sim_look(), by any thread; may be NULL. */
sim_end_of_sleep sim_block(const void *what, int64_t until, bool interruptible, bool (*look)(const void *what));
void sim_wake(const void *what);
/* Wakes all whose `look` says that it is over. */
void sim_look(void);

/* --- processes (sim_process.c) -------------------------------------------------------------------------------- */

sim_process *sim_new_process(const char *name);
const char *sim_process_name(const sim_process *process);
bool sim_is_alive(const sim_process *process);
/* It is killed: its threads run no more. Returns unless it is the running thread's own. keeps_fds: another process has
 * copies of those that it has inherited. */
void sim_kill(sim_process *process, bool keeps_fds);
/* It is stopped until then, or goes on (0). */
void sim_freeze(sim_process *process, int64_t until);
int64_t sim_frozen_until(const sim_process *process);
/* Called in the place of the signal, when the process sends itself a SIGINT. */
void sim_on_sigint(sim_process *process, void (*handler)(sim_process *process));
void sim_raise_sigint(sim_process *process);
/* After `n` more allocations `times` of them fail. */
void sim_fail_allocations(sim_process *process, uint32_t n, uint32_t times);
/* Meanwhile none does; may be nested. */
void sim_spare_allocations(sim_process *process, bool spared);
/* Blocks and fds that it has. */
size_t sim_blocks(const sim_process *process);
size_t sim_fds(const sim_process *process);
void sim_reset_processes(void);
void sim_load_process(sim_process *process); /* its static data become those of the core */
void sim_keep_static_data(void);             /* as they are at the start of a process */
/* The world's memory, which no process owns and no fault fails; given back when the run is over. */
void *sim_alloc(size_t n);

/* --- fds (sim_files.c) ---------------------------------------------------------------------------------------- */

typedef struct sim_pipe sim_pipe;
/* Two ends joined by two pipes with room for `room` bytes each, or a socket (in[i] == out[i]). They belong to nobody
 * until sim_give_fd. */
void sim_connect(size_t room, bool socket, int in[2], int out[2], sim_pipe *pipes[2]);
void sim_give_fd(int fd, sim_process *process, bool inherited); /* inherited: from birth */
sim_pipe *sim_pipe_of(int fd, bool writes);
int sim_eventfd(void);                                    /* of the running process */
void sim_close(int fd);                                   /* gives nobody else the CPU */
void sim_close_all(sim_process *process, bool inherited); /* these, too */
void sim_reset_files(void);
size_t sim_unread(const sim_pipe *pipe);    /* bytes that a reader could have now */
uint64_t sim_written(const sim_pipe *pipe); /* all that ever were */
uint64_t sim_read(const sim_pipe *pipe);
bool sim_has_room(const sim_pipe *pipe); /* for a writer; false too if nobody reads */
bool sim_has_reader(const sim_pipe *pipe);
bool sim_has_writer(const sim_pipe *pipe);
/* Nothing comes through until it is let go. */
void sim_stall(sim_pipe *pipe, bool stalled);
bool sim_is_stalled(const sim_pipe *pipe);
/* It is broken from now on; what it holds, but for `keep` bytes, is lost. */
void sim_cut(sim_pipe *pipe, size_t keep);

/* --- what happens (sim_main.c, world.c) ----------------------------------------------------------------------- */

void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* All threads sleep, and time is about to jump to `next`. */
void sim_all_asleep(int64_t next);

#endif
