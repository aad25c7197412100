/*
 * Tagging: which class each word of a sentence gets.
 *
 * NLTK adds up the weights of a word's features as doubles, in the order of the features, and takes the class with the
 * highest sum, of equals the last one. Sums of doubles depend on their order. Sums of thousandths as integers do not,
 * so they may be put together from parts made beforehand; and a class that is ahead by at least one thousandth there is
 * ahead in doubles, too, as the rounding of fifteen additions is smaller by many orders. Where two classes are level in
 * thousandths the doubles decide, added up as NLTK does.
 */
#ifndef XT_DECIDE_H
#define XT_DECIDE_H

#include "xt_word.h"

/* What one thread needs beside the model; nothing of it is shared. */
typedef struct xt_scratch xt_scratch;

/* NULL: no memory. The model must outlive it. */
xt_scratch *xt_scratch_new(const xt_model *model);
/* Takes NULL. */
void xt_scratch_free(xt_scratch *scratch);

/* The words of a text, each followed by its normal form if it has XT_HAS_NORMAL: its size as uint32_t, and the bytes.
 */
typedef struct {
    uint32_t at;   /* in the text */
    uint32_t size; /* and XT_HAS_NORMAL */
} xt_place;

#define XT_HAS_NORMAL   0x80000000u
#define XT_LONGEST_WORD 0x7FFFFFFFu

/* Some words of a text, of which one sentence after the other is to be tagged. */
typedef struct {
    const unsigned char *text;
    const xt_place *places;
    size_t n_words;
    bool use_only;
    uint16_t *labels; /* beside the places: written */
    uint32_t *ids;    /* likewise: the ids of the words, see xt_word */
} xt_task;

/* Before the first one of some sentences in a row, which begins at word `start`. */
void xt_scratch_begin(xt_scratch *scratch, size_t start);

/*
 * Tags the words from `start` to `end` as one sentence. The model has at least one class. `words` belongs to the model
 * and has been entered. Cannot fail, never sleeps but for a word's memory.
 */
void xt_tag(xt_scratch *scratch, xt_words *words, const xt_task *task, size_t start, size_t end);

/*
 * The same for all of a task as one sentence, with the sums that decide: for each word n_classes doubles, in the order
 * in which NLTK's dict of scores has them. counted[i] is false for a word that its form alone has decided; its sums are
 * zeros.
 */
void xt_tag_with_sums(xt_scratch *scratch, xt_words *words, const xt_task *task, double *sums, bool *counted);

/* How often doubles had to decide since the scratch was made; for tests. */
uint64_t xt_scratch_ties(const xt_scratch *scratch);

#endif
