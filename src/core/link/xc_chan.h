/*
 * Channels as the core sees them, and a link's table id -> channel. No lock in here: the link's mutex guards all of it.
 *
 * A channel is counted: its Python object, a registered callback and each queued message that carries its id hold it.
 * The table does not: an id whose channel nobody holds is unknown, and what arrives for it is dropped, as in execnet.
 */
#ifndef XC_CHAN_H
#define XC_CHAN_H

#include <stdatomic.h>

#include "xc_pump.h"
#include "xc_queue.h"

/* Takes what arrives for a channel, in place of the channel's queues; a running callback does not delay that. It calls
 * xc_link_taken for each item, in its own time. Both functions may be called on any thread, with the link's mutex held:
 * they may only put the message away. */
typedef struct xc_forward xc_forward;
struct xc_forward {
    void (*item)(xc_forward *forward, xc_msg *msg); /* an XC_DATA, taken: free it with xc_msg_free */
    /* Nothing more arrives. `half`: more may still be sent, and it is called again once that is over, too. */
    void (*end)(xc_forward *forward, bool half);
};

/* A sender that may have to wait for credit. It is its own: on its stack, or on the heap where greenlets share that. */
typedef struct xc_claim xc_claim;
struct xc_claim {
    uint64_t cost; /* of its item */
    /* Only compared. A claim of the same owner that is in the line already waits further down the owner's stack: a
     * signal handler came between. */
    const void *owner;
    xc_job *job;                     /* borrowed; posted once it may go on. NULL: it sleeps */
    xc_claim *next XC_GUARDED(link); /* in the line */
    bool waits XC_GUARDED(link);     /* it is in the line */
    bool posted XC_GUARDED(link);    /* its job is posted, and it has not asked again since */
};

/* Flow control of one channel: see xc_credit.c. Numbers are costs of items, see xc_msg_cost. */
typedef struct {
    /* What this side sends. */
    atomic_bool limited;   /* may be read without the mutex */
    _Atomic uint64_t sent; /* all that was ever sent; not under the mutex while there is no limit */
    uint64_t taken_there XC_GUARDED(link);
    uint64_t limit_out XC_GUARDED(link);
    xc_claim *
        line XC_GUARDED(link); /* borrowed; the senders that wait, oldest first, handlers before the interrupted */
    int64_t line_since XC_GUARDED(link); /* since when somebody waits */
    bool asked XC_GUARDED(link);         /* WAITS was sent, and no credit has come since */
    bool credited XC_GUARDED(link);      /* a credit has come */
    bool at_once XC_GUARDED(link);       /* one that did not wait in the backlog */
    bool over XC_GUARDED(link);  /* the limit was lifted for good: the far end takes nothing more, or miscounts */
    bool whole XC_GUARDED(link); /* the channel was new at both sides when it was made: both have counted alike */
    /* What this side receives. */
    uint64_t taken XC_GUARDED(link); /* all that was ever taken */
    uint64_t told XC_GUARDED(link);  /* the part of it of which the far end knows */
    uint64_t limit_in XC_GUARDED(link);
    uint32_t behind XC_GUARDED(link); /* items that have arrived, and are neither in `items` nor taken */
    uint64_t held XC_GUARDED(link);   /* the cost of those that a forward has */
    bool peer_waits XC_GUARDED(link); /* the far end wants to know when all is taken */
    bool owed XC_GUARDED(link);       /* a credit will be sent once there is room */
    int64_t peer_since XC_GUARDED(link);
} xc_credit;

typedef struct xc_chan {
    uint32_t id;
    uint32_t refs XC_GUARDED(link);
    bool listed XC_GUARDED(link); /* neither side has closed it */
    bool placed XC_GUARDED(link); /* in the table: it is listed, or only the far end has said that it sends no more */
    atomic_bool closed;           /* no more sending; may be read without the mutex */
    bool recv_closed XC_GUARDED(link); /* nothing more will arrive; set without `closed`: send-only */
    bool cut XC_GUARDED(link);         /* it ended because the connection did */
    bool task XC_GUARDED(link);        /* of a task: the far end must be told how the task ended */
    bool interrupted XC_GUARDED(link); /* its task is to be interrupted, and was not yet */
    bool callback XC_GUARDED(link);    /* items go to a Python callback, not into `items` */
    bool had_object XC_GUARDED(link);  /* there is a Python object for it, or was one */
    bool half_told XC_GUARDED(link);   /* LAST_MESSAGE was sent because only a callback listens here */
    /* Borrowed: the Python object, if there is one. It gives itself up here before its memory goes. */
    void *object XC_GUARDED(link);
    signed char coerce XC_GUARDED(link);  /* string coercion of items that take effect from now on */
    xc_forward *forward XC_GUARDED(link); /* borrowed until xc_link_unset_forward; NULL: not forwarded */
    /* Payloads that arrived; unless `credit` has a limit, as many as come. Each takes its bytes and some 100 more. */
    xc_queue items XC_GUARDED(link);
    /* Error texts with which the channel was closed, not raised yet; one of the far end, which closes it once. */
    xc_queue errors XC_GUARDED(link);
    xc_credit credit;
    struct xc_chan *next_all XC_GUARDED(link);
    struct xc_chan **link_all XC_GUARDED(link); /* what points to it in the table's list `all` */
} xc_chan;

typedef struct {
    xc_chan **slots XC_GUARDED(link); /* owned array of borrowed channels; open addressing, linear probing */
    size_t n_slots XC_GUARDED(link);  /* a power of two, or 0 */
    size_t n_used XC_GUARDED(link);   /* listed channels */
    size_t n_placed XC_GUARDED(link); /* channels in the slots */
    /* Odd, and unknown to the far end, which could else choose ids that all fall into one slot. */
    uint64_t factor XC_GUARDED(link);
    int shift XC_GUARDED(link);
    /* Every channel, listed or not: channels that hold each other in a cycle are freed with the link. */
    xc_chan *all XC_GUARDED(link);
} xc_chan_table;

/* A new channel in the table, with one count for the caller; NULL: no memory. */
xc_chan *xc_chan_new(xc_chan_table *table, uint32_t id) XC_NEEDS(link);
/* The listed one; borrowed, NULL if unknown. */
xc_chan *xc_chan_find(const xc_chan_table *table, uint32_t id) XC_NEEDS(link);
/* One after the other all in the table with that id, listed or not, beginning with *at = 0; NULL at the end. */
xc_chan *xc_chan_find_any(const xc_chan_table *table, uint32_t id, size_t *at) XC_NEEDS(link);
void xc_chan_unlist(xc_chan_table *table, xc_chan *chan) XC_NEEDS(link); /* it stays in the table */
void xc_chan_remove(xc_chan_table *table, xc_chan *chan) XC_NEEDS(link); /* nothing happens if it is not in the table */
void xc_chan_remove_all(xc_chan_table *table) XC_NEEDS(link);
void xc_chan_free(xc_chan *chan) XC_NEEDS(link);              /* not in the table, its queues empty */
void xc_chan_table_fini(xc_chan_table *table) XC_NEEDS(link); /* no channel is left */

/* The next listed channel at or after *at, which is moved on; NULL at the end. */
xc_chan *xc_chan_next(const xc_chan_table *table, size_t *at) XC_NEEDS(link);

#endif
