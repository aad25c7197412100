/*
 * The inside of a link, only for the files that make it up. It is one state machine under one mutex, divided into files
 * by the parts of struct xc_link. These files have no strict order among them, but mostly call each other like this:
 *
 *   threads come in through   xc_wait.c (a waiter, which takes the reader role), xc_link_pump.c (the pump, which reads
 *                             while nobody waits), xc_channels.c, xc_tasks.c, xc_dispatch.c (the Python side)
 *   what arrives goes through xc_wait.c, xc_link_pump.c -> xc_reader.c (bytes to messages; xc_arrival.c: that come in
 *                             parts; xc_move.c: from fds to rings) -> xc_inbox.c (what a message does) ->
 *                             xc_forward.c, xc_credit.c, xc_answer.c, xc_tasks.c -> xc_channels.c -> xc_free.c
 *   timers                    xc_keepalive.c (a silent far end), xc_task_timeout.c (a task that waits too long)
 *   birth, end, freeing       xc_link.c, which all of them may call
 *
 * Three kinds of calls go against these arrows. Code that changes what a waiter waits for calls xc_wake_locked, and a
 * thread that stops reading calls xc_hand_on_locked (both in xc_wait.c). Code that wants the stream polled soon calls
 * xc_poll_soon (xc_link_pump.c). Code that releases the last count of a channel may post a CLOSE: the writer
 * (xc_writer.h) is below all of these files and never calls them.
 */
#ifndef XC_LINK_IMPL_H
#define XC_LINK_IMPL_H

#include <stdatomic.h>

#include "xc_exit_policy.h"
#include "xc_keepalive.h"
#include "xc_link.h"
#include "xc_spin.h"

enum { XC_INBUF = 64 * 1024 };

/* So long after its last read a link that nobody reads goes back to the pump. */
#define XC_REARM_NS (5 * XC_MS)

/* State of the notifying fds of a link with rings: fine; HUNG_UP: their other end is closed; STRAY: 64 KiB of non-zero
 * bytes came. */
enum { XC_FDS_FINE, XC_FDS_HUNG_UP, XC_FDS_STRAY };

/* A waiting thread, on that thread's stack; or a part of a registration. */
typedef struct xc_waiter {
    struct xc_waiter *next;
    const xc_wait *wait;
    xc_bell *bell;                /* the thread's; NULL: this is a registration */
    bool rung XC_GUARDED(link);   /* woken, and has not checked since */
    bool reader XC_GUARDED(link); /* it has the reader role */
} xc_waiter;

struct xc_registration {
    xc_waiter waiter; /* first */
    xc_wait wait;
    int fd;
    uint64_t number;
};

/* A message that is arriving: a long one, or a frame that is larger than the buffer. */
typedef struct xc_arrival {
    struct xc_arrival *next;
    uint32_t number; /* of a long message, as its sender numbers it */
    xc_long_frame head;
    size_t got;     /* bytes of the payload that have come */
    size_t skip;    /* so many first bytes are not kept: memory that XC_SPACE asks for has no room for them */
    size_t paged;   /* the pages of its memory were chosen up to here */
    xc_msg *msg;    /* owned; NULL: its memory is not chosen yet */
    xc_sieve sieve; /* if there is no memory for it */
} xc_arrival;

XC_ROLE(reader)

/* Cuts bytes into frames, and puts frames together to messages. */
typedef struct {
    unsigned char *buf XC_OF_ROLE(reader); /* owned, XC_INBUF bytes; those from start to end are not parsed yet */
    size_t start XC_OF_ROLE(reader);
    size_t end XC_OF_ROLE(reader);
    bool unmarked XC_OF_ROLE(reader); /* the marker has not come yet */
    bool unparsed XC_OF_ROLE(reader); /* XC_SPACE stopped the parsing: there may be a frame among the bytes */
    /* Borrowed; the frame whose payload is being read in place is a part of it. */
    xc_arrival *current XC_OF_ROLE(reader);
    size_t frame_left XC_OF_ROLE(reader);    /* bytes of that frame that have not come yet */
    xc_arrival oversized XC_OF_ROLE(reader); /* the frame that is larger than the buffer */
    /* Owned; long messages that are not complete, XC_LONG_COUNT at most. Each has its memory from its first bytes on,
     * but no pages of it before bytes come there. */
    xc_arrival *longs XC_OF_ROLE(reader);
    unsigned n_longs XC_OF_ROLE(reader);
    xc_arrival *asking XC_OF_ROLE(reader); /* borrowed; the arrival for which XC_SPACE asked memory; NULL: none */
    xc_spin spin XC_OF_ROLE(reader);
} xc_reader;

