/*
 * Messages that arrived, and FIFOs of them. A queue has no lock of its own: its owner's mutex guards it.
 */
#ifndef XC_QUEUE_H
#define XC_QUEUE_H

#include "xc_frame.h"

struct xc_chan;

/* String coercion, as bits: what a Python 2 str becomes, and what a Python 3 str becomes. */
enum { XC_PY2STR_AS_PY3STR = 1, XC_PY3STR_AS_PY2STR = 2, XC_COERCE_DEFAULT = XC_PY2STR_AS_PY3STR };
/* With these bits: enums and subclasses of plain types are sent as plain values (strict=False). */
enum { XC_NOT_STRICT = 4 };

/* One frame that arrived. Whoever holds it owns it. */
typedef struct xc_msg {
    struct xc_msg *next;
    uint8_t code;        /* xc_code, or one of the link's own events */
    signed char coerce;  /* string coercion to load it with: that of its channel when the message took effect */
    bool lost;           /* there was no memory for it, so that it cannot be loaded; `size`: its length */
    bool crowded;        /* it carries more channels than may wait here, so that it cannot be loaded */
    bool counted;        /* it was taken before, and put back: it counts for nothing more */
    uint8_t skipped;     /* bytes of the payload in front of `data` that lent memory has no room for */
    uint32_t chan;       /* channel id */
    size_t size;         /* bytes of payload */
    unsigned char *data; /* the payload: behind this struct, or inside `space`; NULL: it is lost and was not kept */
    void *space;         /* memory lent by the Python side for this payload (a bytes object), or NULL; see
                            xc_link_give_space. Freed by the Python side only. */
    struct xc_chan **carried; /* owned array, each element counted: the channels whose ids are in the payload; for a
                                 task, its own channel is the last */
    uint32_t *ids;            /* owned array: those ids, until the message takes effect and `carried` is made */
    size_t n_ids;             /* of either array */
} xc_msg;

/* A message with room for `size` bytes behind it, at an address that is a multiple of XC_PICKLE_ALIGN if they are
 * XC_ALIGNED_MIN or more; NULL: no memory. Everything else is zero, except that `coerce` is
 * XC_COERCE_DEFAULT, and stays so for all but the items of channels. */
enum { XC_ALIGNED_MIN = 64 * 1024 };
xc_msg *xc_msg_new(uint8_t code, uint32_t chan, size_t size);
/* The same, but `lost` if there is only memory for the message itself. */
xc_msg *xc_msg_new_or_lost(uint8_t code, uint32_t chan, size_t size);
/* Frees the message and its two arrays. The link must have released the channels in `carried` before. */
void xc_msg_free(xc_msg *msg);

/* Bytes that an item counts for: those of its payload as it was sent, and XC_ITEM_COST; 0 if it was counted before. */
static inline uint64_t
xc_msg_cost(const xc_msg *msg)
{
    return msg->counted ? 0 : (uint64_t)msg->size + msg->skipped + XC_ITEM_COST;
}

typedef struct {
    xc_msg *head;
    xc_msg **tail; /* where the next one is linked in; NULL in an empty queue */
    size_t count;
} xc_queue;

void xc_queue_push(xc_queue *queue, xc_msg *msg);     /* taken */
void xc_queue_put_back(xc_queue *queue, xc_msg *msg); /* taken; it is the first one now */
xc_msg *xc_queue_pop(xc_queue *queue);                /* owned by the caller; NULL when empty */

#endif
