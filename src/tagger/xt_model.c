/*
 * Opening a block: the only place that checks its bytes.
 */
#include "xt_model.h"

#include <math.h>

#define BYTE_ORDER_MARK 0x01020304u
#define MAX_TAG_SUMS    (UINT64_C(2) << 20)

const char xt_magic[8] = {'x', 'c', 't', 'a', 'g', 'g', 'e', 'r'};

xt_span
xt_mark(unsigned which)
{
    XC_ASSERT(which < XT_MARKS);
    static const char *const marks[XT_MARKS] = {"-START-", "-START2-", "-END-", "-END2-"};
    return (xt_span){(const unsigned char *)marks[which], strlen(marks[which])};
}

uint64_t
xt_layout(const xt_head *head, uint64_t at[XT_SECTIONS])
{
    const uint64_t n_tags = (uint64_t)head->n_classes + 2;
    const uint64_t sizes[XT_SECTIONS] = {
        sizeof(*head),
        head->n_weights * (uint64_t)(head->milli ? sizeof(int32_t) : sizeof(double)),
        (head->n_rows + UINT64_C(1)) * sizeof(uint32_t),
        head->n_weights * (uint64_t)sizeof(uint16_t),
        head->n_classes * (uint64_t)sizeof(xt_piece),
        2 * n_tags * sizeof(uint32_t),
        head->n_pairs * (uint64_t)sizeof(xt_pair),
        head->n_forms * (uint64_t)sizeof(xt_form),
        head->n_with_tag * (uint64_t)sizeof(uint16_t),
        head->n_with_tag * (uint64_t)sizeof(uint32_t),
        head->n_index * (uint64_t)sizeof(uint32_t),
        head->n_others * (uint64_t)sizeof(xt_other),
        head->n_text,
    };
    uint64_t end = 0;
    for (int i = 0; i < XT_SECTIONS; i++) {
        at[i] = end;
        end = (end + sizes[i] + 7) & ~UINT64_C(7);
    }
    return end;
}

/* Finds damage, not malice. */
uint64_t
xt_checksum(const void *block, uint64_t size)
{
    const unsigned char *p = block;
    const uint64_t prime = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t sums[4] = {1, 2, 3, 4}; /* four sums, so that no addition waits for the one before it */
    uint64_t from = offsetof(xt_head, checksum) + sizeof(uint64_t);
    for (unsigned lane = 0; from + 8 <= size; from += 8, lane = (lane + 1) & 3) {
        uint64_t piece;
        memcpy(&piece, p + from, 8);
        sums[lane] = (sums[lane] ^ piece) * prime;
        sums[lane] ^= sums[lane] >> 32;
    }
    return ((sums[0] * 3 ^ sums[1]) * 5 ^ sums[2]) * 7 ^ sums[3];
}

static xc_status
bad(xc_err *err, const char *what)
{
    return xc_failf(err, XC_BAD, "tagger model", "%s", what);
}

static xc_status
check_head(const xt_head *head, size_t size, xc_err *err)
{
    if (size < sizeof(*head) || memcmp(head->magic, xt_magic, sizeof(xt_magic)) != 0) {
        return bad(err, "this is none");
    }
    if (head->byte_order != BYTE_ORDER_MARK) {
        return bad(err, "made on a machine of another byte order");
    }
    if (head->version != XT_VERSION) {
        return xc_failf(err, XC_BAD, "tagger model", "of version %lu, where %d is understood",
                        (unsigned long)head->version, XT_VERSION);
    }
    const uint32_t counts[] = {head->n_rows,     head->n_weights, head->n_pairs,  head->n_forms,
                               head->n_with_tag, head->n_index,   head->n_others, head->n_text};
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        if (counts[i] > XT_MAX_COUNT) {
            return bad(err, "a count in it is too large");
        }
    }
    uint64_t at[XT_SECTIONS];
    if (head->n_classes > XT_MAX_CLASSES || head->milli > 1 || xt_layout(head, at) != head->size) {
        return bad(err, "its sections do not add up");
    }
    if (head->size != size) {
        return xc_failf(err, XC_BAD, "tagger model", "%llu bytes long, of which %llu are here",
                        (unsigned long long)head->size, (unsigned long long)size);
    }
    return xt_checksum(head, size) == head->checksum ? XC_OK : bad(err, "damaged: its checksum is another");
}