/* Who waits, and whether somebody has the reader role. */
typedef struct {
    xc_waiter *waiters XC_GUARDED(link); /* borrowed, oldest first */
    bool reading XC_GUARDED(link);       /* a waiter or the pump has the role */
} xc_waiters;

/* What the pump does for a link that nobody reads. */
typedef struct {
    xc_watch watch XC_GUARDED(link); /* with rings: armed since they are read, until the link ends */
    xc_timer rearm XC_GUARDED(link);
    bool rearm_set XC_GUARDED(link); /* the rearm timer runs */
    bool used XC_GUARDED(link);      /* somebody read since the rearm timer was set */
    bool notified XC_GUARDED(link);  /* the pump has asked the far end to notify it when something comes */
    bool retired XC_GUARDED(link);   /* the pump has forgotten the link */
    atomic_int fds_say;              /* without mu; with rings: XC_FDS_... */
} xc_link_pump;

/* How the link ends. */
typedef struct {
    bool eof XC_GUARDED(link);       /* nothing more can be read; `why` says why */
    bool fin XC_GUARDED(link);       /* the XC_FIN message has taken effect, behind all callbacks */
    xc_err why XC_GUARDED(link);     /* the first reason, never cleared */
    xc_msg *last XC_GUARDED(link);   /* owned; the XC_FIN message. Made with the link: the end then needs no memory */
    bool owns_peer XC_GUARDED(link); /* xc_link_peer_gone will be called when the far end's process has ended */
    atomic_bool peer_gone;           /* without mu: that process has ended */
    xc_exit_policy policy XC_GUARDED(link); /* of a worker */
    atomic_int words;                       /* without mu: borrowed fd on which a worker says why its link broke */
} xc_link_end;

/* The far end's hellos. */
typedef struct {
    xc_queue hellos XC_GUARDED(link);   /* XC_UNREAD_HELLOS at most */
    unsigned n_hellos XC_GUARDED(link); /* hellos that came and were not taken, those in the backlog too */
    bool greeted XC_GUARDED(link);
} xc_greeting;

/* Goodbyes. */
typedef struct {
    bool leaves XC_GUARDED(link); /* this side sends nothing more */
    bool said XC_GUARDED(link);   /* this side said goodbye before the link ended */
    bool heard XC_GUARDED(link);  /* the far end said goodbye */
} xc_goodbye;

/* The channels. */
typedef struct {
    uint32_t next_id XC_GUARDED(link);
    xc_chan_table table XC_GUARDED(link);
    int coerce XC_GUARDED(link);          /* string coercion of channels that are made from now on */
    uint64_t limit XC_GUARDED(link);      /* of those, in both directions: XC_NO_LIMIT: none */
    uint32_t n_carried XC_GUARDED(link);  /* carried by tasks and items that nobody has taken; XC_CARRIED_MAX at most */
    uint32_t n_forwards XC_GUARDED(link); /* forwarded channels that were not told of their end yet */
} xc_chans;

/* The dispatcher role, and the frames that wait for its owner. */
typedef struct {
    /* Frames that wait behind a callback, as many as come. Each takes its bytes and some 100 more, and those that came
     * for the ids of the channels in it. */
    xc_queue backlog XC_GUARDED(link);
    bool running XC_GUARDED(link);     /* a thread has the role */
    pthread_t thread XC_GUARDED(link); /* the thread that has the role */
    unsigned depth XC_GUARDED(link);   /* how often that thread has taken it */
    uint32_t n_callbacks XC_GUARDED(link);
} xc_dispatch;

