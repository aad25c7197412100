/*
 * Looking words up, and remembering them.
 *
 * A slot is written once, with the mutex held, after its word is complete; the release there and the acquire in known()
 * are all that readers need.
 */
#include "xt_word.h"

#include <stdlib.h>

#define N_SLOTS     (1u << 17)
#define MOST_WORDS  (N_SLOTS / 2)
#define LONGEST     64         /* bytes of a word worth remembering */
#define CHUNK       (1u << 18) /* bytes */
#define MOST_CHUNKS 192
#define MOST_PROBES 64

typedef struct chunk {
    struct chunk *next;
    size_t used;
    _Alignas(16) unsigned char bytes[CHUNK];
} chunk;

struct xt_words {
    const xt_model *model; /* borrowed */
    xc_mutex mu;
    chunk *chunks XC_GUARDED(words); /* owned; the first is being filled */
    size_t n_chunks XC_GUARDED(words);
    size_t n_words XC_GUARDED(words);
    size_t inside XC_GUARDED(words);    /* threads that may be reading */
    uint32_t next_id XC_GUARDED(words); /* never starts again */
    bool full XC_GUARDED(words);
    atomic_bool is_full;
    _Atomic(xt_word *) slots[N_SLOTS]; /* NULL, or a word of ours; changes once */
};

/* ---- looking up ---- */

static bool
is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* NLTK's normal form of a word in ASCII. `lower` has room for the model's longest form; a longer word is no form, and
 * only its end matters. */
static xt_span
normal_form(const xt_model *model, xt_span raw, unsigned char *lower)
{
    static const unsigned char hyphen[] = "!HYPHEN", year[] = "!YEAR", digits[] = "!DIGITS";
    if (raw.size == 0) {
        return raw;
    }
    if (raw.at[0] != '-' && memchr(raw.at, '-', raw.size) != NULL) {
        return (xt_span){hyphen, sizeof(hyphen) - 1};
    }
    if (is_digit(raw.at[0])) {
        bool four = raw.size == 4 && is_digit(raw.at[1]) && is_digit(raw.at[2]) && is_digit(raw.at[3]);
        return four ? (xt_span){year, sizeof(year) - 1} : (xt_span){digits, sizeof(digits) - 1};
    }
    size_t room = model->longest + (size_t)4, n = raw.size < room ? raw.size : room;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = raw.at[raw.size - n + i];
        lower[i] = c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
    }
    return (xt_span){lower, n};
}

static void
find_rows(const xt_model *model, const xt_token *token, xt_word *word, unsigned char *lower)
{
    bool whole = token->normal.at == NULL;
    xt_span normal = whole ? normal_form(model, token->raw, lower) : token->normal;
    const xt_form *raw = xt_find(model, token->raw), *form = xt_find(model, normal);
    const xt_form *suffix = xt_find(model, xt_last_three(token->raw)), *first = xt_find(model, xt_first(token->raw));
    const xt_form *suffix_there = xt_find(model, xt_last_three(normal));
    for (int slot = 0; slot < XT_SLOTS; slot++) {
        const xt_form *from = slot == XT_SUFFIX                                     ? suffix
                              : slot == XT_PREFIX                                   ? first
                              : slot == XT_BEFORE_SUFFIX || slot == XT_AFTER_SUFFIX ? suffix_there
                                                                                    : form;
        word->rows[slot] = from != NULL ? from->rows[slot] : XT_NONE;
    }
    word->only = raw != NULL ? raw->only : XT_NONE;
    if (word->only != XT_NONE && model->classes[word->only].size == 0) {
        word->only = XT_NONE; /* NLTK treats an empty tag as no tag */
    }
    word->with_tag = form != NULL ? form->with_tag : 0;
    word->n_with_tag = form != NULL ? form->n_with_tag : 0;
}

/* ---- adding up ---- */

