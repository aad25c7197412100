/*
 * The inside of a link, for the files that make it up and for nobody else. It is one state machine under one mutex, cut
 * into files by what each part of struct xc_link is for. So there is no order among all of them; what there is:
 *
 *   threads come in through   xc_wait.c (a waiter: takes the reader role), xc_link_pump.c (the pump: reads what nobody
 *                             reads), xc_channels.c, xc_tasks.c, xc_dispatch.c (the Python side)
 *   what arrives goes down    xc_wait.c, xc_link_pump.c -> xc_reader.c (bytes to messages; xc_move.c: how it comes to
 *                             its rings) -> xc_inbox.c (what a message does) -> xc_forward.c, xc_answer.c, xc_tasks.c
 *                             -> xc_channels.c -> xc_free.c
 *   time goes by in           xc_keepalive.c (a silent far end), xc_task_timeout.c (a task that waits too long)
 *   the end comes together in xc_link.c (birth, end, freeing), which all of them may call
 *
 * Three calls go against these arrows. Whoever changes what a waiter waits for calls xc_wake_locked, and whoever reads
 * no longer calls xc_hand_on_locked (both in xc_wait.c). Who wants the stream polled soon calls xc_poll_soon
 * (xc_link_pump.c). Whoever drops the last count of a channel may post a close: the writer (xc_writer.h) is below all
 * of this and never calls back.
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

/* The reader role's alone: bytes are cut into frames, frames put together to messages. */
typedef struct {
    unsigned char *buf; /* owned, XC_INBUF bytes; start..end are not parsed yet */
    size_t start;
    size_t end;
    bool unmarked;        /* the marker is awaited */
    bool unparsed;        /* there may be a frame among the bytes for which memory was asked */
    xc_arrival *current;  /* borrowed; the frame whose payload is being read in place belongs to it */
    size_t frame_left;    /* bytes of that frame to come */
    xc_arrival oversized; /* one frame that is larger than the buffer */
    xc_arrival *longs;    /* owned; long messages that are not complete */
    unsigned n_longs;
    xc_arrival *asking; /* borrowed; what XC_SPACE asked memory for, NULL: nothing */
    xc_spin spin;
} xc_reader;

/* mu: who waits, and whether one of them (or the pump) has the reader role. */
typedef struct {
    xc_waiter *waiters; /* borrowed, oldest first */
    bool reading;       /* somebody has the role */
} xc_waiters;

/* mu: what the pump does for a link that nobody reads. */
typedef struct {
    xc_watch watch; /* with rings armed from then to the end */
    xc_timer rearm;
    bool rearm_set;     /* the rearm timer runs */
    bool used;          /* somebody read since it was set */
    bool notified;      /* the far end notifies us when something comes, as the pump has asked it to */
    bool retired;       /* the pump has forgotten the link */
    atomic_int fds_say; /* without mu; with rings: XC_FDS_... */
} xc_link_pump;

/* mu: how the link ends. */
typedef struct {
    bool eof;              /* nothing more can be read; `why` says why */
    bool fin;              /* that has taken effect, behind all callbacks */
    xc_err why;            /* the first reason, never cleared */
    xc_msg *last;          /* owned; XC_FIN, made at birth: without memory, too, the end takes effect */
    bool owns_peer;        /* the far end is a process whose end will be told: peer_gone will come */
    atomic_bool peer_gone; /* without mu: that process has ended */
    xc_exit_policy policy; /* a worker's */
    atomic_int words;      /* without mu: the fd that a worker's last words go to; borrowed */
} xc_link_end;

/* mu: hellos of the far end. */
typedef struct {
    xc_queue hellos;
    unsigned n_hellos; /* that came and were not taken, those in the backlog among them */
    bool greeted;
} xc_greeting;

/* mu: who has said that nothing more is sent. */
typedef struct {
    bool leaves; /* this side has nothing more to send */
    bool said;   /* and has said so before the link ended */
    bool heard;  /* the far end has said so */
} xc_goodbye;

/* mu: the channels. */
typedef struct {
    uint32_t next_id;
    xc_chan_table table;
    int coerce;          /* string coercion of channels that are made from now on */
    uint32_t n_carried;  /* that tasks and items which nobody has taken carry; XC_CARRIED_MAX at most */
    uint32_t n_forwards; /* forwarded ones that have not been told of their end */
} xc_chans;

