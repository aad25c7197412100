/*
 * Fds that a forked child must close: while it held copies of them, a far end could not see that its near end has gone.
 * They are close-on-exec too, but a child that never execs (multiprocessing's fork) would hold them as long as it
 * lives.
 */
#ifndef XC_FORKFD_H
#define XC_FORKFD_H

#include "xc_sync.h"

/* From now on each forked child closes `fd` before anything else. Fails with XC_NOMEM only. */
xc_status xc_forkfd_add(int fd) XC_TAKES_FORKFDS;
/* Call it before closing the fd. A negative or unknown fd is ignored. */
void xc_forkfd_remove(int fd) XC_TAKES_FORKFDS;

#endif
