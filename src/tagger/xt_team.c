/*
 * One mutex, two conditions: there is work; a batch is done. A batch stays in the list until the thread that waits for
 * it has seen that nobody uses it any more, so no thread can find a batch that is gone.
 */
#include "xt_team.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

typedef struct {
    xt_team *team;
    xt_scratch *scratch; /* owned */
    pthread_t thread;
} member;

struct xt_team {
    xt_words *words; /* borrowed */
    uint32_t fork_count;
    xc_mutex mu;
    pthread_cond_t work;
    pthread_cond_t done;
    xt_batch *first XC_GUARDED(team); /* borrowed, oldest first */
    atomic_bool stop;                 /* written under mu */
    xt_scratch *scratch;              /* owned: for the thread that waits */
    size_t n_running;
    member members[];
};

static void
wait_for(pthread_cond_t *condition, xc_mutex *mu) XC_NEEDS(team)
{
    (void)pthread_cond_wait(condition, &mu->raw);
}

/* A batch that has documents to take, or NULL. */
static xt_batch *
find_work(xt_team *team) XC_NEEDS(team)
{
    xt_batch *batch = team->first;
    while (batch != NULL && xt_batch_is_taken(batch)) {
        batch = batch->later;
    }
    return batch;
}

/* Called and returns with the mutex. */
static void
work_on(xt_team *team, xt_batch *batch, xt_scratch *scratch) XC_NEEDS(team) XC_NEEDS_THIS(team->mu)
{
    batch->users++;
    xc_unlock_team(&team->mu);
    xt_batch_work(batch, scratch, team->words, &team->stop);
    xc_lock_team(&team->mu);
    if (--batch->users == 0) {
        pthread_cond_broadcast(&team->done);
    }
}

static void *
serve(void *arg)
{
    member *me = arg;
    xt_team *team = me->team;
    xc_lock_team(&team->mu);
    while (!atomic_load_explicit(&team->stop, memory_order_relaxed)) {
        xt_batch *batch = find_work(team);
        if (batch != NULL) {
            work_on(team, batch, me->scratch);
        }
        else {
            wait_for(&team->work, &team->mu);
        }
    }
    xc_unlock_team(&team->mu);
    return NULL;
}

/* Blocks all signals in the thread: they are for Python's threads. */
static int
start(member *me)
{
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&me->thread, NULL, serve, me);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

xc_status
xt_team_new(const xt_model *model, xt_words *words, size_t n_threads, xt_team **made, xc_err *err)
{
    *made = NULL;
    xc_sync_setup();
    xt_team *team = xc_alloc(sizeof(*team) + n_threads * sizeof(member));
    if (team == NULL) {
        return xc_fail(err, XC_NOMEM, 0, "threads for tagging");
    }
    memset(team, 0, sizeof(*team) + n_threads * sizeof(member));
    team->words = words;
    team->fork_count = xc_fork_count();
    xc_mutex_init(&team->mu);
    pthread_cond_init(&team->work, NULL);
    pthread_cond_init(&team->done, NULL);
    team->scratch = xt_scratch_new(model);
    xc_status rc = team->scratch == NULL ? xc_fail(err, XC_NOMEM, 0, "threads for tagging") : XC_OK;
    for (size_t i = 0; i < n_threads && rc == XC_OK; i++) {
        member *next = &team->members[i];
        next->team = team;
        next->scratch = xt_scratch_new(model);
        if (next->scratch == NULL) {
            rc = xc_fail(err, XC_NOMEM, 0, "threads for tagging");
            break;
        }
        int error = start(next);
        if (error != 0) {
            xt_scratch_free(next->scratch);
            rc = xc_fail(err, XC_SYS, error, "starting a thread for tagging");
            break;
        }
        team->n_running++;
    }
    if (rc != XC_OK) {
        xt_team_free_nogil(team);
        return rc;
    }
    *made = team;
    return XC_OK;
}

bool
xt_team_is_here(const xt_team *team)
{
    return team->fork_count == xc_fork_count();
}

void
xt_team_give(xt_team *team, xt_batch *batch)
{
    XC_ASSERT(xt_team_is_here(team));
    xc_lock_team(&team->mu);
    batch->users = 0;
    batch->later = NULL;
    xt_batch **last = &team->first;
    while (*last != NULL) {
        XC_ASSERT(*last != batch);
        last = &(*last)->later;
    }
    *last = batch;
    pthread_cond_broadcast(&team->work);
    xc_unlock_team(&team->mu);
}

int64_t
xt_team_wait_nogil(xt_team *team, xt_batch *batch)
{
    XC_ASSERT_NOGIL();
    XC_ASSERT(xt_team_is_here(team));
    xc_lock_team(&team->mu);
    work_on(team, batch, team->scratch);
    while (batch->users > 0) {
        wait_for(&team->done, &team->mu);
    }
    xt_batch **link = &team->first;
    while (*link != batch) {
        XC_ASSERT(*link != NULL);
        link = &(*link)->later;
    }
    *link = batch->later;
    xc_unlock_team(&team->mu);
    return xc_now();
}

void
xt_team_pause_nogil(void)
{
    XC_ASSERT_NOGIL();
    (void)nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

void
xt_team_free_nogil(xt_team *team)
{
    if (team == NULL) {
        return;
    }
    if (xt_team_is_here(team)) {
        xc_lock_team(&team->mu);
        atomic_store_explicit(&team->stop, true, memory_order_relaxed);
        pthread_cond_broadcast(&team->work);
        xc_unlock_team(&team->mu);
        for (size_t i = 0; i < team->n_running; i++) {
            (void)pthread_join(team->members[i].thread, NULL);
        }
        pthread_cond_destroy(&team->work);
        pthread_cond_destroy(&team->done);
        xc_mutex_fini(&team->mu);
    }
    for (size_t i = 0; i < team->n_running; i++) {
        xt_scratch_free(team->members[i].scratch);
    }
    xt_scratch_free(team->scratch);
    xc_free(team);
}
