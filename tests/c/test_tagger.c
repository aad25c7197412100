/*
 * The tagger on one thread: the same decisions as NLTK's way of counting, whatever bytes are given as a model, and
 * without memory.
 */
#include "tagger_rig.h"

static rig_model rig;

/* Tags one sentence in both ways. */
static void
compare(xt_scratch *scratch, xt_words *words, const char *const *sentence, unsigned n, bool use_only)
{
    uint16_t expected[RIG_SENTENCE];
    xt_batch batch;
    xt_batch_init(&batch);
    rig_add(&batch, sentence, n);
    batch.use_only = use_only;
    rig_tag(&rig, sentence, n, use_only, expected);
    xt_batch_work(&batch, scratch, words, NULL);
    for (unsigned i = 0; i < n; i++) {
        CHECK_INT(batch.labels[i], expected[i]);
    }
    double *sums = malloc((n * rig.n_classes + 1) * sizeof(double));
    bool counted[RIG_SENTENCE];
    const xt_task task = xt_batch_task(&batch);
    memset(batch.labels, 0xFF, n * sizeof(*batch.labels));
    xt_words_enter(words);
    xt_tag_with_sums(scratch, words, &task, sums, counted);
    xt_words_leave(words);
    for (unsigned i = 0; i < n; i++) {
        CHECK_INT(batch.labels[i], expected[i]);
        CHECK(use_only || counted[i]);
    }
    free(sums);
    xt_batch_fini(&batch);
}

static uint64_t
compare_many(bool thousandths)
{
    uint64_t ties = 0;
    for (int models = 0; models < 25; models++) {
        xc_err err;
        xt_model model;
        const char *sentence[RIG_SENTENCE];
        rig_make(&rig, thousandths, 10 + rig_random(60));
        CHECK_RC(xt_model_open(&model, rig.block, rig.size, &err), XC_OK);
        CHECK_INT(model.milli != NULL, thousandths);
        xt_words *words = xt_words_new(&model);
        xt_scratch *scratch = xt_scratch_new(&model);
        for (int sentences = 0; sentences < 25; sentences++) {
            unsigned n = rig_random(RIG_SENTENCE);
            rig_sentence(sentence, n);
            compare(scratch, words, sentence, n, rig_random(2) != 0);
        }
        ties += xt_scratch_ties(scratch);
        xt_scratch_free(scratch);
        xt_words_free(words);
        xt_model_close(&model);
        rig_free(&rig);
    }
    return ties;
}

static void
case_thousandths(void)
{
    CHECK(compare_many(true) > 100);
}

static void
case_doubles(void)
{
    CHECK_INT(compare_many(false), 0); /* nothing to be level in */
}

/* 0.1 + 0.2 - 0.3 is more than nothing where doubles are added up, and level in thousandths. */
static void
case_rounding_decides(void)
{
    xc_err err;
    xt_model model;
    const char *sentence[] = {"a"};
    memset(&rig, 0, sizeof(rig));
    rig.n_classes = 3;
    const char *names[] = {"bias", "i suffix a", "i pref1 a"};
    const double weights[] = {0.1, 0.2, -0.3};
    for (int i = 0; i < 3; i++) {
        rig_feature *feature = &rig.features[rig.n_features++];
        strcpy(feature->name, names[i]);
        feature->n = 1;
        feature->labels[0] = 1; /* of equals the last class would win */
        feature->weights[0] = weights[i];
    }
    CHECK_RC(rig_try_block(&rig, &err), XC_OK);
    CHECK_RC(xt_model_open(&model, rig.block, rig.size, &err), XC_OK);
    CHECK(model.milli != NULL);
    xt_words *words = xt_words_new(&model);
    xt_scratch *scratch = xt_scratch_new(&model);
    compare(scratch, words, sentence, 1, true);
    CHECK_INT(xt_scratch_ties(scratch), 1);
    uint16_t label;
    rig_tag(&rig, sentence, 1, true, &label);
    CHECK_INT(label, 1);
    xt_scratch_free(scratch);
    xt_words_free(words);
    xt_model_close(&model);
    rig_free(&rig);
}

/* ---- bytes that are no model ---- */

