/*
 * Channels as the core sees them, and the table id -> channel of a link. No lock here: the link's mutex keeps it all.
 *
 * A channel is counted: its Python object, a registered callback and each queued message that carries its id hold it.
 * The table does not: an id nobody holds is unknown, and what arrives for it is dropped, as in execnet.
 */
#ifndef XC_CHAN_H
#define XC_CHAN_H

#include <stdatomic.h>

#include "xc_queue.h"

/*
 * Takes what arrives for a channel in the place of its queues, also while a callback keeps other frames waiting. Both
 * functions: any thread, the link's mutex held, so they only put it away.
 */
typedef struct xc_forward xc_forward;
struct xc_forward {
    void (*item)(xc_forward *forward, xc_msg *msg); /* an XC_DATA, taken: free it with xc_msg_free */
    void (*end)(xc_forward *forward, bool half); /* nothing more arrives; called once. `half`: more may still be sent */
};

typedef struct xc_chan {
    uint32_t id;
    uint32_t refs;
    bool listed;        /* in the table: neither side has closed it */
    atomic_bool closed; /* no more sending; may be read without the mutex */
    bool recv_closed;   /* nothing more will arrive; set without `closed`: send-only */
    bool cut;           /* what ended it is the end of the connection */
    bool task;          /* a task's: its end is to be told */
    bool callback;      /* items go to a callback of the Python side, not into `items` */
    bool had_object;    /* a Python object stood for it, now or earlier */
    bool half_told;     /* the far end knows that only a callback listens here */
    void *object;       /* borrowed: the Python object, if there is one. Changed with both the GIL and the link's mutex,
                           so either is enough to read it and had_object */
    signed char coerce; /* string coercion of items that take effect from now on */
    xc_forward *forward; /* borrowed until it is unset: see xc_link_set_forward; NULL: none */
    xc_queue items;      /* payloads that arrived: as many as are sent, as in execnet */
    xc_queue errors;     /* texts with which the far end closed it, not raised yet */
    struct xc_chan *next_all;
    struct xc_chan **link_all; /* what points to it in the table's list of all */
} xc_chan;

typedef struct {
    xc_chan **slots; /* owned array of borrowed channels; open addressing, linear probing */
    size_t n_slots;  /* a power of two, or 0 */
    size_t n_used;   /* channels in it */
    uint64_t factor; /* odd and unknown to the far end, which would else choose ids that fall into one slot */
    int shift;
    xc_chan *all; /* every channel, listed or not: those that hold each other in a ring end with the link */
} xc_chan_table;

/* A channel with one count for the caller, in the table; NULL when there is no memory. */
xc_chan *xc_chan_new(xc_chan_table *table, uint32_t id);
xc_chan *xc_chan_find(const xc_chan_table *table, uint32_t id); /* borrowed, NULL if unknown */
void xc_chan_unlist(xc_chan_table *table, xc_chan *chan);       /* harmless when it is not listed */
void xc_chan_unlist_all(xc_chan_table *table);
void xc_chan_free(xc_chan *chan);              /* it is not listed, its queues are empty */
void xc_chan_table_fini(xc_chan_table *table); /* there is no channel any more */

/* The next listed channel at or after *at, which is moved on; NULL at the end. */
xc_chan *xc_chan_next(const xc_chan_table *table, size_t *at);

#endif
