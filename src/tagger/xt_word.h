/*
 * What a model knows of one word of a text, looked up once: its rows for each place that it can have near the word that
 * is being tagged, and, if weights are thousandths, the sums of these rows.
 *
 * Words are remembered by their text, for all threads of a model. A remembered word never changes and is not moved
 * until it is freed, so reading needs no lock: a slot changes only once, from NULL to a word. Only remembering takes
 * the mutex. When the memory is full other words are looked up each time, until xt_words_enter finds that no thread is
 * inside and forgets all words.
 */
#ifndef XT_WORD_H
#define XT_WORD_H

#include "xt_model.h"

#include "xc_sync.h"

#include <stdatomic.h>

/* The places near the word that is being tagged. */
enum { XT_AT_BEFORE, XT_AT_BEFORE_2, XT_AT_AFTER, XT_AT_AFTER_2, XT_PLACES };

/* The sums for one place: a few pairs of class and sum, or one sum for each lane. */
typedef struct {
    uint32_t at; /* among the word's sums */
    uint32_t n;  /* XT_DENSE, or the number of pairs (class, sum) */
} xt_part;

#define XT_DENSE  UINT32_MAX
#define XT_SPARSE 12 /* pairs at most; for more it is faster to add all lanes */

typedef struct {
    uint32_t hash;
    uint32_t size; /* of its text, which is the first part of `data` if the word is remembered */
    uint32_t id;   /* of no other word while the model lives; XT_NONE: not remembered */
    uint32_t rows[XT_SLOTS];
    uint32_t only;
    uint32_t with_tag, n_with_tag;
    xt_part parts[XT_PLACES];
    uint32_t skip; /* where the sums begin in `data` */
    uint32_t n_sums;
    int32_t data[];
} xt_word;

/* First `lanes` sums for the word itself, bias included, then those of its parts. Only if weights are thousandths. */
static inline const int32_t *
xt_sums(const xt_word *word)
{
    return word->data + word->skip;
}

/* A word of a text, as xtpy_batch.c prepares it. */
typedef struct {
    xt_span raw;
    xt_span normal; /* lower case and so on, if that needs Python; at == NULL: `raw` is ASCII, and is normalized here */
} xt_token;

extern xc_kind xc_words_mu;
XC_MUTEX_KIND(words)

typedef struct xt_words xt_words;

/* The model must outlive it. NULL: no memory. */
xt_words *xt_words_new(const xt_model *model);
/* Takes NULL. */
void xt_words_free(xt_words *words);

/* Call these around each use, on each thread. */
void xt_words_enter(xt_words *words);
void xt_words_leave(xt_words *words);
/* In a forked child, before anything else: forgets what threads of the parent may have been changing. */
void xt_words_after_fork(xt_words *words);

/* The size of the memory for a word that is not remembered. */
size_t xt_word_room(const xt_model *model);
/* The word with this text and xt_hash. `room`, of xt_word_room bytes, is used if the word is not remembered. */
const xt_word *xt_word_of(xt_words *words, const xt_token *token, uint32_t hash, xt_word *room);
/* Prefetch what xt_word_of will read: first the slot of a word, then the word in that slot. */
void xt_words_expect(const xt_words *words, uint32_t hash);
void xt_words_expect_word(const xt_words *words, uint32_t hash);
/* One of the marks around a sentence, in `room`. */
const xt_word *xt_word_of_mark(const xt_model *model, unsigned mark, xt_word *room);

/* The number of remembered words; for tests. */
size_t xt_words_count(xt_words *words);

#endif
