/*
 * The builder. It finds forms by an index like that of the block, so that writing the block is only copying.
 *
 * A feature's text is split behind its name. "i-1 tag+i word A B C" may be tag "A" with form "B C", or tag "A B" with
 * form "C": each split whose tag exists gets the row. The same for two tags.
 */
#include "xt_build.h"

#include <math.h>
#include <stdlib.h>

static const char *const feature_names[XT_FEATURES] = {
    [XT_SUFFIX] = "i suffix ",
    [XT_PREFIX] = "i pref1 ",
    [XT_WORD] = "i word ",
    [XT_BEFORE] = "i-1 word ",
    [XT_BEFORE_SUFFIX] = "i-1 suffix ",
    [XT_BEFORE_2] = "i-2 word ",
    [XT_AFTER] = "i+1 word ",
    [XT_AFTER_SUFFIX] = "i+1 suffix ",
    [XT_AFTER_2] = "i+2 word ",
    [XT_WITH_TAG] = "i-1 tag+i word ",
    [XT_TAG_BEFORE] = "i-1 tag ",
    [XT_TAG_BEFORE_2] = "i-2 tag ",
    [XT_TAG_PAIR] = "i tag+i-2 tag ",
    [XT_BIAS] = "bias",
};

/* A growing array of one kind of thing. */
typedef struct {
    void *items; /* owned */
    uint32_t n, room;
} list;

typedef struct {
    uint32_t form, tag, row;
} with_tag;

struct xt_build {
    xt_head head; /* complete after xt_build_finish */
    list text, classes, forms, index, pairs, with_tags, others, labels, weights, row_start;
    uint32_t *tag_rows; /* owned: allocated with the first feature */
};

xt_span
xt_feature_name(unsigned slot)
{
    return (xt_span){(const unsigned char *)feature_names[slot], strlen(feature_names[slot])};
}

/* Makes room for `more` items behind the present ones; makes an array even for 0. */
static xc_status
reserve(list *to, uint32_t more, size_t size, xc_err *err)
{
    if (more > XT_MAX_COUNT - to->n) {
        return xc_fail(err, XC_LIMIT, 0, "a tagger model that is too large");
    }
    if (to->items == NULL || to->n + more > to->room) {
        uint32_t room = to->n + more + (to->n + more) / 2 + 64;
        void *items = xc_realloc(to->items, room * size);
        if (items == NULL) {
            return xc_fail(err, XC_NOMEM, 0, "tagger model");
        }
        to->items = items;
        to->room = room;
    }
    return XC_OK;
}

static xc_status
append(list *to, const void *item, size_t size, xc_err *err)
{
    xc_status rc = reserve(to, 1, size, err);
    if (rc == XC_OK) {
        memcpy((unsigned char *)to->items + to->n++ * size, item, size);
    }
    return rc;
}

static xc_status
add_text(xt_build *build, xt_span text, xt_piece *piece, xc_err *err)
{
    if (text.size > XT_MAX_COUNT) {
        return xc_fail(err, XC_LIMIT, 0, "a tagger model with an endless word");
    }
    xc_status rc = reserve(&build->text, (uint32_t)text.size, 1, err);
    if (rc == XC_OK) {
        *piece = (xt_piece){build->text.n, (uint32_t)text.size};
        if (text.size > 0) {
            memcpy((unsigned char *)build->text.items + build->text.n, text.at, text.size);
        }
        build->text.n += (uint32_t)text.size;
    }
    return rc;
}

static xt_span
text_of(const xt_build *build, xt_piece piece)
{
    return (xt_span){(const unsigned char *)build->text.items + piece.at, piece.size};
}

static xt_form *
form_at(const xt_build *build, uint32_t i)
{
    return (xt_form *)build->forms.items + i;
}

/* ---- forms ---- */

static xc_status
grow_index(xt_build *build, xc_err *err)
{
    uint32_t room = build->index.room == 0 ? 1024 : build->index.room * 2;
    uint32_t *index = xc_alloc(room * sizeof(uint32_t));
    if (index == NULL) {
        return xc_fail(err, XC_NOMEM, 0, "tagger model");
    }
    memset(index, 0, room * sizeof(uint32_t));
    for (uint32_t form = 0; form < build->forms.n; form++) {
        xt_span text = text_of(build, form_at(build, form)->text);
        uint32_t i = xt_hash(text.at, text.size) & (room - 1);
        while (index[i] != 0) {
            i = (i + 1) & (room - 1);
        }
        index[i] = form + 1;
    }
    xc_free(build->index.items);
    build->index = (list){index, room, room};
    return XC_OK;
}

