/*
 * A worker's tasks: what Gateway uses of them.
 */
#ifndef XCPY_TASKS_H
#define XCPY_TASKS_H

#include "compat.h"

/* Call it at the end of a worker. Python then ends its other threads by pthread_exit(). For that glibc loads a library,
 * and aborts the process if it cannot. So the library is loaded here; if a task keeps all fds, fd 0 (/dev/null) is
 * closed to make room. */
void xcpy_have_threads_end(void);

/* Methods of Gateway: _next_task, _task_done. */
extern PyMethodDef xcpy_task_methods[];

#endif