static void
place(xt_model *model, const unsigned char *block)
{
    uint64_t at[XT_SECTIONS];
    const xt_head *head = model->head = (const void *)block;
    (void)xt_layout(head, at);
    model->milli = head->milli ? (const void *)(block + at[1]) : NULL;
    model->weights = head->milli ? NULL : (const void *)(block + at[1]);
    model->row_start = (const void *)(block + at[2]);
    model->labels = (const void *)(block + at[3]);
    model->classes = (const void *)(block + at[4]);
    model->tag_rows = (const void *)(block + at[5]);
    model->pairs = (const void *)(block + at[6]);
    model->forms = (const void *)(block + at[7]);
    model->with_tags = (const void *)(block + at[8]);
    model->with_rows = (const void *)(block + at[9]);
    model->index = (const void *)(block + at[10]);
    model->others = (const void *)(block + at[11]);
    model->text = block + at[12];
    model->n_tags = head->n_classes + 2;
    model->lanes = (head->n_classes + XT_LANES - 1) / XT_LANES * XT_LANES;
}

static bool
in_text(const xt_model *model, xt_piece piece)
{
    return piece.at <= model->head->n_text && piece.size <= model->head->n_text - piece.at;
}

static bool
row_or_none(const xt_model *model, uint32_t row)
{
    return row < model->head->n_rows || row == XT_NONE;
}

static bool
rows_are_good(const xt_model *model)
{
    const xt_head *head = model->head;
    if (model->row_start[0] != 0 || model->row_start[head->n_rows] != head->n_weights) {
        return false;
    }
    for (uint32_t i = 0; i < head->n_rows; i++) {
        if (model->row_start[i] > model->row_start[i + 1] || xt_row_size(model, i) > head->n_classes) {
            return false;
        }
    }
    for (uint32_t i = 0; i < head->n_weights; i++) {
        bool in_range = model->milli != NULL ? model->milli[i] >= -XT_MAX_MILLI && model->milli[i] <= XT_MAX_MILLI
                                             : isfinite(model->weights[i]) != 0;
        if (!in_range || model->labels[i] >= head->n_classes) {
            return false;
        }
    }
    return true;
}

static bool
tags_are_good(const xt_model *model)
{
    const xt_head *head = model->head;
    for (uint32_t i = 0; i < head->n_classes; i++) {
        if (!in_text(model, model->classes[i])) {
            return false;
        }
        /* Sorted: of equal sums the class that comes last wins. */
        if (i > 0 &&
            xt_span_compare(xt_text_of(model, model->classes[i - 1]), xt_text_of(model, model->classes[i])) >= 0) {
            return false;
        }
    }
    for (uint32_t i = 0; i < 2 * model->n_tags; i++) {
        if (!row_or_none(model, model->tag_rows[i])) {
            return false;
        }
    }
    for (uint32_t i = 0; i < head->n_pairs; i++) {
        const xt_pair *pair = &model->pairs[i];
        if (pair->before >= model->n_tags || pair->before_2 >= model->n_tags || pair->row >= head->n_rows) {
            return false;
        }
    }
    return row_or_none(model, head->bias);
}

static bool
form_is_good(const xt_model *model, const xt_form *form)
{
    for (int slot = 0; slot < XT_SLOTS; slot++) {
        if (!row_or_none(model, form->rows[slot])) {
            return false;
        }
    }
    return in_text(model, form->text) && (form->only < model->head->n_classes || form->only == XT_NONE) &&
           form->with_tag <= model->head->n_with_tag && form->n_with_tag <= model->head->n_with_tag - form->with_tag;
}

static bool
forms_are_good(const xt_model *model)
{
    const xt_head *head = model->head;
    for (uint32_t i = 0; i < head->n_forms; i++) {
        if (!form_is_good(model, &model->forms[i])) {
            return false;
        }
    }
    for (uint32_t i = 0; i < head->n_with_tag; i++) {
        if (model->with_tags[i] >= model->n_tags || model->with_rows[i] >= head->n_rows) {
            return false;
        }
    }
    for (uint32_t i = 0; i < head->n_others; i++) {
        if (model->others[i].row >= head->n_rows || !in_text(model, model->others[i].text)) {
            return false;
        }
    }
    return true;
}

/* A free slot is needed: it ends each search. */
static bool
index_is_good(const xt_model *model)
{
    const uint32_t n = model->head->n_index;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (model->index[i] > model->head->n_forms) {
            return false;
        }
        taken += model->index[i] != 0;
    }
    return n > 0 && (n & (n - 1)) == 0 && taken < n;
}