/* A worker's tasks. */
typedef struct {
    xc_queue queue XC_GUARDED(link);      /* bounded by n_carried */
    uint32_t executing XC_GUARDED(link);  /* tasks that run or wait to run */
    bool primary_waits XC_GUARDED(link);  /* the worker's main thread is idle */
    xc_model model XC_GUARDED(link);      /* for XC_MODEL_MAIN_ONLY see xc_task_timeout.c, as for the next two */
    int64_t first_since XC_GUARDED(link); /* when the first task in the queue became the first */
    xc_timer timeout XC_GUARDED(link);
    xc_chan *primary XC_GUARDED(link);    /* borrowed until it is freed: of the main thread's task, or NULL */
    xc_timer kick XC_GUARDED(link);       /* has the main thread look whether its task is interrupted */
    xc_queue interrupts XC_GUARDED(link); /* of other tasks, one for each at most: for a spare thread */
} xc_tasks;

/* Answers to the far end that cannot be written yet, see xc_answer.c. */
typedef struct {
    xc_buf owed XC_GUARDED(link);    /* the noted answers, in five bytes each; a request has at least nine */
    int64_t pay_ns XC_GUARDED(link); /* how long until `pay` looks for room again */
    xc_timer pay XC_GUARDED(link);   /* the timer that sends noted answers */
    xc_buf facts XC_GUARDED(link);   /* a serialized dict without its STOP; empty: there are no facts */
} xc_answers;

/* Messages that are being freed, see xc_free.c. */
typedef struct {
    xc_queue queue XC_GUARDED(link);
    bool freeing XC_GUARDED(link);
} xc_deferred;

/* Each part belongs to the file with its name; a function that needs only one part takes a pointer to that. */
struct xc_link {
    atomic_uint refs;
    uint32_t forks;    /* const: xc_fork_count at birth */
    xc_link_opts opts; /* const */
    xc_job free_job;
    xc_job retire_job;

    xc_stream incoming; /* `in`: for the reader role; `ring` is only changed by its owner, with mu held */
    xc_stream outgoing; /* `out`: for the writer. Closed at another time than `in`, under another lock */
    xc_region region;   /* owned; both streams' rings are in it */
    xc_writer writer;
    xc_reader reader;

