/*
 * The inside of a link, shared by the rooms that make it up and by nobody else: xc_link.c (lives), xc_wait.c (waiting,
 * the reader role), xc_link_pump.c (the pump's part), xc_reader.c (the stream is cut into messages), xc_inbox.c (what a
 * frame that arrived does to channels, tasks and the backlog), xc_move.c (how it comes to its rings), xc_answer.c (what
 * is answered without anybody's help), xc_forward.c (channels whose frames go somewhere else), xc_keepalive.c (that it
 * ends when the far end gives no sign of life), xc_task_timeout.c (tasks that wait for the main thread).
 */
#ifndef XC_LINK_IMPL_H
#define XC_LINK_IMPL_H

#include <stdatomic.h>

#include "xc_exit_policy.h"
#include "xc_keepalive.h"
#include "xc_link.h"
#include "xc_spin.h"

enum { XC_INBUF = 64 * 1024 };

/* A link goes back to the pump so long after it was last read. */
#define XC_REARM_NS (5 * XC_MS)

/* Of fds through which no frames go: nobody holds their other end any more; who does is no far end of ours. */
enum { XC_FDS_FINE, XC_FDS_HUNG_UP, XC_FDS_STRAY };

/* A thread that waits, lives on its stack; or a registration. */
typedef struct xc_waiter {
    struct xc_waiter *next;
    const xc_wait *wait;
    xc_bell *bell; /* NULL: a registration's */
    bool rung;     /* mu: woken since it last checked */
    bool reader;   /* mu: it has the reader role */
} xc_waiter;

struct xc_registration {
    xc_waiter waiter; /* first */
    xc_wait wait;
    int fd;
    uint64_t number;
};

/* A message whose payload is being put together: a long one, or one frame that is larger than the buffer. */
typedef struct xc_arrival {
    struct xc_arrival *next;
    uint32_t number; /* a long message's */
    xc_long_frame head;
    size_t got;   /* bytes of the payload that came */
    size_t skip;  /* so many of its first bytes are not kept: the memory was lent, see XC_SPACE */
    size_t paged; /* up to there the pages of its memory were chosen */
    xc_msg *msg;  /* owned; NULL: where they go is not decided yet */
} xc_arrival;

struct xc_link {
    atomic_uint refs;
    uint32_t forks;    /* const: xc_fork_count at birth */
    xc_link_opts opts; /* const */
    xc_writer writer;
    xc_job free_job;
    xc_job retire_job;

    /* The reader role and what goes with it. */
    xc_stream incoming;   /* its `in`: the reader; its `ring`: that and mu change it */
    xc_stream outgoing;   /* its `out`: the writer. Two, as they are closed at different times under different locks */
    xc_region region;     /* owned; of both streams, where they are rings */
    unsigned char *inbuf; /* the reader: bytes in_start..in_end are not parsed yet */
    size_t in_start;      /* the reader */
    size_t in_end;        /* the reader */
    bool unparsed;        /* the reader: there may be a frame among them for which memory was asked */
    xc_arrival *current;  /* the reader: borrowed; the frame whose payload is being read in place belongs to it */
    size_t frame_left;    /* the reader: bytes of that frame to come */
    xc_arrival oversized; /* the reader: one frame that is larger than the buffer */
    xc_arrival *longs;    /* the reader: owned; long messages that are not complete */
    unsigned n_longs;     /* the reader */
    xc_arrival *asking;   /* the reader: borrowed; what XC_SPACE asked memory for, NULL: nothing */
    xc_spin spin;         /* the reader */
    bool unmarked;        /* the reader: the marker is awaited */

    xc_mutex mu;    /* leaf lock but for the writer's and the pump's */
    bool reading;   /* mu: somebody has the role */
    bool eof;       /* mu: nothing more can be read; ended_by says why */
    bool fin;       /* mu: that has taken effect, behind all callbacks */
    bool rearm_set; /* mu: the rearm timer runs */
    bool retired;   /* mu: the pump has forgotten it */
    bool used;      /* mu: somebody read since the rearm timer was set */
    bool notified;  /* mu: the far end notifies us when something comes, as the pump has asked it to */
    xc_watch watch; /* mu; with rings armed from then to the end */
    xc_msg *last;   /* mu: XC_FIN, made at birth: want of memory cannot keep the end from taking effect */
    xc_timer rearm;
    xc_waiter *waiters;    /* mu: borrowed, oldest first */
    xc_err ended_by;       /* mu: first reason, never cleared */
    atomic_bool peer_gone; /* the far end's process has ended */
    atomic_int fds_say;    /* with rings: XC_FDS_... */
    bool owns_peer;        /* mu: there is such a process, peer_gone will come */

    uint32_t next_id;    /* mu */
    xc_chan_table table; /* mu */
    int coerce;          /* mu: string coercion of channels that are made from now on */
    xc_queue hellos;     /* mu */
    unsigned n_hellos;   /* mu: that came and were not taken, those in the backlog among them */
    bool greeted;        /* mu */
    bool leaves;         /* mu: this side has nothing more to send */
    bool said_goodbye;   /* mu: and has said so before the link ended */
    bool heard_goodbye;  /* mu */