/* Adds up what is the same for every word: the bias, and each pair of tags. */
static xc_status
add_up_tags(xt_model *model, xc_err *err)
{
    const uint64_t n_tags = model->n_tags, lanes = model->lanes;
    model->bias_sums = xc_alloc((size_t)lanes * sizeof(int32_t));
    if (model->bias_sums == NULL) {
        return xc_fail(err, XC_NOMEM, 0, "tagger model");
    }
    for (uint32_t i = 0; i < lanes; i++) {
        model->bias_sums[i] = i < model->head->n_classes ? 0 : INT32_MIN;
    }
    xt_add_row(model, model->head->bias, model->bias_sums);
    if (n_tags * n_tags * lanes * sizeof(int32_t) > MAX_TAG_SUMS) {
        return XC_OK;
    }
    size_t size = (size_t)(n_tags * n_tags * lanes) * sizeof(int32_t);
    model->tag_sums = xc_alloc(size);
    if (model->tag_sums == NULL) {
        return xc_fail(err, XC_NOMEM, 0, "tagger model");
    }
    memset(model->tag_sums, 0, size);
    for (uint32_t before = 0; before < n_tags; before++) {
        for (uint32_t before_2 = 0; before_2 < n_tags; before_2++) {
            int32_t *sums = model->tag_sums + (before * n_tags + before_2) * lanes;
            xt_add_row(model, model->tag_rows[before], sums);
            xt_add_row(model, model->tag_rows[n_tags + before_2], sums);
        }
    }
    for (uint32_t i = 0; i < model->head->n_pairs; i++) {
        const xt_pair *pair = &model->pairs[i];
        xt_add_row(model, pair->row, model->tag_sums + (pair->before * n_tags + pair->before_2) * lanes);
    }
    return XC_OK;
}

static bool
pairs_are_sorted(const xt_model *model)
{
    for (uint32_t i = 1; i < model->head->n_pairs; i++) {
        const xt_pair *a = &model->pairs[i - 1], *b = &model->pairs[i];
        if (a->before > b->before || (a->before == b->before && a->before_2 >= b->before_2)) {
            return false;
        }
    }
    return true;
}

xc_status
xt_model_open(xt_model *model, const void *block, size_t size, xc_err *err)
{
    XC_ASSERT((uintptr_t)block % 8 == 0);
    memset(model, 0, sizeof(*model));
    xc_status rc = check_head(block, size, err);
    if (rc != XC_OK) {
        return rc;
    }
    place(model, block);
    if (!rows_are_good(model) || !tags_are_good(model) || !pairs_are_sorted(model) || !forms_are_good(model) ||
        !index_is_good(model)) {
        return bad(err, "damaged: it points beyond itself");
    }
    for (uint32_t i = 0; i < model->head->n_forms; i++) {
        uint32_t length = model->forms[i].text.size;
        model->longest = length > model->longest ? length : model->longest;
    }
    if (model->milli != NULL) {
        rc = add_up_tags(model, err);
        if (rc != XC_OK) {
            xt_model_close(model);
        }
    }
    return rc;
}

void
xt_model_close(xt_model *model)
{
    xc_free(model->bias_sums);
    xc_free(model->tag_sums);
    memset(model, 0, sizeof(*model));
}

const xt_form *
xt_find(const xt_model *model, xt_span text)
{
    const uint32_t mask = model->head->n_index - 1;
    for (uint32_t i = xt_hash(text.at, text.size) & mask; model->index[i] != 0; i = (i + 1) & mask) {
        const xt_form *form = &model->forms[model->index[i] - 1];
        if (xt_span_equal(xt_text_of(model, form->text), text)) {
            return form;
        }
    }
    return NULL;
}

uint32_t
xt_pair_row(const xt_model *model, uint32_t before, uint32_t before_2)
{
    XC_ASSERT(before < model->n_tags && before_2 < model->n_tags);
    uint32_t low = 0, high = model->head->n_pairs;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const xt_pair *pair = &model->pairs[middle];
        if (pair->before < before || (pair->before == before && pair->before_2 < before_2)) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    bool found =
        low < model->head->n_pairs && model->pairs[low].before == before && model->pairs[low].before_2 == before_2;
    return found ? model->pairs[low].row : XT_NONE;
}

uint32_t
xt_with_tag_row(const xt_model *model, uint32_t from, uint32_t n, uint32_t tag)
{
    XC_ASSERT(from <= model->head->n_with_tag && n <= model->head->n_with_tag - from);
    const uint16_t *tags = model->with_tags + from;
    uint32_t low = 0;
    while (n > 1) {
        uint32_t half = n / 2;
        low += tags[low + half] <= tag ? half : 0;
        n -= half;
    }
    return n == 1 && tags[low] == tag ? model->with_rows[from + low] : XT_NONE;
}
