/*
 * The world: two ends of one connection, both real links, and what they say to each other; perhaps more connections
 * that go through that one. The ledger has each item from its sending to its receiving; so whoever receives can tell
 * whether it is the right one, and whoever sleeps whether there is something for him.
 */
#ifndef WORLD_H
#define WORLD_H

#include "sim.h"
#include "xc_link_impl.h"

enum {
    RING = 4096,
    CONNECTIONS = 3,
    TALKS = 6,
    SENDERS = 4,
    HANDLER = 2,  /* sends from a signal handler */
    CALLBACK = 3, /* from a callback */
    DOWN = 0,
    UP = 1,
    SEEN = 4
};

/* An end: the near one has number 0, the worker number 1. Items go DOWN from the near end, UP from the worker. */
typedef struct {
    struct connection *on;
    sim_process *process;
    xc_link *link; /* NULL: it was let go */
    int number;
    int users;        /* threads that use the link */
    bool began;       /* it has, or had, a link */
    int handling;     /* signal handlers that run */
    bool interrupted; /* it got a SIGINT: what runs shall end */
    bool callbacks;   /* the callback thread was started */
    bool leaves;      /* it has begun to say goodbye */
    xc_region region; /* until the link has it */
    int in, out;      /* until the link has them */
} side;

/* What is said through one channel: a plan, and what became of it. Directions: DOWN, UP. */
typedef struct talk {
    struct connection *on;
    int number;
    enum { TASK, STATUS, CARRIED } kind;
    uint32_t items[2]; /* so many does each of the senders send */
    uint32_t senders[2];
    bool callback[2];  /* at the receiving end of that direction */
    uint32_t limit[2]; /* that its receiver sets, bytes; 0: none. Only for one direction, or both ends might wait */
    bool limit_changes;
    struct talk *carries; /* its task brings the channel of that one; NULL: none */
    uint32_t largest;     /* bytes of an item's payload, at most */

    uint32_t id;      /* of the channel; 0: there is none yet */
    xc_chan *chan[2]; /* at the near end, at the worker */
    uint32_t begun[2][SENDERS], sent[2][SENDERS], got[2][SENDERS];
    int64_t asked_at;      /* when its task was sent */
    bool not_asked, asked; /* of a carried one: the task that brings it */
    bool handler_sends[2];
    bool open[2];                      /* that end may use it: the task was asked for, or runs */
    bool closing[2];                   /* that end has begun to close it */
    bool over[2];                      /* that end uses it no more */
    uint32_t before_close[2][SENDERS]; /* `sent` when its sending end began to close it */
    uint64_t under_way[2];             /* costs of items that were claimed and have not come */
    uint32_t bound[2];                 /* ..., if it was there from the beginning */
    bool has_callback[2];              /* that end has a callback now */
    bool marked[2];                    /* that end's callback was told of the end */
    bool closes_in_callback;
    int borrowed[2];                 /* callbacks of that end that use it */
    uint64_t seen[2][SENDERS][SEEN]; /* bit i: item i has come */
    bool shared;                     /* it has several receivers, which do not tell the ledger in order */
    bool lossy;                      /* there was no memory for an item */
    int sending[2];                  /* threads that still send in that direction */
} talk;

/* A link at the near end and one at the worker. Number 0 is the first; the others, if there are any, go through it: its
 * worker is the process in between, which starts theirs. */
typedef struct connection {
    int number;
    side ends[2];
    talk talks[TALKS];
    int n_talks;
    uint32_t window;    /* limit of all channels from their birth; then items of a talk go one way only. 0: none */
    bool worker_gone;   /* its process has ended, or its link was let go */
    bool main_only;     /* the worker's main thread alone runs tasks: one that waits for a second is refused */
    const void *first;  /* the task that waits first for the main thread, which runs another one */
    int64_t since;      /* ... at least since then */
    bool long_ones;     /* all talks have long messages */
    int64_t silence[2]; /* keepalive of that end, ns; 0: none */
    enum { BY_PIPES, BY_SOCKET, BY_RINGS, MOVING, RELAYED } transport;
    sim_pipe *pipes[2];         /* DOWN, UP: into which the end writes. Of a relayed one: NULL until there is one */
    sim_pipe *last_pipes[2];    /* from which the other end reads; the same, unless it is relayed */
    bool may_end;               /* a fault has come, or a goodbye: the link may end before all is said */
    bool faulty;                /* a fault has come: items may be lost at its end */
    int not_offered, not_moved; /* ends; to rings */
    int callers;                /* at the near end, and connections that go through this one */
    uint32_t tasks_sent, tasks_taken;
    /* If it is relayed: */
    xc_chan *stream, *control, *start; /* channels of the first connection, at the near end */
    uint32_t stream_id, control_id;
    bool start_over; /* the task that starts the worker has ended */
    bool started;    /* there is a worker's process */
    bool unfinished; /* the near end still uses it */
} connection;

