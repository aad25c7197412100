/*
 * Fds that a forked child must not keep: as long as it held them, a worker could not see that its master is gone.
 * They are close-on-exec too, but a child that never execs (multiprocessing's fork) would hold them for its life.
 */
#ifndef XC_FORKFD_H
#define XC_FORKFD_H

#include "xc_sync.h"

/* From now on a forked child closes `fd` first of all. XC_NOMEM. */
xc_status xc_forkfd_add(int fd);
/* Call before closing the fd. Harmless for a negative or unknown one. */
void xc_forkfd_remove(int fd);

#endif