    xc_mutex mu; /* guards all that follows, but some atomics */
    xc_waiters wait;
    xc_link_pump pump;
    xc_buf preamble XC_GUARDED(link); /* what came before the marker; XC_PREAMBLE_MAX at most */
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
void xc_keepalive_tick(xc_timer *timer) XC_TAKES_LINK;
xc_status xc_keepalive_verdict(const xc_link *link, xc_err *err); /* XC_OK: the far end is not silent */

/* Xc_wait.c. */
bool xc_ready_locked(xc_link *link, const xc_wait *wait) XC_NEEDS(link); /* does it hold? */
void xc_ring_waiter(xc_waiter *waiter) XC_NEEDS(link);
void xc_ring_all_locked(xc_link *link) XC_NEEDS(link);
void xc_wake_locked(xc_link *link) XC_NEEDS(link);    /* rings every waiter whose condition holds */
void xc_hand_on_locked(xc_link *link) XC_NEEDS(link); /* if nobody reads: the next waiter shall, or the pump soon */

/* xc_link.c */
/* Nothing more can be read. */
void xc_end_reading(xc_link *link, const xc_err *why) XC_NEEDS_ROLE(reader) XC_TAKES_LINK;

/* True: what arrives comes through a ring. Needs the reader role or mu. */
static inline bool
xc_reads_ring(const xc_link *link)
{
    return link->incoming.ring != NULL;
}

/* xc_move.c */
/* For a link that is being made; region: taken. */
xc_status xc_begin_with_rings(xc_link *link, xc_region *region, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK;
/* The far end has moved. What is left in the buffer behind its MOVE are notifications. */
xc_status xc_take_move(xc_link *link, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK;

/* xc_link_pump.c */
void xc_poll_soon(xc_link *link) XC_TAKES_LINK; /* makes the reader, or else the pump, read soon; any thread */
bool xc_watched_locked(const xc_link *link) XC_NEEDS(link);     /* the pump will learn when something comes */
void xc_unwatch_locked(xc_link *link) XC_NEEDS(link);           /* a thread reads now: the pump need not watch */
void xc_readable(xc_watch *watch, short revents) XC_TAKES_LINK; /* something has come through the fds */
void xc_rearm(xc_timer *timer) XC_TAKES_LINK; /* the pump watches again, unless somebody read meanwhile */

/* xc_reader.c: one read; what it brings takes effect. For the reader role, with no mutex held; never blocks. XC_OK:
 * something came. XC_AGAIN, XC_SPACE. Any other code: the stream has ended, *err says how. */
xc_status xc_read_some(xc_link *link, bool can_give, size_t *space, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK;

/* xc_arrival.c */
/* These take the frame at reader->start, that has `have` bytes of payload in the buffer. XC_OK: all that is there was
 * taken; `current` goes on with the rest; a complete message is in the batch. XC_AGAIN: more of it must come first.
 * XC_SPACE. XC_BAD. XC_NOMEM, without *err. */
xc_status xc_take_piece(xc_reader *reader, const xc_frame *frame, size_t have, bool can_give, xc_queue *batch,
                        xc_err *err) XC_NEEDS_ROLE(reader);
xc_status xc_take_oversized(xc_reader *reader, const xc_frame *frame, size_t have, bool can_give, xc_queue *batch)
    XC_NEEDS_ROLE(reader);
/* Reads on the payload of `current`; the batch as above. Behind that of a piece it also reads the next frame's header.
 */
xc_status xc_read_in_place(xc_link *link, xc_queue *batch, xc_err *err) XC_NEEDS_ROLE(reader);
/* A long message begins, or its sender gave it up. XC_OK. XC_BAD. XC_NOMEM, without *err. */
xc_status xc_begin_long(xc_reader *reader, uint32_t number, const xc_long_frame *head, xc_err *err)
    XC_NEEDS_ROLE(reader);
xc_status xc_drop_long(xc_link *link, uint32_t number, xc_err *err) XC_NEEDS_ROLE(reader) XC_TAKES_LINK;
/* The next bytes of a payload for which there is no memory: what waits for its channels must be told. XC_OK, XC_NOMEM.
 */
xc_status xc_drop_payload(xc_sieve *sieve, xc_msg *msg, const unsigned char *bytes, size_t n);
/* Frees what has arrived of messages that will never be complete. */
void xc_forget_arrivals_locked(xc_link *link) XC_NEEDS(link) XC_NEEDS_ROLE(reader);

/* xc_answer.c: sends the answer `what` to a request on channel `id`, or notes it until there is room */
typedef enum {
    XC_OWES_STATUS,
    XC_OWES_FACTS,
    XC_OWES_NO_TASKS,
    XC_OWES_TOO_MANY,
    XC_OWES_CREDIT,
    XC_OWES_CLOSE
} xc_debt;
void xc_owe_locked(xc_link *link, xc_debt what, uint32_t id) XC_NEEDS(link);
void xc_pay(xc_timer *timer) XC_TAKES_LINK;
#define XC_NO_TASKS       "execution disallowed"
#define XC_TOO_MANY_TASKS "too many tasks wait"
#define XC_UNTOLD         "how the task ended could not be told"
/* There is no memory for `size` bytes. */
void xc_refuse_large_task_locked(xc_link *link, uint32_t id, size_t size) XC_NEEDS(link);

/* The channel of one of `tasks`. */
static inline xc_chan *
xc_task_chan(const xc_msg *msg)
{
    return msg->carried[msg->n_ids - 1];
}

/* xc_task_timeout.c */
/* The time of the task that is the first in the queue now begins. */
void xc_task_timeout_begin_locked(xc_link *link) XC_NEEDS(link);
void xc_task_timeout_over(xc_timer *timer) XC_TAKES_LINK;

/* xc_forward.c */
/* True: msg was for a forwarded channel, and is taken. */
bool xc_forward_takes_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link);

/* Xc_credit.c. */
bool xc_credit_ready_locked(xc_link *link, xc_chan *chan, const xc_claim *claim) XC_NEEDS(link);
void xc_credit_begin_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link); /* of a new channel */
/* An XC_CREDIT or XC_WAITS has arrived; taken. XC_OK, XC_BAD. */
xc_status xc_credit_arrives_locked(xc_link *link, xc_msg *msg, xc_err *err) XC_NEEDS(link);
void xc_credit_apply_locked(xc_link *link, const xc_msg *msg) XC_NEEDS(link); /* one that waited in the backlog */
/* The limit of what this side sends ends: nobody may wait for credit that will never come. The caller wakes. */
void xc_credit_lift_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link);
/* An XC_CLOSE, XC_CLOSE_ERROR or XC_FIN has arrived, and takes effect now or later. */
void xc_credit_end_locked(xc_link *link, const xc_msg *msg) XC_NEEDS(link);
void xc_credit_tell_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link); /* tells what was taken, if it is time to */
void xc_credit_behind_locked(xc_link *link, const xc_msg *msg, bool comes)
    XC_NEEDS(link);                                                      /* to the backlog; or from it */
