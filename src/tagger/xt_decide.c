/*
 * A window of five words moves over the sentence; each word is looked up once, two places before it is tagged.
 */
#include "xt_decide.h"

#define WINDOW 5
#define AHEAD  8 /* so many words ahead the memory of a word is prefetched; a power of two, more than two */

/* Four lanes, at an address that need not be aligned. */
typedef int32_t lanes4 __attribute__((vector_size(16), aligned(4), may_alias));

struct xt_scratch {
    const xt_model *model; /* borrowed */
    unsigned char *rooms;  /* owned: WINDOW words that are not remembered, then XT_MARKS marks */
    size_t room;           /* the size of one of them */
    const xt_word *marks[XT_MARKS];
    uint32_t hashes[AHEAD];
    size_t n_hashed; /* the words of the task before this one have been hashed */
    int32_t *sums;   /* owned: lanes */
    double *scores;  /* owned: n_classes */
    uint32_t *order; /* owned: classes in the order in which rows name them */
    uint64_t ties;
};

xt_scratch *
xt_scratch_new(const xt_model *model)
{
    xt_scratch *scratch = xc_alloc(sizeof(*scratch));
    if (scratch == NULL) {
        return NULL;
    }
    memset(scratch, 0, sizeof(*scratch));
    scratch->model = model;
    scratch->room = (xt_word_room(model) + 15) & ~(size_t)15;
    scratch->rooms = xc_alloc((WINDOW + XT_MARKS) * scratch->room);
    scratch->sums = xc_alloc(model->lanes * sizeof(int32_t));
    scratch->scores = xc_alloc(model->head->n_classes * sizeof(double));
    scratch->order = xc_alloc(model->head->n_classes * sizeof(uint32_t));
    if (scratch->rooms == NULL || scratch->sums == NULL || scratch->scores == NULL || scratch->order == NULL) {
        xt_scratch_free(scratch);
        return NULL;
    }
    for (unsigned mark = 0; mark < XT_MARKS; mark++) {
        void *room = scratch->rooms + (WINDOW + mark) * scratch->room;
        scratch->marks[mark] = xt_word_of_mark(model, mark, room);
    }
    return scratch;
}

void
xt_scratch_free(xt_scratch *scratch)
{
    if (scratch != NULL) {
        xc_free(scratch->rooms);
        xc_free(scratch->sums);
        xc_free(scratch->scores);
        xc_free(scratch->order);
        xc_free(scratch);
    }
}

uint64_t
xt_scratch_ties(const xt_scratch *scratch)
{
    return scratch->ties;
}

/* ---- one decision ---- */

/* All that a decision depends on. */
typedef struct {
    const xt_word *before_2, *before, *word, *after, *after_2;
    uint32_t tag, tag_2; /* of the two words before */
} scene;

static inline void
add_lanes(int32_t *restrict sums, const int32_t *restrict more, uint32_t lanes)
{
    for (uint32_t i = 0; i < lanes; i += XT_LANES) {
        *(lanes4 *)(sums + i) += *(const lanes4 *)(more + i);
    }
}

static inline void
add_part(int32_t *sums, const xt_word *word, unsigned place, uint32_t lanes)
{
    const xt_part *part = &word->parts[place];
    const int32_t *more = xt_sums(word) + part->at;
    if (part->n == XT_DENSE) {
        add_lanes(sums, more, lanes);
        return;
    }
    for (uint32_t i = 0; i < part->n; i++) {
        sums[more[2 * i]] += more[2 * i + 1];
    }
}

/* The class with the highest sum; *level: another class has the same sum. */
static inline uint32_t
highest(const int32_t *sums, uint32_t lanes, bool *level)
{
    lanes4 most = *(const lanes4 *)sums;
    for (uint32_t i = XT_LANES; i < lanes; i += XT_LANES) {
        lanes4 next = *(const lanes4 *)(sums + i), more = next > most;
        most = (next & more) | (most & ~more);
    }
    int32_t a = most[0] > most[1] ? most[0] : most[1], b = most[2] > most[3] ? most[2] : most[3];
    int32_t top = a > b ? a : b;
    lanes4 at = {0, 1, 2, 3}, found = {0, 0, 0, 0}, count = {0, 0, 0, 0};
    const lanes4 tops = {top, top, top, top}, step = {XT_LANES, XT_LANES, XT_LANES, XT_LANES};
    for (uint32_t i = 0; i < lanes; i += XT_LANES, at += step) {
        lanes4 is_top = *(const lanes4 *)(sums + i) == tops;
        found |= at & is_top;
        count -= is_top;
    }
    *level = count[0] + count[1] + count[2] + count[3] != 1;
    return (uint32_t)(found[0] | found[1] | found[2] | found[3]);
}

