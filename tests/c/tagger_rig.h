/*
 * Random tagger models, and what NLTK does with them, word for word: features as texts, looked up one by one, their
 * weights added up as doubles. Words, classes and weights are few and small, so that features are met and sums are
 * level; some have spaces in them, so that a feature can be read in more than one way.
 */
#ifndef TAGGER_RIG_H
#define TAGGER_RIG_H

#include "check.h"

#include "xt_batch.h"
#include "xt_build.h"

#define RIG_MOST     700
#define RIG_SENTENCE 40

typedef struct {
    char name[64];
    unsigned n;
    unsigned labels[8];
    double weights[8];
} rig_feature;

typedef struct {
    rig_feature features[RIG_MOST];
    unsigned n_features;
    unsigned n_only;
    const char *only[4];
    unsigned only_label[4];
    unsigned n_classes;
    size_t size;
    uint64_t *block; /* owned */
} rig_model;

static const char *const rig_classes[] = {"", "-START-", "A", "A B", "B", "B C", "C"};
static const char *const rig_words[] = {"a",  "b",  "A",    "aB",  "B c", "c",        "B C c", "",    "-a", "a-b",
                                        "1a", "42", "1999", "abc", "xyz", "xyzzyabc", "YZ",    "-",   ".",  "1998",
                                        "ab", "ba", "bcd",  "BCD", "12",  "c-",       "cab",   "abz", "!",  "z"};
#define RIG_CLASSES 7u
#define RIG_WORDS   30u

static uint64_t rig_state = 88172645463325252u;

static unsigned
rig_random(unsigned below)
{
    rig_state ^= rig_state << 13;
    rig_state ^= rig_state >> 7;
    rig_state ^= rig_state << 17;
    return (unsigned)(rig_state >> 11) % below;
}

static xt_span
rig_span(const char *text)
{
    return (xt_span){(const unsigned char *)text, strlen(text)};
}

/* ---- what NLTK does ---- */

static void
rig_normalize(const char *word, char out[32])
{
    size_t n = strlen(word), digits = strspn(word, "0123456789");
    if (strchr(word, '-') != NULL && word[0] != '-') {
        strcpy(out, "!HYPHEN");
    }
    else if (n == 4 && digits == 4) {
        strcpy(out, "!YEAR");
    }
    else if (digits > 0) {
        strcpy(out, "!DIGITS");
    }
    else {
        for (size_t i = 0; i <= n; i++) {
            out[i] = word[i] >= 'A' && word[i] <= 'Z' ? (char)(word[i] + 32) : word[i];
        }
    }
}

static const char *
rig_suffix(const char *word)
{
    size_t n = strlen(word);
    return n > 3 ? word + n - 3 : word;
}

/* The texts of the features of word i, in their order. */
static void
rig_features(const char *const *words, unsigned n, unsigned i, const char *tag, const char *tag_2, char out[14][128])
{
    char context[5][32];
    for (int k = -2; k <= 2; k++) {
        int at = (int)i + k;
        const char *marks[] = {"-START-", "-START2-", "-END-", "-END2-"};
        if (at < 0) {
            strcpy(context[k + 2], marks[at + 2]);
        }
        else if (at >= (int)n) {
            strcpy(context[k + 2], marks[2 + at - (int)n]);
        }
        else {
            rig_normalize(words[at], context[k + 2]);
        }
    }
    const char *word = words[i];
    snprintf(out[0], 128, "bias");
    snprintf(out[1], 128, "i suffix %s", rig_suffix(word));
    snprintf(out[2], 128, "i pref1 %.1s", word);
    snprintf(out[3], 128, "i-1 tag %s", tag);
    snprintf(out[4], 128, "i-2 tag %s", tag_2);
    snprintf(out[5], 128, "i tag+i-2 tag %s %s", tag, tag_2);
    snprintf(out[6], 128, "i word %s", context[2]);
    snprintf(out[7], 128, "i-1 tag+i word %s %s", tag, context[2]);
    snprintf(out[8], 128, "i-1 word %s", context[1]);
    snprintf(out[9], 128, "i-1 suffix %s", rig_suffix(context[1]));
    snprintf(out[10], 128, "i-2 word %s", context[0]);
    snprintf(out[11], 128, "i+1 word %s", context[3]);
    snprintf(out[12], 128, "i+1 suffix %s", rig_suffix(context[3]));
    snprintf(out[13], 128, "i+2 word %s", context[4]);
}

static const rig_feature *
rig_find(const rig_model *rig, const char *name)
{
    for (unsigned i = 0; i < rig->n_features; i++) {
        if (strcmp(rig->features[i].name, name) == 0) {
            return &rig->features[i];
        }
    }
    return NULL;
}