/* Appends the sums of a place that has one or two rows. */
static void
add_part(const xt_model *model, xt_word *word, unsigned place, uint32_t row, uint32_t other)
{
    uint32_t n = (row != XT_NONE ? xt_row_size(model, row) : 0) + (other != XT_NONE ? xt_row_size(model, other) : 0);
    int32_t *sums = word->data + word->n_sums;
    xt_part *part = &word->parts[place];
    part->at = word->n_sums;
    if (n <= XT_SPARSE && 2 * n <= model->lanes) {
        part->n = n;
        const uint32_t rows[2] = {row, other};
        for (int i = 0; i < 2; i++) {
            for (uint32_t at = rows[i] == XT_NONE ? 0 : model->row_start[rows[i]];
                 rows[i] != XT_NONE && at < model->row_start[rows[i] + 1]; at++) {
                *sums++ = model->labels[at];
                *sums++ = model->milli[at];
            }
        }
        word->n_sums += (2 * n + XT_LANES - 1) / XT_LANES * XT_LANES;
        return;
    }
    part->n = XT_DENSE;
    memset(sums, 0, model->lanes * sizeof(*sums));
    xt_add_row(model, row, sums);
    xt_add_row(model, other, sums);
    word->n_sums += model->lanes;
}

static void
add_up(const xt_model *model, xt_word *word)
{
    const uint32_t *rows = word->rows;
    word->skip = word->n_sums = 0;
    memset(word->parts, 0, sizeof(word->parts));
    if (model->milli == NULL) {
        return;
    }
    memcpy(word->data, model->bias_sums, model->lanes * sizeof(int32_t));
    xt_add_row(model, rows[XT_SUFFIX], word->data);
    xt_add_row(model, rows[XT_PREFIX], word->data);
    xt_add_row(model, rows[XT_WORD], word->data);
    word->n_sums = model->lanes;
    add_part(model, word, XT_AT_BEFORE, rows[XT_BEFORE], rows[XT_BEFORE_SUFFIX]);
    add_part(model, word, XT_AT_BEFORE_2, rows[XT_BEFORE_2], XT_NONE);
    add_part(model, word, XT_AT_AFTER, rows[XT_AFTER], rows[XT_AFTER_SUFFIX]);
    add_part(model, word, XT_AT_AFTER_2, rows[XT_AFTER_2], XT_NONE);
}

/* The sums; before them, the lower case of the word is in the same memory. */
size_t
xt_word_room(const xt_model *model)
{
    size_t sums = (XT_PLACES + 1) * (size_t)model->lanes * sizeof(int32_t);
    size_t lower = model->longest + (size_t)4;
    return sizeof(xt_word) + (sums > lower ? sums : lower);
}

static void
look_up(const xt_model *model, const xt_token *token, xt_word *room)
{
    room->id = XT_NONE;
    find_rows(model, token, room, (unsigned char *)room->data);
    add_up(model, room);
}

const xt_word *
xt_word_of_mark(const xt_model *model, unsigned mark, xt_word *room)
{
    look_up(model, &(xt_token){xt_mark(mark), xt_mark(mark)}, room);
    room->only = XT_NONE;
    return room;
}

/* ---- remembering ---- */

xt_words *
xt_words_new(const xt_model *model)
{
    xt_words *words = xc_alloc(sizeof(*words));
    if (words != NULL) {
        memset(words, 0, sizeof(*words));
        words->model = model;
        xc_mutex_init(&words->mu);
    }
    return words;
}

static void
forget_all(xt_words *words) XC_NEEDS(words)
{
    for (size_t i = 0; i < N_SLOTS; i++) {
        atomic_store_explicit(&words->slots[i], NULL, memory_order_relaxed);
    }
    while (words->chunks != NULL) {
        chunk *next = words->chunks->next;
        xc_free(words->chunks);
        words->chunks = next;
    }
    words->n_chunks = words->n_words = 0;
    words->full = false;
    atomic_store_explicit(&words->is_full, false, memory_order_relaxed);
}

void
xt_words_free(xt_words *words)
{
    if (words != NULL) {
        XC_ALONE(words);
        XC_ASSERT(words->inside == 0);
        forget_all(words);
        xc_mutex_fini(&words->mu);
        xc_free(words);
    }
}

void
xt_words_after_fork(xt_words *words)
{
    XC_ALONE(words);
    xc_mutex_init(&words->mu);
    words->inside = 0;
    /* Another thread may have been changing this list, so it cannot be walked: the child never frees its chunks. */
    words->chunks = NULL;
    forget_all(words);
}

void
xt_words_enter(xt_words *words)
{
    xc_lock_words(&words->mu);
    if (words->full && words->inside == 0) {
        forget_all(words);
    }
    words->inside++;
    xc_unlock_words(&words->mu);
}

void
xt_words_leave(xt_words *words)
{
    xc_lock_words(&words->mu);
    XC_ASSERT(words->inside > 0);
    words->inside--;
    xc_unlock_words(&words->mu);
}

