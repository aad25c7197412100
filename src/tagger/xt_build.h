/*
 * Makes a model's block from NLTK's parts, in this order: the classes, the words that have only one tag, then each
 * feature with its weights. What cannot be part of a model is refused when it is added.
 */
#ifndef XT_BUILD_H
#define XT_BUILD_H

#include "xt_model.h"

typedef struct xt_build xt_build;

/* NULL: no memory. */
xt_build *xt_build_new(void);
/* Takes NULL. */
void xt_build_free(xt_build *build);

/* XC_BAD: wrong order, or no valid number; XC_LIMIT: too much of something; XC_NOMEM. After an error the build can only
 * be freed. Texts are copied. */
xc_status xt_build_class(xt_build *build, xt_span name, xc_err *err); /* in ascending order */
xc_status xt_build_only(xt_build *build, xt_span word, uint32_t label, xc_err *err);
xc_status xt_build_feature(xt_build *build, xt_span name, xc_err *err);
xc_status xt_build_weight(xt_build *build, uint32_t label, double weight, xc_err *err); /* of the last feature */

/* The number of a class, or XT_NONE. */
uint32_t xt_build_label(const xt_build *build, xt_span name);

/* Computes the size of the block, once; nothing may be added any more. Then xt_build_write fills that many bytes, at a
 * multiple of 8. */
xc_status xt_build_finish(xt_build *build, size_t *size, xc_err *err);
void xt_build_write(const xt_build *build, void *block);

/* The text with which a feature of this kind begins, with the space behind it: "i suffix ". */
xt_span xt_feature_name(unsigned slot);
enum { XT_WITH_TAG = XT_SLOTS, XT_TAG_BEFORE, XT_TAG_BEFORE_2, XT_TAG_PAIR, XT_BIAS, XT_FEATURES };

#endif
