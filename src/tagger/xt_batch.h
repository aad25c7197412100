/*
 * Documents that are being tagged: their words as bytes, and the class of each word once it is tagged. One thread fills
 * a batch and gives it to a team; then any number of threads tag it, each taking a few documents at a time; then one
 * thread reads the classes.
 */
#ifndef XT_BATCH_H
#define XT_BATCH_H

#include "xc_sync.h"
#include "xt_decide.h"

extern xc_kind xc_team_mu;
XC_MUTEX_KIND(team)

typedef struct xt_batch {
    unsigned char *text; /* owned, as all arrays here */
    size_t n_text, room_text;
    xt_place *places;
    uint16_t *labels;
    uint32_t *ids;
    size_t n_words, room_words;
    size_t *ends; /* where each document ends, in words */
    size_t n_docs, room_docs;
    bool use_only;
    atomic_size_t next;            /* the first document that no thread has taken */
    size_t users XC_GUARDED(team); /* threads that tag this batch */
    struct xt_batch *later XC_GUARDED(team);
} xt_batch;

void xt_batch_init(xt_batch *batch);
void xt_batch_fini(xt_batch *batch);
/* Empties it. It keeps its memory, unless that is very much. */
void xt_batch_reset(xt_batch *batch);

/* Makes room for `more`, so that the caller can write without checking; makes an array even for 0. XC_NOMEM; XC_LIMIT:
 * over 4 GiB of text. */
xc_status xt_batch_reserve_words(xt_batch *batch, size_t more, xc_err *err);
xc_status xt_batch_reserve_text(xt_batch *batch, size_t more, xc_err *err);
/* The words that were added since the last document are one document. */
xc_status xt_batch_end_doc(xt_batch *batch, xc_err *err);

static inline size_t
xt_batch_doc_start(const xt_batch *batch, size_t doc)
{
    XC_ASSERT(doc <= batch->n_docs);
    return doc == 0 ? 0 : batch->ends[doc - 1];
}

static inline xt_task
xt_batch_task(const xt_batch *batch)
{
    return (xt_task){batch->text, batch->places, batch->n_words, batch->use_only, batch->labels, batch->ids};
}

static inline bool
xt_batch_is_taken(const xt_batch *batch)
{
    return atomic_load_explicit(&batch->next, memory_order_relaxed) >= batch->n_docs;
}

/* Tags documents that nobody has taken, until there are none or *stop is set (`stop` may be NULL). Never sleeps. */
void xt_batch_work(xt_batch *batch, xt_scratch *scratch, xt_words *words, const atomic_bool *stop);

#endif