/* mu: the dispatcher role, and the frames that wait for it. */
typedef struct {
    xc_queue backlog; /* frames that wait behind a callback: each what it sent, and its xc_msg */
    bool running;     /* a thread has the role */
    pthread_t thread; /* which */
    unsigned depth;   /* how often it took it */
    uint32_t n_callbacks;
} xc_dispatch;

/* mu: a worker's tasks. */
typedef struct {
    xc_queue queue;      /* bounded by n_carried */
    uint32_t executing;  /* that run or wait to */
    bool primary_waits;  /* the worker's main thread is idle */
    xc_model model;      /* with XC_MODEL_MAIN_ONLY see xc_task_timeout.c for the next two */
    int64_t first_since; /* when the first one in the queue became that */
    xc_timer timeout;
} xc_tasks;

/* mu: answers that have no room yet, see xc_answer.c. */
typedef struct {
    xc_buf owed;    /* five bytes for nine that came */
    int64_t pay_ns; /* until `pay` checks again */
    xc_timer pay;
    xc_buf facts; /* a serialized dict without its STOP; empty: none were set */
} xc_answers;

/* mu: messages that are being freed, see xc_free.c. */
typedef struct {
    xc_queue queue;
    bool freeing;
} xc_deferred;

/* A part belongs to the file of its name; a function that needs no other part takes just that one. */
struct xc_link {
    atomic_uint refs;
    uint32_t forks;    /* const: xc_fork_count at birth */
    xc_link_opts opts; /* const */
    xc_job free_job;
    xc_job retire_job;

    xc_stream incoming; /* its `in`: the reader role; its `ring`: that and mu change it */
    xc_stream outgoing; /* its `out`: the writer. Two, as they are closed at different times under different locks */
    xc_region region;   /* owned; of both streams, where they are rings */
    xc_writer writer;
    xc_reader reader;

    xc_mutex mu; /* leaf lock but for the writer's and the pump's; keeps all that follows */
    xc_waiters wait;
    xc_link_pump pump;
    xc_buf preamble; /* what came before the marker */
    xc_greeting greeting;
    xc_goodbye goodbye;
    xc_link_end end;
    xc_chans chans;
    xc_dispatch dispatch;
    xc_tasks tasks;
    xc_answers answers;
    xc_deferred deferred;
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

/* xc_task_timeout.c */
void xc_task_timeout_begin_locked(xc_link *link); /* another task is the first of those that wait, if any does */
void xc_task_timeout_over(xc_timer *timer);

/* xc_forward.c */
bool xc_forward_takes_locked(xc_link *link, xc_msg *msg); /* true: it was for a forwarded channel, and is taken */

/* xc_inbox.c */
void xc_scan_ids(xc_msg *msg);                     /* before delivery, without mu */
void xc_arrive_locked(xc_link *link, xc_msg *msg); /* taken: takes effect now, or joins the backlog */
void xc_apply_locked(xc_link *link, xc_msg *msg);  /* taken: takes effect now */
bool xc_needs_python_locked(xc_link *link, const xc_msg *msg);
void xc_cut_all_locked(xc_link *link); /* no channel gets anything more */

/* xc_channels.c */
void xc_make_carried_locked(xc_link *link, xc_msg *msg); /* channels whose ids the payload has exist from now on */
void xc_close_locked(xc_link *link, xc_chan *chan, bool send_only);
xc_status xc_take_item_locked(xc_chan *chan, xc_msg **out); /* as xc_link_take_item */

/* xc_tasks.c */
void xc_queue_task_locked(xc_link *link, xc_msg *msg); /* taken: run later, or refused */

/* xc_free.c */
void xc_free_later_locked(xc_link *link, xc_msg *msg); /* taken */
void xc_free_all_locked(xc_link *link);                /* the link itself goes: whatever is left */
void xc_orphan_locked(xc_link *link, xc_msg *msg);     /* taken: an error for a channel that nobody holds */
void xc_unhold_locked(xc_link *link, xc_chan *chan);   /* one count less */
bool xc_is_left_locked(const xc_link *link); /* a worker that has heard a goodbye: nothing arrives, it still sends */
bool xc_may_tell_locked(const xc_link *link, const xc_chan *chan); /* a close may still be sent for it */

#endif
