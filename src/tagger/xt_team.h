/*
 * Threads that tag batches, oldest first, beside the thread that waits for one: it tags along. They have no Python
 * object and never ask for the GIL.
 */
#ifndef XT_TEAM_H
#define XT_TEAM_H

#include "xt_batch.h"

typedef struct xt_team xt_team;

/* `n_threads` of them, 0 being fine. XC_NOMEM, or XC_SYS: no thread could be had. Words and model must outlive it. */
xc_status xt_team_new(const xt_model *model, xt_words *words, size_t n_threads, xt_team **team, xc_err *err);
/* The batch is borrowed until xt_team_wait_nogil has returned for it, or xt_team_free_nogil. Never blocks. */
void xt_team_give(xt_team *team, xt_batch *batch);
/* Until all of a given batch is tagged. Returns the time of that, by xc_now. Sleeps: GIL released. */
int64_t xt_team_wait_nogil(xt_team *team, xt_batch *batch);
/* So long that another thread which waits for the GIL takes it. Sleeps: GIL released. */
void xt_team_pause_nogil(void);
/*
 * Ends the threads, each after the few documents that it is at, and frees. Batches not waited for are left as they are.
 * Takes NULL. Sleeps: GIL released. Of a team of the parent's after a fork only memory is freed.
 */
void xt_team_free_nogil(xt_team *team);
/* False after a fork: the threads are the parent's. */
bool xt_team_is_here(const xt_team *team);

#endif