static xc_status
add_form(xt_build *build, xt_span text, uint32_t *form, xc_err *err)
{
    xc_status rc = XC_OK;
    if (build->forms.n * UINT64_C(2) >= build->index.room) {
        rc = grow_index(build, err);
        if (rc != XC_OK) {
            return rc;
        }
    }
    uint32_t *index = build->index.items, mask = build->index.room - 1;
    uint32_t i = xt_hash(text.at, text.size) & mask;
    for (; index[i] != 0; i = (i + 1) & mask) {
        if (xt_span_equal(text_of(build, form_at(build, index[i] - 1)->text), text)) {
            *form = index[i] - 1;
            return XC_OK;
        }
    }
    xt_form new = {.only = XT_NONE};
    for (int slot = 0; slot < XT_SLOTS; slot++) {
        new.rows[slot] = XT_NONE;
    }
    rc = add_text(build, text, &new.text, err);
    if (rc == XC_OK) {
        rc = append(&build->forms, &new, sizeof(new), err);
    }
    if (rc == XC_OK) {
        *form = build->forms.n - 1;
        index[i] = build->forms.n;
    }
    return rc;
}

/* ---- classes and tags ---- */

xt_build *
xt_build_new(void)
{
    xt_build *build = xc_alloc(sizeof(*build));
    if (build != NULL) {
        memset(build, 0, sizeof(*build));
        build->head.bias = XT_NONE;
    }
    return build;
}

void
xt_build_free(xt_build *build)
{
    if (build == NULL) {
        return;
    }
    list *lists[] = {&build->text,   &build->classes,   &build->forms,  &build->index,   &build->pairs,
                     &build->others, &build->with_tags, &build->labels, &build->weights, &build->row_start};
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
        xc_free(lists[i]->items);
    }
    xc_free(build->tag_rows);
    xc_free(build);
}

static xt_span
class_at(const xt_build *build, uint32_t i)
{
    return text_of(build, ((xt_piece *)build->classes.items)[i]);
}

xc_status
xt_build_class(xt_build *build, xt_span name, xc_err *err)
{
    xt_piece piece;
    if (build->classes.n >= XT_MAX_CLASSES) {
        return xc_failf(err, XC_LIMIT, "tagger model", "more than %u classes", XT_MAX_CLASSES);
    }
    if (build->tag_rows != NULL ||
        (build->classes.n > 0 && xt_span_compare(class_at(build, build->classes.n - 1), name) >= 0)) {
        return xc_fail(err, XC_BAD, 0, "classes out of order");
    }
    xc_status rc = add_text(build, name, &piece, err);
    return rc == XC_OK ? append(&build->classes, &piece, sizeof(piece), err) : rc;
}

uint32_t
xt_build_label(const xt_build *build, xt_span name)
{
    uint32_t low = 0, high = build->classes.n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = xt_span_compare(class_at(build, middle), name);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return XT_NONE;
}

/* The tags with this text: a class, and also a tag from before a sentence if a class has the same name. */
static unsigned
tags_named(const xt_build *build, xt_span name, uint32_t tags[3])
{
    unsigned n = 0;
    uint32_t label = xt_build_label(build, name);
    if (label != XT_NONE) {
        tags[n++] = label;
    }
    for (uint32_t mark = XT_START; mark <= XT_START_2; mark++) {
        if (xt_span_equal(name, xt_mark(mark))) {
            tags[n++] = build->classes.n + mark;
        }
    }
    return n;
}

xc_status
xt_build_only(xt_build *build, xt_span word, uint32_t label, xc_err *err)
{
    uint32_t form;
    if (label >= build->classes.n) {
        return xc_fail(err, XC_BAD, 0, "a word with a class that there is not");
    }
    xc_status rc = add_form(build, word, &form, err);
    if (rc == XC_OK) {
        form_at(build, form)->only = label;
    }
    return rc;
}

/* ---- features ---- */

static xc_status
first_feature(xt_build *build, xc_err *err)
{
    const uint32_t n = 2 * (build->classes.n + 2);
    build->tag_rows = xc_alloc(n * sizeof(uint32_t));
    if (build->tag_rows == NULL) {
        return xc_fail(err, XC_NOMEM, 0, "tagger model");
    }
    for (uint32_t i = 0; i < n; i++) {
        build->tag_rows[i] = XT_NONE;
    }
    return XC_OK;
}

static xc_status
add_pair(xt_build *build, xt_span first, xt_span second, uint32_t row, bool *placed, xc_err *err)
{
    uint32_t firsts[3], seconds[3];
    unsigned n_firsts = tags_named(build, first, firsts);
    unsigned n_seconds = n_firsts > 0 ? tags_named(build, second, seconds) : 0;
    for (unsigned i = 0; i < n_firsts * n_seconds; i++) {
        xt_pair pair = {firsts[i / n_seconds], seconds[i % n_seconds], row};
        xc_status rc = append(&build->pairs, &pair, sizeof(pair), err);
        if (rc != XC_OK) {
            return rc;
        }
        *placed = true;
    }
    return XC_OK;
}

