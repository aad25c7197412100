/*
 * Growing arrays, and the work on them.
 */
#include "xt_batch.h"

#define KEEP (4u << 20) /* bytes of an array that an empty batch keeps */

void
xt_batch_init(xt_batch *batch)
{
    memset(batch, 0, sizeof(*batch));
}

void
xt_batch_fini(xt_batch *batch)
{
    xc_free(batch->text);
    xc_free(batch->places);
    xc_free(batch->labels);
    xc_free(batch->ids);
    xc_free(batch->ends);
    memset(batch, 0, sizeof(*batch));
}

void
xt_batch_reset(xt_batch *batch)
{
    if (batch->room_text > KEEP || batch->room_words * sizeof(xt_place) > KEEP || batch->room_docs > KEEP / 8) {
        xt_batch_fini(batch);
    }
    batch->n_text = batch->n_words = batch->n_docs = 0;
    atomic_store_explicit(&batch->next, 0, memory_order_relaxed);
}

static xc_status
no_memory(xc_err *err)
{
    return xc_fail(err, XC_NOMEM, 0, "a batch of documents");
}

xc_status
xt_batch_reserve_words(xt_batch *batch, size_t more, xc_err *err)
{
    XC_ASSERT(batch->n_words <= batch->room_words);
    if (batch->places != NULL && batch->room_words - batch->n_words >= more) {
        return XC_OK;
    }
    if (more > SIZE_MAX / 32 - batch->n_words) {
        return no_memory(err);
    }
    size_t room = (batch->n_words + more) / 2 * 3 + 64;
    void *places = xc_realloc(batch->places, room * sizeof(*batch->places));
    if (places == NULL) {
        return no_memory(err);
    }
    batch->places = places;
    void *labels = xc_realloc(batch->labels, room * sizeof(*batch->labels));
    if (labels == NULL) {
        return no_memory(err);
    }
    batch->labels = labels;
    void *ids = xc_realloc(batch->ids, room * sizeof(*batch->ids));
    if (ids == NULL) {
        return no_memory(err);
    }
    batch->ids = ids;
    batch->room_words = room;
    return XC_OK;
}

xc_status
xt_batch_reserve_text(xt_batch *batch, size_t more, xc_err *err)
{
    XC_ASSERT(batch->n_text <= batch->room_text);
    if (batch->text != NULL && batch->room_text - batch->n_text >= more) {
        return XC_OK;
    }
    if (more > UINT32_MAX - batch->n_text) {
        return xc_failf(err, XC_LIMIT, "a batch of documents", "more than 4 GiB of text at once");
    }
    size_t room = (batch->n_text + more) / 2 * 3 + 1024;
    void *text = xc_realloc(batch->text, room);
    if (text == NULL) {
        return no_memory(err);
    }
    batch->text = text;
    batch->room_text = room;
    return XC_OK;
}

xc_status
xt_batch_end_doc(xt_batch *batch, xc_err *err)
{
    XC_ASSERT(batch->n_words >= xt_batch_doc_start(batch, batch->n_docs));
    if (batch->n_docs == batch->room_docs) {
        size_t room = batch->room_docs * 2 + 16;
        void *ends = xc_realloc(batch->ends, room * sizeof(*batch->ends));
        if (ends == NULL) {
            return no_memory(err);
        }
        batch->ends = ends;
        batch->room_docs = room;
    }
    batch->ends[batch->n_docs++] = batch->n_words;
    return XC_OK;
}

void
xt_batch_work(xt_batch *batch, xt_scratch *scratch, xt_words *words, const atomic_bool *stop)
{
    const size_t step = batch->n_docs / 64 + 1;
    const xt_task task = xt_batch_task(batch);
    xt_words_enter(words);
    while (stop == NULL || !atomic_load_explicit(stop, memory_order_relaxed)) {
        size_t doc = atomic_fetch_add_explicit(&batch->next, step, memory_order_relaxed);
        if (doc >= batch->n_docs) {
            break;
        }
        xt_scratch_begin(scratch, xt_batch_doc_start(batch, doc));
        for (size_t end = doc + step < batch->n_docs ? doc + step : batch->n_docs; doc < end; doc++) {
            xt_tag(scratch, words, &task, xt_batch_doc_start(batch, doc), batch->ends[doc]);
        }
    }
    xt_words_leave(words);
}
