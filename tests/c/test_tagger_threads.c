/*
 * The tagger on several threads: each batch as one thread would have tagged it, and no thread left, whenever it ends.
 */
#include "tagger_rig.h"

#include "xt_team.h"

#define BATCHES 3
#define DOCS    150

static rig_model rig;
static xt_model model;
static xt_words *words;

static void
set_up(void)
{
    xc_err err;
    rig_make(&rig, true, 40);
    CHECK_RC(xt_model_open(&model, rig.block, rig.size, &err), XC_OK);
    words = xt_words_new(&model);
    CHECK(words != NULL);
}

static void
tear_down(void)
{
    xt_words_free(words);
    xt_model_close(&model);
    rig_free(&rig);
}

/* Documents of all lengths; what is expected stands in `expected`, owned by the caller. */
static uint16_t *
fill(xt_batch *batch, unsigned docs)
{
    const char *sentence[RIG_SENTENCE];
    uint16_t *expected = malloc(docs * RIG_SENTENCE * sizeof(*expected) + 1);
    CHECK(expected != NULL);
    xt_batch_init(batch);
    batch->use_only = true;
    for (unsigned i = 0; i < docs; i++) {
        unsigned n = rig_random(RIG_SENTENCE);
        rig_sentence(sentence, n);
        rig_tag(&rig, sentence, n, true, expected + batch->n_words);
        rig_add(batch, sentence, n);
    }
    return expected;
}

static void
case_teams(void)
{
    set_up();
    for (size_t threads = 0; threads < 4; threads++) {
        xc_err err;
        xt_team *team;
        xt_batch batches[BATCHES];
        uint16_t *expected[BATCHES];
        CHECK_RC(xt_team_new(&model, words, threads, &team, &err), XC_OK);
        CHECK(xt_team_is_here(team));
        for (int round = 0; round < 4; round++) {
            for (int i = 0; i < BATCHES; i++) {
                expected[i] = fill(&batches[i], i == 1 ? 0 : DOCS);
                xt_team_give(team, &batches[i]);
            }
            for (int i = 0; i < BATCHES; i++) {
                xt_team_wait_nogil(team, &batches[i]);
                CHECK(batches[i].n_words == 0 ||
                      memcmp(batches[i].labels, expected[i], batches[i].n_words * sizeof(uint16_t)) == 0);
                xt_batch_fini(&batches[i]);
                free(expected[i]);
            }
        }
        xt_team_free_nogil(team);
    }
    xt_team_free_nogil(NULL);
    tear_down();
}

static void
case_ended_in_the_middle(void)
{
    set_up();
    for (int i = 0; i < 30; i++) {
        xc_err err;
        xt_team *team;
        xt_batch batch;
        uint16_t *expected = fill(&batch, DOCS);
        CHECK_RC(xt_team_new(&model, words, 2, &team, &err), XC_OK);
        xt_team_give(team, &batch);
        if (i % 3 == 0) {
            check_pause_ms(1);
        }
        xt_team_free_nogil(team);
        xt_batch_fini(&batch);
        free(expected);
    }
    tear_down();
}

/* Threads that each tag their own batch and meet in the words only. */
static void *
tag_alone(void *arg)
{
    xt_batch *batch = arg;
    xt_scratch *scratch = xt_scratch_new(&model);
    CHECK(scratch != NULL);
    xt_batch_work(batch, scratch, words, NULL);
    xt_scratch_free(scratch);
    return NULL;
}

static void
case_shared_words(void)
{
    set_up();
    for (int round = 0; round < 10; round++) {
        pthread_t threads[3];
        xt_batch batches[3];
        uint16_t *expected[3];
        xt_words_free(words);
        words = xt_words_new(&model);
        for (int i = 0; i < 3; i++) {
            expected[i] = fill(&batches[i], 40);
        }
        for (int i = 0; i < 3; i++) {
            CHECK(pthread_create(&threads[i], NULL, tag_alone, &batches[i]) == 0);
        }
        for (int i = 0; i < 3; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
            CHECK(memcmp(batches[i].labels, expected[i], batches[i].n_words * sizeof(uint16_t)) == 0);
            xt_batch_fini(&batches[i]);
            free(expected[i]);
        }
        CHECK(xt_words_count(words) <= RIG_WORDS);
    }
    tear_down();
}

static void
case_no_memory(void)
{
    set_up();
    xt_team *team = NULL;
    for (int allowed = 0; team == NULL; allowed++) {
        xc_err err;
        atomic_store(&check_allowed, allowed);
        xc_set_alloc_hook(check_allow_some);
        xc_status rc = xt_team_new(&model, words, 2, &team, &err);
        xc_set_alloc_hook(NULL);
        CHECK(rc == XC_OK ? team != NULL : rc == XC_NOMEM && team == NULL);
        CHECK(allowed < 100);
    }
    xt_team_free_nogil(team);
    tear_down();
}

static xt_team *kept;

static void
in_the_child(void)
{
    CHECK(!xt_team_is_here(kept));
    xt_words_after_fork(words);
    xt_team_free_nogil(kept);
    xt_batch batch;
    uint16_t *expected = fill(&batch, DOCS);
    (void)tag_alone(&batch);
    CHECK(memcmp(batch.labels, expected, batch.n_words * sizeof(uint16_t)) == 0);
    xt_batch_fini(&batch);
    free(expected);
}

static void
case_fork(void)
{
    xc_err err;
    set_up();
    xt_batch batch;
    uint16_t *expected = fill(&batch, DOCS);
    CHECK_RC(xt_team_new(&model, words, 1, &kept, &err), XC_OK);
    xt_team_give(kept, &batch);
    CHECK_INT(check_in_child(in_the_child), 0);
    xt_team_wait_nogil(kept, &batch);
    CHECK(memcmp(batch.labels, expected, batch.n_words * sizeof(uint16_t)) == 0);
    xt_team_free_nogil(kept);
    xt_batch_fini(&batch);
    free(expected);
    tear_down();
}

int
main(void)
{
    check_begin("tagger_threads", 90);
    RUN(case_teams);
    RUN(case_ended_in_the_middle);
    RUN(case_shared_words);
    RUN(case_no_memory);
    RUN(case_fork);
    return check_end();
}