void xc_credit_answer_locked(xc_link *link, uint32_t id) XC_NEEDS(link); /* says how it stands with that channel */

/* An item was taken. */
static inline void
xc_credit_take_locked(xc_link *link, xc_chan *chan, uint64_t cost) XC_NEEDS(link)
{
    chan->credit.taken += cost;
    if (chan->credit.limit_in != XC_NO_LIMIT || chan->credit.peer_waits) {
        xc_credit_tell_locked(link, chan);
    }
}

/* xc_inbox.c */
void xc_scan_ids(xc_msg *msg);                                    /* before delivery, without mu */
bool xc_add_id(void *msg, uint32_t id);                           /* to `ids` of an xc_msg; false: no memory */
void xc_arrive_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link); /* taken: takes effect now, or joins the backlog */
void xc_apply_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link);  /* taken: takes effect now */
bool xc_needs_python_locked(xc_link *link, const xc_msg *msg) XC_NEEDS(link);
void xc_cut_all_locked(xc_link *link) XC_NEEDS(link); /* marks all open channels as cut */

/* xc_channels.c */
/* Makes the channels whose ids the payload has; refuses them if it cannot be taken. */
void xc_make_carried_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link);
/* Nobody will get what the message carries: closes the channels that are not known here, at which somebody may wait. */
void xc_refuse_carried_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link);
void xc_close_locked(xc_link *link, xc_chan *chan, bool send_only) XC_NEEDS(link);
xc_status xc_take_item_locked(xc_link *link, xc_chan *chan, xc_msg **out) XC_NEEDS(link); /* as xc_link_take_item */

/* Xc_tasks.c. */
void xc_queue_task_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link); /* taken: run later, or refused */
void xc_interrupt_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link);  /* taken: an XC_INTERRUPT takes effect */
void xc_kick_primary(xc_timer *timer) XC_TAKES_LINK;

/* Xc_free.c. */
void xc_free_later_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link); /* taken */
void xc_free_all_locked(xc_link *link) XC_NEEDS(link); /* frees all that is left; the link itself is freed next */
void xc_orphan_locked(xc_link *link, xc_msg *msg) XC_NEEDS(link); /* taken: the error of a channel that nobody holds */
void xc_unhold_locked(xc_link *link, xc_chan *chan) XC_NEEDS(link); /* one count less */
/* A worker after a goodbye: nothing arrives, but it may send. */
bool xc_is_left_locked(const xc_link *link) XC_NEEDS(link);
/* The far end still wants to know of a close. */
bool xc_may_tell_locked(const xc_link *link, const xc_chan *chan) XC_NEEDS(link);

#endif
