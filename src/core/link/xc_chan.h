/*
 * Channels as the core sees them, and a link's table id -> channel. No lock in here: the link's mutex guards all of it.
 *
 * A channel is counted: its Python object, a registered callback and each queued message that carries its id hold it.
 * The table does not: an id whose channel nobody holds is unknown, and what arrives for it is dropped, as in execnet.
 */
#ifndef XC_CHAN_H
#define XC_CHAN_H

#include <stdatomic.h>

#include "xc_queue.h"
#include "xc_sync.h"

/* Takes what arrives for a channel, in place of the channel's queues; a running callback does not delay that. Both
 * functions may be called on any thread, with the link's mutex held: they may only put the message away. */
typedef struct xc_forward xc_forward;
struct xc_forward {
    void (*item)(xc_forward *forward, xc_msg *msg); /* an XC_DATA, taken: free it with xc_msg_free */
    void (*end)(xc_forward *forward, bool half); /* nothing more arrives; called once. `half`: more may still be sent */
};

typedef struct xc_chan {
    uint32_t id;
    uint32_t refs XC_GUARDED(link);
    bool listed XC_GUARDED(link);      /* in the table: neither side has closed it */
    atomic_bool closed;                /* no more sending; may be read without the mutex */
    bool recv_closed XC_GUARDED(link); /* nothing more will arrive; set without `closed`: send-only */
    bool cut XC_GUARDED(link);         /* it ended because the connection did */
    bool task XC_GUARDED(link);        /* of a task: the far end must be told how the task ended */
    bool callback XC_GUARDED(link);    /* items go to a Python callback, not into `items` */
    bool had_object XC_GUARDED(link);  /* there is a Python object for it, or was one */
    bool half_told XC_GUARDED(link);   /* LAST_MESSAGE was sent because only a callback listens here */
    /* Borrowed: the Python object, if there is one. Changed with the GIL and the link's mutex held: either is enough
     * to read it and had_object. */
    void *object XC_GUARDED(link);
    signed char coerce XC_GUARDED(link);  /* string coercion of items that take effect from now on */
    xc_forward *forward XC_GUARDED(link); /* borrowed until xc_link_unset_forward; NULL: not forwarded */
    xc_queue items XC_GUARDED(link);      /* payloads that arrived; no limit, as in execnet */
    xc_queue errors XC_GUARDED(link);     /* error texts with which the far end closed it, not raised yet */
    struct xc_chan *next_all XC_GUARDED(link);
    struct xc_chan **link_all XC_GUARDED(link); /* what points to it in the table's list `all` */
} xc_chan;

typedef struct {
    xc_chan **slots XC_GUARDED(link); /* owned array of borrowed channels; open addressing, linear probing */
    size_t n_slots XC_GUARDED(link);  /* a power of two, or 0 */
    size_t n_used XC_GUARDED(link);   /* channels in the table */
    /* Odd, and unknown to the far end, which could else choose ids that all fall into one slot. */
    uint64_t factor XC_GUARDED(link);
    int shift XC_GUARDED(link);
    /* Every channel, listed or not: channels that hold each other in a cycle are freed with the link. */
    xc_chan *all XC_GUARDED(link);
} xc_chan_table;

/* A new channel in the table, with one count for the caller; NULL: no memory. */
xc_chan *xc_chan_new(xc_chan_table *table, uint32_t id) XC_NEEDS(link);
xc_chan *xc_chan_find(const xc_chan_table *table, uint32_t id) XC_NEEDS(link); /* borrowed, NULL if unknown */
void xc_chan_unlist(xc_chan_table *table, xc_chan *chan) XC_NEEDS(link);       /* nothing happens if it is not listed */
void xc_chan_unlist_all(xc_chan_table *table) XC_NEEDS(link);
void xc_chan_free(xc_chan *chan) XC_NEEDS(link);              /* not listed, its queues empty */
void xc_chan_table_fini(xc_chan_table *table) XC_NEEDS(link); /* no channel is left */

/* The next listed channel at or after *at, which is moved on; NULL at the end. */
xc_chan *xc_chan_next(const xc_chan_table *table, size_t *at) XC_NEEDS(link);

#endif