static xc_status
add_with_tag(xt_build *build, xt_span tag, xt_span form, uint32_t row, bool *placed, xc_err *err)
{
    uint32_t tags[3], number;
    unsigned n = tags_named(build, tag, tags);
    for (unsigned i = 0; i < n; i++) {
        xc_status rc = add_form(build, form, &number, err);
        if (rc != XC_OK) {
            return rc;
        }
        with_tag entry = {number, tags[i], row};
        rc = append(&build->with_tags, &entry, sizeof(entry), err);
        if (rc != XC_OK) {
            return rc;
        }
        *placed = true;
    }
    return XC_OK;
}

/* Behind the name of such a feature are two parts; each space may be what separates them. */
static xc_status
place_split(xt_build *build, unsigned slot, xt_span rest, uint32_t row, bool *placed, xc_err *err)
{
    for (size_t i = 0; i < rest.size; i++) {
        if (rest.at[i] != ' ') {
            continue;
        }
        xt_span left = {rest.at, i}, right = {rest.at + i + 1, rest.size - i - 1};
        xc_status rc = slot == XT_WITH_TAG ? add_with_tag(build, left, right, row, placed, err)
                                           : add_pair(build, left, right, row, placed, err);
        if (rc != XC_OK) {
            return rc;
        }
    }
    return XC_OK;
}

static xc_status
place(xt_build *build, unsigned slot, xt_span rest, uint32_t row, bool *placed, xc_err *err)
{
    uint32_t form, tags[3];
    if (slot < XT_SLOTS) {
        xc_status rc = add_form(build, rest, &form, err);
        if (rc == XC_OK) {
            form_at(build, form)->rows[slot] = row;
            *placed = true;
        }
        return rc;
    }
    if (slot == XT_WITH_TAG || slot == XT_TAG_PAIR) {
        return place_split(build, slot, rest, row, placed, err);
    }
    if (slot == XT_BIAS) {
        *placed = rest.size == 0;
        build->head.bias = *placed ? row : build->head.bias;
        return XC_OK;
    }
    unsigned n = tags_named(build, rest, tags);
    for (unsigned i = 0; i < n; i++) {
        build->tag_rows[tags[i] + (slot == XT_TAG_BEFORE_2 ? build->classes.n + 2 : 0)] = row;
        *placed = true;
    }
    return XC_OK;
}

xc_status
xt_build_feature(xt_build *build, xt_span name, xc_err *err)
{
    XC_ASSERT(build->head.size == 0);
    xc_status rc = build->tag_rows == NULL ? first_feature(build, err) : XC_OK;
    const uint32_t row = build->row_start.n;
    bool placed = false;
    for (unsigned slot = 0; slot < XT_FEATURES && rc == XC_OK; slot++) {
        xt_span start = xt_feature_name(slot);
        if (name.size >= start.size && memcmp(name.at, start.at, start.size) == 0) {
            rc = place(build, slot, (xt_span){name.at + start.size, name.size - start.size}, row, &placed, err);
            break; /* no name is the beginning of another one */
        }
    }
    if (rc == XC_OK && !placed) {
        xt_other other = {.row = row};
        rc = add_text(build, name, &other.text, err);
        if (rc == XC_OK) {
            rc = append(&build->others, &other, sizeof(other), err);
        }
    }
    return rc == XC_OK ? append(&build->row_start, &build->weights.n, sizeof(uint32_t), err) : rc;
}

xc_status
xt_build_weight(xt_build *build, uint32_t label, double weight, xc_err *err)
{
    XC_ASSERT(build->head.size == 0);
    uint16_t narrow = (uint16_t)label;
    if (build->row_start.n == 0 || label >= build->classes.n) {
        return xc_fail(err, XC_BAD, 0, "a weight for a class that there is not");
    }
    if (!isfinite(weight)) {
        return xc_fail(err, XC_BAD, 0, "a weight that is not a finite number");
    }
    xc_status rc = append(&build->labels, &narrow, sizeof(narrow), err);
    return rc == XC_OK ? append(&build->weights, &weight, sizeof(weight), err) : rc;
}

/* ---- the block ---- */

static int
compare_with_tags(const void *a, const void *b)
{
    const with_tag *one = a, *other = b;
    if (one->form != other->form) {
        return one->form < other->form ? -1 : 1;
    }
    return (one->tag > other->tag) - (one->tag < other->tag);
}

static int
compare_pairs(const void *a, const void *b)
{
    const xt_pair *one = a, *other = b;
    if (one->before != other->before) {
        return one->before < other->before ? -1 : 1;
    }
    return (one->before_2 > other->before_2) - (one->before_2 < other->before_2);
}