/* The rows in NLTK's order. */
enum { N_ROWS = 14 };

static void
rows_of(const xt_model *model, const scene *at, uint32_t rows[N_ROWS])
{
    const uint32_t *word = at->word->rows;
    rows[0] = model->head->bias;
    rows[1] = word[XT_SUFFIX];
    rows[2] = word[XT_PREFIX];
    rows[3] = model->tag_rows[at->tag];
    rows[4] = model->tag_rows[model->n_tags + at->tag_2];
    rows[5] = xt_pair_row(model, at->tag, at->tag_2);
    rows[6] = word[XT_WORD];
    rows[7] = xt_with_tag_row(model, at->word->with_tag, at->word->n_with_tag, at->tag);
    rows[8] = at->before->rows[XT_BEFORE];
    rows[9] = at->before->rows[XT_BEFORE_SUFFIX];
    rows[10] = at->before_2->rows[XT_BEFORE_2];
    rows[11] = at->after->rows[XT_AFTER];
    rows[12] = at->after->rows[XT_AFTER_SUFFIX];
    rows[13] = at->after_2->rows[XT_AFTER_2];
}

static uint32_t
decide_in_doubles(xt_scratch *scratch, const scene *at)
{
    const xt_model *model = scratch->model;
    const uint32_t n = model->head->n_classes;
    uint32_t rows[N_ROWS], best = 0;
    double *scores = scratch->scores;
    rows_of(model, at, rows);
    memset(scores, 0, n * sizeof(*scores));
    for (int i = 0; i < N_ROWS; i++) {
        for (uint32_t k = rows[i] == XT_NONE ? 0 : model->row_start[rows[i]];
             rows[i] != XT_NONE && k < model->row_start[rows[i] + 1]; k++) {
            scores[model->labels[k]] += xt_weight(model, k);
        }
    }
    for (uint32_t i = 1; i < n; i++) {
        best = scores[i] >= scores[best] ? i : best;
    }
    return best;
}

static inline uint32_t
decide(xt_scratch *scratch, const scene *at)
{
    const xt_model *model = scratch->model;
    if (model->milli == NULL) {
        return decide_in_doubles(scratch, at);
    }
    const uint32_t lanes = model->lanes;
    int32_t *sums = scratch->sums;
    if (model->tag_sums != NULL) {
        const int32_t *tags = model->tag_sums + (at->tag * (size_t)model->n_tags + at->tag_2) * lanes;
        for (uint32_t i = 0; i < lanes; i += XT_LANES) {
            *(lanes4 *)(sums + i) = *(const lanes4 *)(xt_sums(at->word) + i) + *(const lanes4 *)(tags + i);
        }
    }
    else {
        memcpy(sums, xt_sums(at->word), lanes * sizeof(*sums));
        xt_add_row(model, model->tag_rows[at->tag], sums);
        xt_add_row(model, model->tag_rows[model->n_tags + at->tag_2], sums);
        xt_add_row(model, xt_pair_row(model, at->tag, at->tag_2), sums);
    }
    add_part(sums, at->before, XT_AT_BEFORE, lanes);
    add_part(sums, at->before_2, XT_AT_BEFORE_2, lanes);
    add_part(sums, at->after, XT_AT_AFTER, lanes);
    add_part(sums, at->after_2, XT_AT_AFTER_2, lanes);
    xt_add_row(model, xt_with_tag_row(model, at->word->with_tag, at->word->n_with_tag, at->tag), sums);
    bool level;
    uint32_t best = highest(sums, lanes, &level);
    if (level) {
        scratch->ties++;
        best = decide_in_doubles(scratch, at);
    }
    return best;
}

/* The sums in the order in which NLTK's softmax gets them: as rows name their classes, then the classes that no row
 * names. */