static void
use_if_it_opens(void *block, size_t size)
{
    xc_err err;
    xt_model model;
    const char *sentence[RIG_SENTENCE];
    if (xt_model_open(&model, block, size, &err) != XC_OK) {
        CHECK_RC(err.code, XC_BAD);
        return;
    }
    rig_sentence(sentence, RIG_SENTENCE);
    xt_words *words = xt_words_new(&model);
    xt_scratch *scratch = xt_scratch_new(&model);
    xt_batch batch;
    xt_batch_init(&batch);
    rig_add(&batch, sentence, RIG_SENTENCE);
    batch.use_only = true;
    if (model.head->n_classes > 0) {
        xt_batch_work(&batch, scratch, words, NULL);
        for (unsigned i = 0; i < RIG_SENTENCE; i++) {
            CHECK(batch.labels[i] < model.head->n_classes);
        }
    }
    xt_batch_fini(&batch);
    xt_scratch_free(scratch);
    xt_words_free(words);
    xt_model_close(&model);
}

static void
case_cut_short(void)
{
    rig_make(&rig, true, 3);
    for (size_t size = 0; size < rig.size; size++) {
        xc_err err;
        xt_model model;
        uint64_t *copy = malloc(size + 1);
        memcpy(copy, rig.block, size);
        CHECK_RC(xt_model_open(&model, copy, size, &err), XC_BAD);
        CHECK(err.detail[0] != '\0');
        free(copy);
    }
    rig_free(&rig);
}

static void
case_damaged(void)
{
    xc_err err;
    xt_model model;
    rig_make(&rig, true, 3);
    unsigned char *bytes = (unsigned char *)rig.block;
    for (size_t at = 0; at < rig.size; at++) {
        bytes[at] ^= 0x10;
        CHECK_RC(xt_model_open(&model, rig.block, rig.size, &err), XC_BAD);
        bytes[at] ^= 0x10;
    }
    rig_free(&rig);
}

/* Whoever means harm gets the checksum right. */
static void
case_hostile(void)
{
    static const unsigned char values[] = {0, 1, 2, 0x7F, 0x80, 0xFF};
    for (int kind = 0; kind < 2; kind++) {
        rig_make(&rig, kind == 0, 2);
        unsigned char *bytes = (unsigned char *)rig.block;
        for (size_t at = 0; at < rig.size; at += 1 + rig_random(3)) {
            if (at >= offsetof(xt_head, checksum) && at < offsetof(xt_head, checksum) + 8) {
                continue;
            }
            unsigned char before = bytes[at];
            bytes[at] = values[rig_random(sizeof(values))];
            xt_head *head = (void *)rig.block;
            uint64_t sum = head->checksum;
            head->checksum = xt_checksum(rig.block, rig.size);
            use_if_it_opens(rig.block, rig.size);
            bytes[at] = before;
            head->checksum = sum;
        }
        rig_free(&rig);
    }
}

static void
case_bad_parts(void)
{
    xc_err err;
    xt_build *build = xt_build_new();
    CHECK_RC(xt_build_class(build, rig_span("B"), &err), XC_OK);
    CHECK_RC(xt_build_class(build, rig_span("A"), &err), XC_BAD);
    CHECK_RC(xt_build_class(build, rig_span("B"), &err), XC_BAD);
    CHECK_RC(xt_build_only(build, rig_span("word"), 1, &err), XC_BAD);
    CHECK_RC(xt_build_weight(build, 0, 1.0, &err), XC_BAD);
    CHECK_RC(xt_build_feature(build, rig_span("bias"), &err), XC_OK);
    CHECK_RC(xt_build_weight(build, 1, 1.0, &err), XC_BAD);
    CHECK_RC(xt_build_weight(build, 0, 1.0 / 0.0, &err), XC_BAD);
    CHECK_RC(xt_build_weight(build, 0, 0.0 / 0.0, &err), XC_BAD);
    CHECK_RC(xt_build_weight(build, 0, 0.5, &err), XC_OK);
    CHECK_RC(xt_build_class(build, rig_span("C"), &err), XC_BAD);
    CHECK_INT(xt_build_label(build, rig_span("B")), 0);
    CHECK_INT(xt_build_label(build, rig_span("C")), XT_NONE);
    xt_build_free(build);
}

/* ---- words ---- */

