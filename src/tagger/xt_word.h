/*
 * What a model knows of one word of a text, looked up once: its rows at each of the places it can have beside the word
 * being tagged, and, where weights are thousandths, what these rows add up to.
 *
 * Words are remembered by their text, for all threads of a model. A remembered word never changes and stays where it
 * is until xt_words_free, so reading takes no lock: a slot goes from NULL to a word once. Only remembering takes the
 * mutex. When the memory is full, further words are looked up each time, until xt_words_enter finds nobody else inside
 * and begins anew.
 */
#ifndef XT_WORD_H
#define XT_WORD_H

#include "xt_model.h"

#include "xc_sync.h"

#include <stdatomic.h>

/* The places beside the word being tagged. */
enum { XT_AT_BEFORE, XT_AT_BEFORE_2, XT_AT_AFTER, XT_AT_AFTER_2, XT_PLACES };

/* The sums of one place: few, with their classes, or one for each lane. */
typedef struct {
    uint32_t at; /* among the word's sums */
    uint32_t n;  /* XT_DENSE, or how many (class, sum) */
} xt_part;

#define XT_DENSE  UINT32_MAX
#define XT_SPARSE 12 /* at most; beyond, adding all lanes is the quicker way */

typedef struct {
    uint32_t hash;
    uint32_t size; /* of its text, which stands first in the data of a word that is remembered */
    uint32_t id;   /* no other word ever has it, in this model's lifetime; XT_NONE: not remembered */
    uint32_t rows[XT_SLOTS];
    uint32_t only;
    uint32_t with_tag, n_with_tag;
    xt_part parts[XT_PLACES];
    uint32_t skip; /* where the sums stand in the data */
    uint32_t n_sums;
    int32_t data[];
} xt_word;

/* First `lanes` for the word itself, bias included, then the parts'; only if the weights are thousandths. */
static inline const int32_t *
xt_sums(const xt_word *word)
{
    return word->data + word->skip;
}

/* A word of a text, as the other side of the fence has prepared it. */
typedef struct {
    xt_span raw;
    xt_span normal; /* lower case and so on, where that takes Python; at == NULL: raw is ASCII, to be normalised here */
} xt_token;

typedef struct xt_words xt_words;

/* The model must outlive it. NULL: no memory. */
xt_words *xt_words_new(const xt_model *model);
/* Takes NULL. */
void xt_words_free(xt_words *words);

/* Around each use, on each thread. */
void xt_words_enter(xt_words *words);
void xt_words_leave(xt_words *words);
/* In the child after a fork, before anything else: what other threads of the parent did there is undone. */
void xt_words_after_fork(xt_words *words);

/* How large a place for a word that is not remembered must be. */
size_t xt_word_room(const xt_model *model);
/* The word with this text and xt_hash; `room`, of xt_word_room bytes, may come to hold it. */
const xt_word *xt_word_of(xt_words *words, const xt_token *token, uint32_t hash, xt_word *room);
/* Memory is far away: say early what will be looked at, first where a word stands, then the word that stands there. */
void xt_words_expect(const xt_words *words, uint32_t hash);
void xt_words_expect_word(const xt_words *words, uint32_t hash);
/* One of the marks around a sentence, in `room`. */
const xt_word *xt_word_of_mark(const xt_model *model, unsigned mark, xt_word *room);

/* How many are remembered; for tests. */
size_t xt_words_count(xt_words *words);

#endif
