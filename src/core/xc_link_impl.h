/*
 * The inside of a link, shared by the rooms that make it up and by nobody else: xc_link.c (lives, reading, waiting),
 * xc_inbox.c (what a frame that arrived does to channels, tasks and the backlog), xc_answer.c (what is answered without
 * anybody's help), xc_alive.c (that it ends when the far end gives no sign of life).
 */
#ifndef XC_LINK_IMPL_H
#define XC_LINK_IMPL_H

#include <stdatomic.h>

#include "xc_alive.h"
#include "xc_fate.h"
#include "xc_link.h"
#include "xc_spin.h"

enum { XC_INBUF = 64 * 1024 };

/* A thread that waits; lives on its stack. */
typedef struct xc_waiter {
    struct xc_waiter *next;
    const xc_wait *wait;
    xc_bell *bell;
    bool rung;   /* mu: woken since it last looked */
    bool reader; /* mu: it has the reader role */
} xc_waiter;

struct xc_link {
    atomic_uint refs;
    uint32_t forks;    /* const: xc_fork_count at birth */
    xc_link_opts opts; /* const */
    xc_writer writer;
    xc_job burial;
    xc_job retirement;

    /* The reader role and what goes with it. */
    xc_stream stream;     /* its `in`: the reader */
    xc_stream sink;       /* its `out`: the writer. Two, as they are closed at different times under different locks */
    unsigned char *inbuf; /* the reader: bytes in_start..in_end are not parsed yet */
    size_t in_start;      /* the reader */
    size_t in_end;        /* the reader */
    xc_msg *part;         /* the reader: a message whose payload is being read in place */
    size_t part_got;      /* the reader */
    size_t part_size;     /* the reader: bytes that make it complete */
    size_t skip;          /* the reader: bytes of a payload for which there was no memory */
    xc_spin spin;         /* the reader */
    size_t space_wanted;  /* the reader: what XC_SPACE asked for; 0: nothing pending */
    bool unmarked;        /* the reader: the marker is awaited */

    xc_mutex mu;    /* leaf lock but for the writer's and the pump's */
    bool reading;   /* mu: somebody has the role */
    bool eof;       /* mu: nothing more can be read; ended_by says why */
    bool fin;       /* mu: that has taken effect, behind all callbacks */
    bool rearm_set; /* mu: the rearm timer runs */
    bool retired;   /* mu: the pump has forgotten it */
    bool used;      /* mu: somebody read since the rearm timer was set */
    xc_watch watch; /* mu */
    xc_msg *last;   /* mu: XC_FIN, made at birth: want of memory cannot keep the end from taking effect */
    xc_timer rearm;
    xc_waiter *waiters;    /* mu: borrowed, oldest first */
    xc_err ended_by;       /* mu: first reason, never cleared */
    atomic_bool peer_gone; /* the far end's process has ended */
    bool owns_peer;        /* mu: there is such a process, peer_gone will come */

    uint32_t next_id;    /* mu */
    xc_chan_table table; /* mu */
    int coerce;          /* mu: bits as in xc_chan */
    xc_queue hellos;     /* mu */
    unsigned n_hellos;   /* mu: that came and were not taken, those in the backlog among them */
    bool greeted;        /* mu */
    bool said_goodbye;   /* mu */
    bool heard_goodbye;  /* mu */

    xc_queue backlog;     /* mu: frames that wait behind a callback */
    bool dispatching;     /* mu: somebody has the dispatcher's turn */
    pthread_t dispatcher; /* mu: who */
    unsigned depth;       /* mu: how often it took it */
    uint32_t n_callbacks; /* mu */

    xc_queue tasks;     /* mu: each carries its channel in `carried` */
    uint32_t executing; /* mu */
    bool primary_waits; /* mu: the worker's main thread is idle */
    xc_queue graveyard; /* mu: messages being freed, see xc_inbox.c */
    bool digging;       /* mu */
    xc_buf noise;       /* mu: what came before the marker */
    xc_buf facts;       /* mu: a serialized dict without its STOP; empty: none were set */
    xc_fate fate;
    xc_alive alive;
};

/* xc_alive.c */
void xc_alive_tick(xc_timer *timer);
xc_status xc_alive_verdict(const xc_link *link, xc_err *err); /* XC_OK as long as there is none */

/* xc_link.c */
void xc_look_again(xc_link *link);  /* the stream is looked at soon, whoever reads it; any thread */
void xc_wake_locked(xc_link *link); /* rings every waiter whose condition holds */

/* xc_answer.c: posts what the far end gets for a request */
void xc_answer_status_locked(xc_link *link, uint32_t id, bool facts);
void xc_refuse_task_locked(xc_link *link, uint32_t id);

/* xc_inbox.c */
void xc_scan_ids(xc_msg *msg);                       /* before delivery, without mu */
void xc_arrive_locked(xc_link *link, xc_msg *msg);   /* taken: takes effect now, or joins the backlog */
void xc_bury_msg_locked(xc_link *link, xc_msg *msg); /* taken */
void xc_bury_all_locked(xc_link *link);              /* the link itself goes: whatever is left */
void xc_unhold_locked(xc_link *link, xc_chan *chan); /* one count less */

#endif
