/*
 * Tasks of a worker: what Gateway asks of them.
 */
#ifndef XCPY_TASKS_H
#define XCPY_TASKS_H

#include "compat.h"

/* At the end of a worker: Python ends its other threads by pthread_exit() then, glibc loads a library for that, and
 * aborts the process where it cannot. So it is loaded here; where a task keeps all fds, fd 0 (/dev/null) makes room. */
void xcpy_have_threads_end(void);

/* Methods of Gateway: _next_task, _task_done. */
extern PyMethodDef xcpy_task_methods[];

#endif