static uint32_t
decide_with_sums(xt_scratch *scratch, const scene *at, double *sums)
{
    const xt_model *model = scratch->model;
    const uint32_t n = model->head->n_classes;
    uint32_t rows[N_ROWS], *order = scratch->order, n_named = 0;
    uint32_t best = decide_in_doubles(scratch, at);
    rows_of(model, at, rows);
    for (int i = 0; i < N_ROWS; i++) {
        for (uint32_t k = rows[i] == XT_NONE ? 0 : model->row_start[rows[i]];
             rows[i] != XT_NONE && k < model->row_start[rows[i] + 1]; k++) {
            uint32_t label = model->labels[k], j = 0;
            while (j < n_named && order[j] != label) {
                j++;
            }
            if (j == n_named) {
                order[n_named++] = label;
            }
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        sums[i] = i < n_named ? scratch->scores[order[i]] : 0.0;
    }
    return best;
}

/* ---- a sentence ---- */

void
xt_scratch_begin(xt_scratch *scratch, size_t start)
{
    scratch->n_hashed = start;
}

/* Word number i of the task. Sentences follow each other, so it prefetches beyond the end of this one. */
static const xt_word *
word_at(xt_scratch *scratch, xt_words *words, const xt_task *task, size_t i)
{
    const xt_place *place = &task->places[i];
    const size_t known = i + AHEAD < task->n_words ? i + AHEAD : task->n_words;
    for (size_t *n = &scratch->n_hashed; *n < known; ++*n) {
        const xt_place *next = &task->places[*n];
        uint32_t hash = xt_hash(task->text + next->at, next->size & XT_LONGEST_WORD);
        scratch->hashes[*n % AHEAD] = hash;
        xt_words_expect(words, hash);
    }
    if (i + AHEAD / 2 < task->n_words) {
        xt_words_expect_word(words, scratch->hashes[(i + AHEAD / 2) % AHEAD]);
    }
    xt_token token = {{task->text + place->at, place->size & XT_LONGEST_WORD}, {NULL, 0}};
    if (place->size & XT_HAS_NORMAL) {
        uint32_t size;
        memcpy(&size, token.raw.at + token.raw.size, sizeof(size));
        token.normal = (xt_span){token.raw.at + token.raw.size + sizeof(size), size};
    }
    void *room = scratch->rooms + i % WINDOW * scratch->room;
    return xt_word_of(words, &token, scratch->hashes[i % AHEAD], room);
}

static inline void
tag(xt_scratch *scratch, xt_words *words, const xt_task *task, size_t start, size_t end, double *sums, bool *counted)
{
    const xt_word *const *marks = scratch->marks;
    const uint32_t n_classes = scratch->model->head->n_classes;
    scene at = {.before = marks[XT_START], .word = marks[XT_START_2], .tag = n_classes, .tag_2 = n_classes + 1};
    at.after = start < end ? word_at(scratch, words, task, start) : NULL;
    at.after_2 = start + 1 < end ? word_at(scratch, words, task, start + 1) : marks[XT_END];
    for (size_t i = start; i < end; i++) {
        at.before_2 = at.before;
        at.before = at.word;
        at.word = at.after;
        at.after = at.after_2;
        at.after_2 = i + 2 < end ? word_at(scratch, words, task, i + 2) : marks[XT_END + (i + 2 - end)];
        uint32_t label;
        bool known = task->use_only && at.word->only != XT_NONE;
        if (known) {
            label = at.word->only;
        }
        else {
            label = sums != NULL ? decide_with_sums(scratch, &at, sums + i * n_classes) : decide(scratch, &at);
        }
        if (counted != NULL) {
            counted[i] = !known;
        }
        task->labels[i] = (uint16_t)label;
        task->ids[i] = at.word->id;
        at.tag_2 = at.tag;
        at.tag = label;
    }
}

void
xt_tag(xt_scratch *scratch, xt_words *words, const xt_task *task, size_t start, size_t end)
{
    XC_ASSERT(start <= end && end <= task->n_words);
    XC_ASSERT(scratch->n_hashed >= start && scratch->n_hashed - start <= AHEAD); /* else xt_scratch_begin is missing */
    XC_ASSERT(scratch->model->head->n_classes > 0);
    tag(scratch, words, task, start, end, NULL, NULL);
}

void
xt_tag_with_sums(xt_scratch *scratch, xt_words *words, const xt_task *task, double *sums, bool *counted)
{
    XC_ASSERT(scratch->model->head->n_classes > 0);
    memset(sums, 0, task->n_words * scratch->model->head->n_classes * sizeof(*sums));
    xt_scratch_begin(scratch, 0);
    tag(scratch, words, task, 0, task->n_words, sums, counted);
}