__attribute__((unused)) static void
rig_tag(const rig_model *rig, const char *const *words, unsigned n, bool use_only, uint16_t *labels)
{
    const char *tag = "-START-", *tag_2 = "-START2-";
    for (unsigned i = 0; i < n; i++) {
        char names[14][128];
        double scores[RIG_CLASSES] = {0};
        unsigned best = 0;
        bool known = false;
        for (unsigned k = 0; k < rig->n_only && use_only; k++) {
            if (strcmp(rig->only[k], words[i]) == 0 && rig_classes[rig->only_label[k]][0] != '\0') {
                best = rig->only_label[k];
                known = true;
            }
        }
        rig_features(words, n, i, tag, tag_2, names);
        for (int f = 0; f < 14 && !known; f++) {
            const rig_feature *feature = rig_find(rig, names[f]);
            for (unsigned k = 0; feature != NULL && k < feature->n; k++) {
                scores[feature->labels[k]] += feature->weights[k];
            }
        }
        for (unsigned c = 1; c < rig->n_classes && !known; c++) {
            best = scores[c] >= scores[best] ? c : best;
        }
        labels[i] = (uint16_t)best;
        tag_2 = tag;
        tag = rig_classes[best];
    }
}

/* ---- models ---- */

static void
rig_sentence(const char **words, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        words[i] = rig_words[rig_random(RIG_WORDS)];
    }
}

static void
rig_add_feature(rig_model *rig, const char *name, bool thousandths)
{
    if (rig->n_features == RIG_MOST || strlen(name) >= sizeof(rig->features[0].name) || rig_find(rig, name) != NULL) {
        return;
    }
    rig_feature *feature = &rig->features[rig->n_features++];
    strcpy(feature->name, name);
    feature->n = 0;
    unsigned from = rig_random(rig->n_classes);
    for (unsigned k = rig_random(rig->n_classes + 1); k > 0; k--) {
        int weight = (int)rig_random(9) - 4;
        feature->labels[feature->n] = (from + k) % rig->n_classes;
        feature->weights[feature->n++] = thousandths ? weight * 1.0 / 10 : weight * 1.0 / 3;
    }
}

static xc_status
rig_try_block(rig_model *rig, xc_err *err)
{
    xt_build *build = xt_build_new();
    if (build == NULL) {
        return XC_NOMEM;
    }
    xc_status rc = XC_OK;
    for (unsigned i = 0; i < rig->n_classes && rc == XC_OK; i++) {
        rc = xt_build_class(build, rig_span(rig_classes[i]), err);
    }
    for (unsigned i = 0; i < rig->n_only && rc == XC_OK; i++) {
        rc = xt_build_only(build, rig_span(rig->only[i]), rig->only_label[i], err);
    }
    for (unsigned i = 0; i < rig->n_features && rc == XC_OK; i++) {
        const rig_feature *feature = &rig->features[i];
        rc = xt_build_feature(build, rig_span(feature->name), err);
        for (unsigned k = 0; k < feature->n && rc == XC_OK; k++) {
            rc = xt_build_weight(build, feature->labels[k], feature->weights[k], err);
        }
    }
    rc = rc == XC_OK ? xt_build_finish(build, &rig->size, err) : rc;
    if (rc == XC_OK) {
        rig->block = malloc(rig->size);
        CHECK(rig->block != NULL);
        xt_build_write(build, rig->block);
    }
    xt_build_free(build);
    return rc;
}

/* Features that sentences of the rig's words have, and a few that none has. */
static void
rig_make(rig_model *rig, bool thousandths, unsigned sentences)
{
    const char *words[RIG_SENTENCE];
    char names[14][128];
    xc_err err;
    memset(rig, 0, sizeof(*rig));
    rig->n_classes = 1 + rig_random(RIG_CLASSES);
    for (; rig->n_only < 4; rig->n_only++) {
        rig->only[rig->n_only] = rig_words[rig->n_only * 7];
        rig->only_label[rig->n_only] = rig_random(rig->n_classes);
    }
    for (unsigned s = 0; s < sentences; s++) {
        unsigned n = 1 + rig_random(RIG_SENTENCE);
        rig_sentence(words, n);
        unsigned i = rig_random(n);
        rig_features(words, n, i, i > 0 ? rig_classes[rig_random(rig->n_classes)] : "-START-",
                     i > 1 ? rig_classes[rig_random(rig->n_classes)] : "-START2-", names);
        for (int f = 0; f < 14; f++) {
            rig_add_feature(rig, names[f], thousandths);
        }
    }
    rig_add_feature(rig, "no such feature", thousandths);
    rig_add_feature(rig, "i-1 tag nowhere", thousandths);
    CHECK_RC(rig_try_block(rig, &err), XC_OK);
}

static void
rig_free(rig_model *rig)
{
    free(rig->block);
}

/* ---- batches ---- */

static xc_status
rig_try_add(xt_batch *batch, const char *const *words, unsigned n, xc_err *err)
{
    xc_status rc = xt_batch_reserve_words(batch, n, err);
    for (unsigned i = 0; i < n && rc == XC_OK; i++) {
        size_t size = strlen(words[i]);
        rc = xt_batch_reserve_text(batch, size, err);
        if (rc == XC_OK) {
            memcpy(batch->text + batch->n_text, words[i], size);
            batch->places[batch->n_words + i] = (xt_place){(uint32_t)batch->n_text, (uint32_t)size};
            batch->n_text += size;
        }
    }
    if (rc == XC_OK) {
        batch->n_words += n;
        rc = xt_batch_end_doc(batch, err);
    }
    return rc;
}

__attribute__((unused)) static void
rig_add(xt_batch *batch, const char *const *words, unsigned n)
{
    xc_err err;
    CHECK_RC(rig_try_add(batch, words, n, &err), XC_OK);
}

#endif