typedef struct {
    connection connections[CONNECTIONS];
    int n_connections;
    int callbacks_send; /* the end whose callbacks do; if both did, they might wait for each other */
    bool may_carry;     /* tasks may bring channels, also one that nobody waits for */
    int64_t last_progress;
} world_state;
extern world_state world;

/* What a thread waits for. */
typedef struct {
    side *at;
    xc_wait_kind kind;
    talk *about;               /* NULL: no channel of a talk */
    const connection *through; /* about this one, which goes through that of `at`; NULL: not about such a one */
} note;

/* --- the ledger (ledger.c) -------------------------------------------------------------------------------------- */

/* An item with the sender's next number. */
typedef struct {
    unsigned char *data; /* room for a header, then the payload */
    size_t size;         /* of the payload */
} item;
void ledger_make(item *out, talk *about, int direction, int sender);
void ledger_claimed(talk *about, int direction, uint64_t cost);
void ledger_sent(talk *about, int direction, int sender, bool sent);
/* Checks what has arrived. */
void ledger_got(talk *about, int direction, const xc_msg *msg);
/* `at` has learnt that nothing more comes: is that right? */
/* `at` begins to close it, or to say goodbye. */
void ledger_closing(side *at, talk *about);
void ledger_leaving(side *at);
/* Its task was refused, or that of the talk that carries it. */
bool ledger_refused(const talk *about);
void ledger_ended(side *at, talk *about, const xc_chan_state *state);
void ledger_show(void);                                 /* prints it */
bool ledger_has_more(const talk *about, int direction); /* items that were sent and not received */
void progress(void);

/* --- what Python would do (ops.c) ------------------------------------------------------------------------------- */

/* How a thread waits and sends: as the main thread, which has signals, or as any other. */
typedef struct {
    side *at;
    bool is_main;
    bool parks;   /* waits as a greenlet does, by registrations */
    bool handles; /* it is in a signal handler, which does not give up */
} actor;

typedef enum { GOT, CLOSED, LATE } received;
/* Waits; false: until has passed. */
bool op_wait(const actor *who, xc_wait_kind kind, talk *about, int64_t until);
/* For a channel that is needed for another connection. */
void op_wait_for_chan(const actor *who, xc_wait_kind kind, xc_chan *chan, const connection *through);
received op_receive(const actor *who, talk *about, int64_t until);
/* False: the link has ended. */
bool op_send_item(const actor *who, talk *about, int direction, int sender);
bool op_send_frame(const actor *who, xc_code code, uint32_t id, const void *payload, size_t n);
void op_close(const actor *who, talk *about);
void op_set_callback(const actor *who, talk *about);
void op_set_limit(const actor *who, talk *about, uint64_t limit);
void op_drop(const actor *who, talk *about);
void op_run_callbacks(void *at);

/* --- who acts (ends.c, faults.c) ------------------------------------------------------------------------------- */

void start_ends(void);
/* The process in between starts the worker of a relayed connection. */
void start_worker(connection *on);
bool choose_fault(void);
void start_faults(void);
void run_reaper(void *at);
/* Another thread that uses the link of `at`; `run` calls leave(at) when it needs that no more. */
sim_thread *start_beside(side *at, const char *name, void (*run)(void *arg), void *arg);
void leave(side *at);
/* Sleeps until *number is 0. */
void await_zero(const int *number);
talk *some_talk(connection *on);
talk *next_talk(const talk *after); /* of all; after NULL: the first */

#endif
