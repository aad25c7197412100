/*
 * A trained tagger in one read-only block of bytes: features, weights, classes, and the words that have only one tag.
 *
 * The block has no pointers, so it can be stored, sent and shared as it is; xt_model is a view of a block. A view
 * exists only after each count, offset and index in the block was found to be in range, so all other code reads them
 * without a check.
 *
 * A feature of NLTK is a text such as "i-1 tag+i word DT dog". Here it is a row of (class, weight), and the number of
 * the row stands at what the text was made of: in a form (a word, a suffix, a first character), with a tag, with two
 * tags, or with a tag and a form.
 */
#ifndef XT_MODEL_H
#define XT_MODEL_H

#include "xt_text.h"

#include "xc_base.h"

#define XT_NONE        UINT32_MAX
#define XT_VERSION     1
#define XT_MAX_CLASSES 0xFFF0u
#define XT_MAX_COUNT   0x0FFFFFFFu
#define XT_LANES       4
#define XT_MAX_MILLI   (1 << 27) /* fifteen of them fit into an int32_t */

/* Rows that depend on one form, in the order in which NLTK adds them up. */
enum {
    XT_SUFFIX,
    XT_PREFIX,
    XT_WORD,
    XT_BEFORE,
    XT_BEFORE_SUFFIX,
    XT_BEFORE_2,
    XT_AFTER,
    XT_AFTER_SUFFIX,
    XT_AFTER_2,
    XT_SLOTS
};

typedef struct {
    uint32_t at, size; /* in the block's text */
} xt_piece;

typedef struct {
    xt_piece text;
    uint32_t rows[XT_SLOTS]; /* XT_NONE: no such feature */
    uint32_t only;           /* the class this word always has, or XT_NONE */
    uint32_t with_tag;       /* its first entry in with_tags and with_rows */
    uint32_t n_with_tag;
} xt_form;

typedef struct {
    uint32_t before, before_2; /* tags */
    uint32_t row;
} xt_pair;

typedef struct {
    uint32_t row;
    xt_piece text;
} xt_other;

/* At the block's start. The sections follow in the order of xt_model's pointers, each at a multiple of 8. */
typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t byte_order; /* 0x01020304 */
    uint64_t size;
    uint64_t checksum; /* of all that follows it */
    uint32_t milli;    /* true: weights are int32_t thousandths, else double */
    uint32_t n_classes;
    uint32_t n_rows;
    uint32_t n_weights;
    uint32_t n_pairs;
    uint32_t n_forms;
    uint32_t n_with_tag;
    uint32_t n_index; /* a power of two */
    uint32_t n_others;
    uint32_t n_text;
    uint32_t bias; /* row, or XT_NONE */
    uint32_t reserved;
} xt_head;

typedef struct {
    const xt_head *head; /* borrowed, like all fields down to `text`: valid as long as the block */
    const double *weights;
    const int32_t *milli;      /* either this or `weights`; the other is NULL */
    const uint32_t *row_start; /* n_rows + 1 */
    const uint16_t *labels;    /* one for each weight */
    const xt_piece *classes;   /* in the order of code points */
    const uint32_t *tag_rows;  /* n_tags for the tag before, then n_tags for the tag before that */
    const xt_pair *pairs;      /* sorted */
    const xt_form *forms;
    const uint16_t *with_tags; /* sorted within each form */
    const uint32_t *with_rows;
    const uint32_t *index;  /* form number + 1, or 0; open addressing by xt_hash */
    const xt_other *others; /* features that no word can have */
    const unsigned char *text;

    uint32_t n_tags;    /* the classes, and the two tags before a sentence */
    uint32_t lanes;     /* n_classes, rounded up to a multiple of XT_LANES */
    uint32_t longest;   /* the longest form, in bytes */
    int32_t *bias_sums; /* owned: `lanes` sums; those behind n_classes are INT32_MIN. NULL unless milli */
    int32_t *tag_sums;  /* owned: `lanes` for each (before, before_2). NULL unless milli, or if too large */
} xt_model;

/* A view of a block whose address is a multiple of 8. XC_BAD: it is no block, or incomplete, damaged, of another
 * version or byte order; XC_NOMEM. Only after XC_OK *model must be closed. The block must outlive it. */
xc_status xt_model_open(xt_model *model, const void *block, size_t size, xc_err *err);
void xt_model_close(xt_model *model);

/* The form with this text, or NULL. */
const xt_form *xt_find(const xt_model *model, xt_span text);
/* The row for two tags, or for a tag and a form; XT_NONE: there is none. */
uint32_t xt_pair_row(const xt_model *model, uint32_t before, uint32_t before_2);
uint32_t xt_with_tag_row(const xt_model *model, uint32_t from, uint32_t n, uint32_t tag);

static inline uint32_t
xt_row_size(const xt_model *model, uint32_t row)
{
    return model->row_start[row + 1] - model->row_start[row];
}

static inline xt_span
xt_text_of(const xt_model *model, xt_piece piece)
{
    return (xt_span){model->text + piece.at, piece.size};
}

/* Weight number `at` as NLTK has it: thousandths are what Python's round(x, 3) gives. */
static inline double
xt_weight(const xt_model *model, uint32_t at)
{
    XC_ASSERT(at < model->head->n_weights);
    return model->milli != NULL ? model->milli[at] / 1000.0 : model->weights[at];
}

/* Adds the weights of a row to the sums of their classes; nothing for XT_NONE. Only if weights are thousandths. */
static inline void
xt_add_row(const xt_model *model, uint32_t row, int32_t *sums)
{
    if (row == XT_NONE) {
        return;
    }
    XC_ASSERT(model->milli != NULL && row < model->head->n_rows);
    for (uint32_t at = model->row_start[row]; at < model->row_start[row + 1]; at++) {
        sums[model->labels[at]] += model->milli[at];
    }
}

/* The marks around a sentence: XT_START_2, XT_START, the words, XT_END, XT_END_2. The first two also are tags:
 * XT_START, the nearer one, is n_classes, and XT_START_2 is n_classes + 1. */
enum { XT_START, XT_START_2, XT_END, XT_END_2, XT_MARKS };
xt_span xt_mark(unsigned which);

/* For the builder: computes where the sections of a block with these counts are. Returns the size of the block. */
enum { XT_SECTIONS = 13 };
uint64_t xt_layout(const xt_head *head, uint64_t at[XT_SECTIONS]);
uint64_t xt_checksum(const void *block, uint64_t size);
extern const char xt_magic[8];

#endif
