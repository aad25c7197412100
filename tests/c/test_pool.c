/* A pool: what is given comes out again, once, and to whom gave it. */
#include "check.h"
#include "xc_pool.h"

enum { THREADS = 8, ROUNDS = 20000, THINGS = 1000 };

static xc_pool pool;
static long things[THINGS]; /* how often each was used; only changed by who has taken it */
static atomic_int made;

static void
one_thread(void)
{
    int first, second;
    CHECK(xc_pool_take(&pool) == NULL);
    CHECK(xc_pool_give(&pool, &first));
    CHECK(xc_pool_give(&pool, &second));
    CHECK(xc_pool_take(&pool) == &first); /* the one that it had first */
    CHECK(xc_pool_take(&pool) == &second);
    CHECK(xc_pool_take(&pool) == NULL);
}

static void
full(void)
{
    for (int i = 0; i < XC_POOL_PLACES; i++) {
        CHECK(xc_pool_give(&pool, &things[i]));
    }
    CHECK(!xc_pool_give(&pool, &things[XC_POOL_PLACES]));
    for (int i = 0; i < XC_POOL_PLACES; i++) {
        CHECK(xc_pool_take(&pool) == &things[i]);
    }
    CHECK(xc_pool_take(&pool) == NULL);
}

static void *
use_things(void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        long *thing = xc_pool_take(&pool);
        if (thing == NULL) {
            int number = atomic_fetch_add(&made, 1);
            CHECK(number < THINGS);
            thing = &things[number];
        }
        ++*thing;
        (void)xc_pool_give(&pool, thing);
    }
    return unused;
}

/* No thing is with two threads at once. */
static void
many_threads(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, use_things, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    long uses = 0;
    for (int i = 0; i < THINGS; i++) {
        uses += things[i];
    }
    CHECK_INT(uses, (long)THREADS * ROUNDS);
}

int
main(void)
{
    check_begin("pool", 60);
    RUN(one_thread);
    RUN(full);
    RUN(many_threads);
    return check_end();
}
