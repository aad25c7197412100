/*
 * Tagging: which class each word of a sentence gets.
 *
 * NLTK adds up the weights of a word's features as doubles, in the order of the features, and takes the class with the
 * highest sum; of equal ones the last. A sum of doubles depends on the order of its terms. A sum of whole thousandths,
 * as integers, does not, so it can be made from partial sums that were computed before. A class that leads by at least
 * one thousandth leads in doubles, too, because the rounding of fifteen additions is smaller by far. Where two classes
 * are equal in thousandths, doubles decide, added up as NLTK does it.
 */
#ifndef XT_DECIDE_H
#define XT_DECIDE_H

#include "xt_word.h"

/* What one thread needs besides the model; no other thread uses it. */
typedef struct xt_scratch xt_scratch;

/* NULL: no memory. The model must outlive it. */
xt_scratch *xt_scratch_new(const xt_model *model);
/* Takes NULL. */
void xt_scratch_free(xt_scratch *scratch);

/* The place of a word in a text. If `size` has XT_HAS_NORMAL the word is followed by its normal form: the size of that
 * as uint32_t, then its bytes. */
typedef struct {
    uint32_t at;   /* in the text */
    uint32_t size; /* bytes; and the flag XT_HAS_NORMAL */
} xt_place;

#define XT_HAS_NORMAL   0x80000000u
#define XT_LONGEST_WORD 0x7FFFFFFFu

/* Words of a text; sentences of them are tagged one after the other. */
typedef struct {
    const unsigned char *text;
    const xt_place *places;
    size_t n_words;
    bool use_only;
    uint16_t *labels; /* one for each word: written by xt_tag */
    uint32_t *ids;    /* likewise: the ids of the words, see xt_word.h */
} xt_task;

/* Call it before the first of some sentences that follow each other; the first begins at word `start`. */
void xt_scratch_begin(xt_scratch *scratch, size_t start);

/* Tags the words from `start` to `end` as one sentence. The model must have a class. `words` must belong to the model,
 * and the caller has called xt_words_enter. Cannot fail; never sleeps, except for the mutex of `words`. */
void xt_tag(xt_scratch *scratch, xt_words *words, const xt_task *task, size_t start, size_t end);

/* Tags all words of a task as one sentence, and gives the sums that decided: n_classes doubles for each word, in the
 * order of NLTK's dict of scores. counted[i] is false for a word whose form alone decided; its sums are zeros. */
void xt_tag_with_sums(xt_scratch *scratch, xt_words *words, const xt_task *task, double *sums, bool *counted);

/* How often doubles had to decide; for tests. */
uint64_t xt_scratch_ties(const xt_scratch *scratch);

#endif