static void
case_more_words_than_are_kept(void)
{
    xc_err err;
    xt_model model;
    rig_make(&rig, true, 60);
    CHECK_RC(xt_model_open(&model, rig.block, rig.size, &err), XC_OK);
    xt_words *words = xt_words_new(&model);
    xt_word *room = malloc(xt_word_room(&model)), *other = malloc(xt_word_room(&model));
    size_t most = 0;
    uint32_t last = 0;
    for (unsigned round = 0; round < 2; round++) {
        xt_words_enter(words);
        for (unsigned i = 0; i < 70000; i++) {
            char text[32];
            int n = snprintf(text, sizeof(text), "%u%s", i, rig_words[i % RIG_WORDS]);
            xt_token token = {{(unsigned char *)text, (size_t)n}, {NULL, 0}};
            uint32_t hash = xt_hash(token.raw.at, token.raw.size);
            const xt_word *word = xt_word_of(words, &token, hash, room);
            const xt_word *again = xt_word_of(words, &token, hash, other);
            CHECK(word->id == XT_NONE ? again == other : again == word);
            CHECK(memcmp(word->rows, again->rows, sizeof(word->rows)) == 0);
            CHECK(word->id == XT_NONE || round == 0 || word->id > last);
        }
        most = xt_words_count(words);
        CHECK(most > 60000 && most <= 65536);
        last = (uint32_t)most - 1;
        /* Full; with nobody inside the next one begins anew, and its words have other ids. */
        xt_words_leave(words);
    }
    xt_words_enter(words);
    CHECK_INT(xt_words_count(words), 0);
    xt_words_leave(words);
    xt_words_after_fork(words);
    CHECK_INT(xt_words_count(words), 0);
    free(room);
    free(other);
    xt_words_free(words);
    xt_model_close(&model);
    rig_free(&rig);
}

static void
case_text(void)
{
    CHECK_INT(xt_last_three(rig_span("ab")).size, 2);
    CHECK_INT(xt_last_three(rig_span("")).size, 0);
    CHECK_INT(xt_last_three(rig_span("x\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80")).size, 9);
    CHECK_INT(xt_first(rig_span("\xF0\x9F\x98\x80z")).size, 4);
    CHECK_INT(xt_first(rig_span("")).size, 0);
    CHECK(xt_span_compare(rig_span("a"), rig_span("ab")) < 0);
    CHECK(xt_span_compare(rig_span("b"), rig_span("ab")) > 0);
    for (size_t n = 0; n < 40; n++) {
        unsigned char a[40], b[40];
        memset(a, 'x', sizeof(a));
        for (size_t at = 0; at < n; at++) {
            memset(b, 'x', sizeof(b));
            CHECK(xt_same_bytes(a, b, n));
            b[at] = 'y';
            CHECK(!xt_same_bytes(a, b, n));
        }
    }
}

/* ---- without memory ---- */

static void
case_no_memory(void)
{
    rig_make(&rig, true, 8);
    void *block = rig.block;
    const char *sentence[] = {"a", "b", "abc"};
    bool done = false;
    for (int allowed = 0; !done; allowed++) {
        xc_err err;
        xt_model model;
        xt_words *words = NULL;
        xt_scratch *scratch = NULL;
        xt_batch batch;
        xt_batch_init(&batch);
        rig.block = NULL;
        atomic_store(&check_allowed, allowed);
        xc_set_alloc_hook(check_allow_some);
        xc_status rc = rig_try_block(&rig, &err);
        if (rc == XC_OK) {
            rc = xt_model_open(&model, rig.block, rig.size, &err);
            if (rc == XC_OK) {
                words = xt_words_new(&model);
                scratch = words != NULL ? xt_scratch_new(&model) : NULL;
                rc = scratch != NULL ? rig_try_add(&batch, sentence, 3, &err) : XC_NOMEM;
                if (rc == XC_OK) {
                    xt_batch_work(&batch, scratch, words, NULL); /* can do without */
                    done = atomic_load(&check_allowed) >= 0;
                }
                xt_scratch_free(scratch);
                xt_words_free(words);
                xt_model_close(&model);
            }
        }
        xc_set_alloc_hook(NULL);
        CHECK(rc == XC_OK || rc == XC_NOMEM);
        CHECK(allowed < 1000);
        xt_batch_fini(&batch);
        free(rig.block);
    }
    free(block);
}

int
main(void)
{
    check_begin("tagger", 60);
    RUN(case_thousandths);
    RUN(case_doubles);
    RUN(case_rounding_decides);
    RUN(case_cut_short);
    RUN(case_damaged);
    RUN(case_hostile);
    RUN(case_bad_parts);
    RUN(case_more_words_than_are_kept);
    RUN(case_text);
    RUN(case_no_memory);
    return check_end();
}
