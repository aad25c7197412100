/*
 * Threads that tag batches, oldest first. The thread that waits for a batch tags, too. The team's threads have no
 * Python object and never ask for the GIL.
 */
#ifndef XT_TEAM_H
#define XT_TEAM_H

#include "xt_batch.h"

typedef struct xt_team xt_team;

/* `n_threads` may be 0. XC_NOMEM, or XC_SYS: a thread could not be started. `words` and `model` must outlive the
 * team. */
xc_status xt_team_new(const xt_model *model, xt_words *words, size_t n_threads, xt_team **team, xc_err *err);
/* The batch is borrowed until xt_team_wait_nogil or xt_team_free_nogil has returned. Never blocks. */
void xt_team_give(xt_team *team, xt_batch *batch);
/* Waits until a given batch is tagged. Returns the time then, by xc_now. Sleeps: call it with the GIL released. */
int64_t xt_team_wait_nogil(xt_team *team, xt_batch *batch);
/* Sleeps so long that a thread that waits for the GIL gets it. Call it with the GIL released. */
void xt_team_pause_nogil(void);
/*
 * Ends the threads, each after the few documents that it has taken, and frees the team. Batches for which nobody has
 * waited are left as they are. Takes NULL. Sleeps: call it with the GIL released. After a fork, it only frees the
 * memory of a team of the parent.
 */
void xt_team_free_nogil(xt_team *team);
/* False after a fork: the threads are the parent's. */
bool xt_team_is_here(const xt_team *team);

#endif