/* Training rounds weights to thousandths, which can be added up as integers, see xt_decide.h. */
static bool
all_milli(const xt_build *build)
{
    const double *weights = build->weights.items;
    for (uint32_t i = 0; i < build->weights.n; i++) {
        double milli = nearbyint(weights[i] * 1000.0);
        if (!(fabs(milli) <= XT_MAX_MILLI) || milli / 1000.0 != weights[i]) {
            return false;
        }
    }
    return true;
}

static void
sort(list *items, size_t size, int (*compare)(const void *, const void *))
{
    if (items->n > 1) {
        qsort(items->items, items->n, size, compare);
    }
}

xc_status
xt_build_finish(xt_build *build, size_t *size, xc_err *err)
{
    XC_ASSERT(build->head.size == 0); /* it is called once */
    xc_status rc = build->tag_rows == NULL ? first_feature(build, err) : XC_OK;
    if (rc == XC_OK && build->index.n == 0) {
        rc = grow_index(build, err);
    }
    if (rc != XC_OK) {
        return rc;
    }
    sort(&build->with_tags, sizeof(with_tag), compare_with_tags);
    sort(&build->pairs, sizeof(xt_pair), compare_pairs);
    const with_tag *entries = build->with_tags.items;
    for (uint32_t i = 0; i < build->with_tags.n; i++) {
        xt_form *form = form_at(build, entries[i].form);
        form->with_tag = form->n_with_tag == 0 ? i : form->with_tag;
        form->n_with_tag++;
    }
    xt_head *head = &build->head;
    memcpy(head->magic, xt_magic, sizeof(xt_magic));
    head->version = XT_VERSION;
    head->byte_order = 0x01020304u;
    head->milli = all_milli(build);
    head->n_classes = build->classes.n;
    head->n_rows = build->row_start.n;
    head->n_weights = build->weights.n;
    head->n_pairs = build->pairs.n;
    head->n_forms = build->forms.n;
    head->n_with_tag = build->with_tags.n;
    head->n_index = build->index.n;
    head->n_others = build->others.n;
    head->n_text = build->text.n;
    uint64_t at[XT_SECTIONS];
    head->size = xt_layout(head, at);
    if (head->size > SIZE_MAX / 2) {
        return xc_fail(err, XC_LIMIT, 0, "a tagger model that is too large");
    }
    *size = (size_t)head->size;
    return XC_OK;
}

static void
copy(unsigned char *to, const list *from, size_t size)
{
    if (from->n > 0) {
        memcpy(to, from->items, from->n * size);
    }
}

static void
write_weights(const xt_build *build, unsigned char *to)
{
    const double *weights = build->weights.items;
    if (!build->head.milli) {
        copy(to, &build->weights, sizeof(double));
        return;
    }
    int32_t *milli = (int32_t *)(void *)to;
    for (uint32_t i = 0; i < build->weights.n; i++) {
        milli[i] = (int32_t)nearbyint(weights[i] * 1000.0);
    }
}

void
xt_build_write(const xt_build *build, void *block)
{
    XC_ASSERT(build->head.size > 0 && (uintptr_t)block % 8 == 0);
    unsigned char *to = block;
    uint64_t at[XT_SECTIONS];
    const xt_head *head = &build->head;
    memset(block, 0, (size_t)xt_layout(head, at));
    memcpy(to, head, sizeof(*head));
    write_weights(build, to + at[1]);
    copy(to + at[2], &build->row_start, sizeof(uint32_t));
    memcpy(to + at[2] + head->n_rows * sizeof(uint32_t), &head->n_weights, sizeof(uint32_t));
    copy(to + at[3], &build->labels, sizeof(uint16_t));
    copy(to + at[4], &build->classes, sizeof(xt_piece));
    memcpy(to + at[5], build->tag_rows, 2 * (head->n_classes + (size_t)2) * sizeof(uint32_t));
    copy(to + at[6], &build->pairs, sizeof(xt_pair));
    copy(to + at[7], &build->forms, sizeof(xt_form));
    const with_tag *entries = build->with_tags.items;
    for (uint32_t i = 0; i < head->n_with_tag; i++) {
        ((uint16_t *)(void *)(to + at[8]))[i] = (uint16_t)entries[i].tag;
        ((uint32_t *)(void *)(to + at[9]))[i] = entries[i].row;
    }
    copy(to + at[10], &build->index, sizeof(uint32_t));
    copy(to + at[11], &build->others, sizeof(xt_other));
    copy(to + at[12], &build->text, 1);
    uint64_t sum = xt_checksum(block, head->size);
    memcpy(to + offsetof(xt_head, checksum), &sum, sizeof(sum));
}
