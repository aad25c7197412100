/*
 * Tasks of a worker: what Gateway asks of them.
 */
#ifndef XCPY_TASKS_H
#define XCPY_TASKS_H

#include "compat.h"

/* Any thread, once the pump runs: see to it that threads can end where a task keeps all fds. Does not wait. */
void xcpy_have_threads_end(void);

/* Methods of Gateway: _next_task, _task_done. */
extern PyMethodDef xcpy_task_methods[];

#endif