size_t
xt_words_count(xt_words *words)
{
    xc_lock_words(&words->mu);
    size_t n = words->n_words;
    xc_unlock_words(&words->mu);
    return n;
}

/* The word with this text, searched from slot *at on. NULL: unknown, and *at is the first free slot, or N_SLOTS if that
 * is too far away. */
static const xt_word *
known(const xt_words *words, xt_span raw, uint32_t hash, uint32_t *at)
{
    for (uint32_t probes = 0, i = *at; probes < MOST_PROBES; probes++, i = (i + 1) & (N_SLOTS - 1)) {
        const xt_word *word = atomic_load_explicit(&words->slots[i], memory_order_acquire);
        if (word == NULL) {
            *at = i;
            return NULL;
        }
        if (word->hash == hash && word->size == raw.size &&
            xt_same_bytes((const unsigned char *)word->data, raw.at, raw.size)) {
            return word;
        }
    }
    *at = N_SLOTS;
    return NULL;
}

static xt_word *
take_room(xt_words *words, size_t size) XC_NEEDS(words)
{
    size = (size + 15) & ~(size_t)15;
    if (words->chunks == NULL || words->chunks->used + size > CHUNK) {
        chunk *more = words->n_chunks < MOST_CHUNKS ? xc_alloc(sizeof(*more)) : NULL;
        if (more == NULL) {
            return NULL;
        }
        more->next = words->chunks;
        more->used = 0;
        words->chunks = more;
        words->n_chunks++;
    }
    void *place = words->chunks->bytes + words->chunks->used;
    words->chunks->used += size;
    return place;
}

/* Keeps a copy of `word`, which has this text, unless another thread has done so. Returns the kept one, or `word`
 * itself if there is no room. */
static const xt_word *
remember(xt_words *words, xt_span raw, const xt_word *word, uint32_t at)
{
    const uint32_t skip = (uint32_t)(raw.size + sizeof(int32_t) - 1) / sizeof(int32_t);
    const size_t sums = word->n_sums * sizeof(int32_t);
    if (sums > CHUNK / 8) {
        return word;
    }
    xc_lock_words(&words->mu);
    XC_ASSERT(words->inside > 0);
    const xt_word *kept = known(words, raw, word->hash, &at);
    if (kept == NULL && at < N_SLOTS) {
        size_t size = sizeof(*word) + skip * sizeof(int32_t) + sums;
        bool room = words->n_words < MOST_WORDS && words->next_id < XT_NONE;
        xt_word *copy = room ? take_room(words, size) : NULL;
        if (copy != NULL) {
            memcpy(copy, word, sizeof(*word));
            memcpy(copy->data, raw.at, raw.size);
            memcpy(copy->data + skip, word->data, sums);
            copy->skip = skip;
            copy->id = words->next_id++;
            atomic_store_explicit(&words->slots[at], copy, memory_order_release);
            words->n_words++;
            kept = copy;
        }
        else {
            words->full = true;
            atomic_store_explicit(&words->is_full, true, memory_order_relaxed);
        }
    }
    xc_unlock_words(&words->mu);
    return kept != NULL ? kept : word;
}

#define LINE 64

void
xt_words_expect(const xt_words *words, uint32_t hash)
{
    __builtin_prefetch(&words->slots[hash & (N_SLOTS - 1)]);
}

void
xt_words_expect_word(const xt_words *words, uint32_t hash)
{
    const xt_word *word = atomic_load_explicit(&words->slots[hash & (N_SLOTS - 1)], memory_order_relaxed);
    for (int i = 0; word != NULL && i < 6; i++) {
        __builtin_prefetch((const unsigned char *)word + LINE * i);
    }
}

const xt_word *
xt_word_of(xt_words *words, const xt_token *token, uint32_t hash, xt_word *room)
{
    XC_ASSERT(hash == xt_hash(token->raw.at, token->raw.size));
    uint32_t at = hash & (N_SLOTS - 1);
    const xt_word *word = token->raw.size <= LONGEST ? known(words, token->raw, hash, &at) : NULL;
    if (word != NULL) {
        return word;
    }
    look_up(words->model, token, room);
    room->hash = hash;
    room->size = (uint32_t)token->raw.size;
    bool worth_it =
        token->raw.size <= LONGEST && at < N_SLOTS && !atomic_load_explicit(&words->is_full, memory_order_relaxed);
    return worth_it ? remember(words, token->raw, room, at) : room;
}