    xc_queue backlog;     /* mu: frames that wait behind a callback: each what it sent, and its xc_msg */
    bool dispatching;     /* mu: somebody has the dispatcher role */
    pthread_t dispatcher; /* mu: who */
    unsigned depth;       /* mu: how often it took it */
    uint32_t n_callbacks; /* mu */
    uint32_t n_forwards;  /* mu: that have not been told of their end */

    uint32_t n_carried; /* mu: channels that tasks and items which nobody has taken carry; XC_CARRIED_MAX at most */
    xc_queue tasks;     /* mu: bounded by that */
    uint32_t executing; /* mu */
    bool primary_waits; /* mu: the worker's main thread is idle */
    xc_model model;     /* mu: with XC_MODEL_MAIN_ONLY see xc_task_timeout.c for the next two */
    int64_t since;      /* mu: when the first of `tasks` became that */
    xc_timer task_timeout;
    xc_queue free_queue; /* mu: messages being freed, see xc_inbox.c */
    bool freeing;        /* mu */
    xc_buf preamble;     /* mu: what came before the marker */
    xc_buf owed;         /* mu: answers that have no room yet, see xc_answer.c: five bytes for nine that came */
    int64_t pay_ns;      /* mu: until `pay` checks again */
    xc_timer pay;
    xc_buf facts; /* mu: a serialized dict without its STOP; empty: none were set */
    xc_exit_policy exit_policy;
    atomic_int words; /* the fd that a worker's last words go to; borrowed */
    xc_keepalive keepalive;
};

/* xc_keepalive.c */
void xc_keepalive_tick(xc_timer *timer);
xc_status xc_keepalive_verdict(const xc_link *link, xc_err *err); /* XC_OK as long as there is none */

/* xc_wait.c */
bool xc_ready_locked(xc_link *link, const xc_wait *wait); /* does it hold? */
void xc_ring_waiter(xc_waiter *waiter);
void xc_ring_all_locked(xc_link *link);
void xc_wake_locked(xc_link *link);    /* rings every waiter whose condition holds */
void xc_hand_on_locked(xc_link *link); /* nobody reads: the next waiter does, or the pump soon */

/* xc_link.c */
void xc_end_reading(xc_link *link, const xc_err *why); /* nothing more can be read; with the reader role */

/* True: what arrives comes through a ring. Needs the reader role or mu. */
static inline bool
xc_reads_ring(const xc_link *link)
{
    return link->incoming.ring != NULL;
}

/* xc_move.c */
xc_status xc_begin_with_rings(xc_link *link, xc_region *region, xc_err *err); /* region: taken */
xc_status xc_take_move(xc_link *link,
                       xc_err *err); /* the far end moved; what it left in the buffer are notifications */

/* xc_link_pump.c */
void xc_poll_soon(xc_link *link);                 /* the stream is polled soon, whoever reads it; any thread */
bool xc_watched_locked(const xc_link *link);      /* the pump learns of what comes */
void xc_unwatch_locked(xc_link *link);            /* somebody reads now */
void xc_readable(xc_watch *watch, short revents); /* something has come through the fds */
void xc_rearm(xc_timer *timer);                   /* if no reader came back meanwhile the pump watches the link again */

/*
 * xc_reader.c: one read, and what it brings takes effect. Needs the reader role, no mutex; never blocks. XC_OK:
 * something came. XC_AGAIN, XC_SPACE. Any other code: the stream has ended, *err says how.
 */
xc_status xc_read_some(xc_link *link, bool can_give, size_t *space, xc_err *err);
void xc_forget_arrivals_locked(xc_link *link); /* what is not complete will never be */

/* xc_answer.c: what the far end gets for a request, now or when there is room for it */
typedef enum { XC_OWES_STATUS, XC_OWES_FACTS, XC_OWES_NO_TASKS, XC_OWES_TOO_MANY } xc_debt;
void xc_owe_locked(xc_link *link, xc_debt what, uint32_t id);
void xc_pay(xc_timer *timer);
#define XC_NO_TASKS       "execution disallowed"
#define XC_TOO_MANY_TASKS "too many tasks wait"
#define XC_UNTOLD         "how the task ended could not be told"
void xc_refuse_large_task_locked(xc_link *link, uint32_t id, size_t size); /* bytes for which there is no memory */

/* The channel of one of `tasks`. */
static inline xc_chan *
xc_task_chan(const xc_msg *msg)
{
    return msg->carried[msg->n_ids - 1];
}

/* xc_inbox.c: as xc_link_take_item */
xc_status xc_take_item_locked(xc_chan *chan, xc_msg **out);

/* xc_task_timeout.c */
void xc_task_timeout_begin_locked(xc_link *link); /* another task is the first of those that wait, if any does */
void xc_task_timeout_over(xc_timer *timer);

/* xc_forward.c */
bool xc_forward_takes_locked(xc_link *link, xc_msg *msg); /* true: it was for a forwarded channel, and is taken */

/* xc_inbox.c */
void xc_scan_ids(xc_msg *msg);                         /* before delivery, without mu */
void xc_arrive_locked(xc_link *link, xc_msg *msg);     /* taken: takes effect now, or joins the backlog */
void xc_free_later_locked(xc_link *link, xc_msg *msg); /* taken */
void xc_free_all_locked(xc_link *link);                /* the link itself goes: whatever is left */
void xc_unhold_locked(xc_link *link, xc_chan *chan);   /* one count less */
void xc_close_locked(xc_link *link, xc_chan *chan, bool send_only);

#endif
