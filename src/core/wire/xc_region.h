/*
 * The shared memory of a pair of rings: a memfd, sealed so that nobody can shrink it under us. It has a page of indices
 * and a ring for each direction; each ring is mapped twice, one behind the other, so that no copy wraps. One side
 * creates it and passes the fd to the other side, which attaches; then nobody needs the fd any more.
 *
 * Without XC_HAS_RING there are no rings: both functions return XC_SYS with ENOSYS.
 */
#ifndef XC_REGION_H
#define XC_REGION_H

#include "xc_ring.h"

#if XC_FUTEX && XC_HAS_MEMFD
#define XC_HAS_RING 1
#else
#define XC_HAS_RING 0
#endif

/* Bytes of a ring. With a smaller one, large payloads take longer; a larger one does not fit into the CPU's caches. */
enum { XC_RING_SIZE = 2 * 1024 * 1024 };

/* Only the thread with the reader role uses `in`, only the one with the writer role uses `out`. */
typedef struct {
    xc_ring in;
    xc_ring out;
    unsigned char *map; /* owned; NULL: nothing is mapped. Not in forked children */
    size_t map_size;
    uint32_t forks; /* const: xc_fork_count at birth */
    int fd;         /* owned, close-on-exec, closed in forked children: to be passed to the other side. -1: closed */
} xc_region;

/* A new region; `size` is that of each ring: a power of two, at least a page. XC_SYS (ENOSYS: not on this system;
 * ENOSPC: the system has not enough memory), XC_NOMEM. After a failure there is nothing to close. */
xc_status xc_region_create(size_t size, xc_region *out, xc_err *err) XC_TAKES_FORKFDS;

/* The other side of the region behind `fd`, which is taken. XC_BAD: it is no region of this layout, or not sealed as it
 * must be. XC_SYS. After a failure there is nothing to close. */
xc_status xc_region_attach(int fd, xc_region *out, xc_err *err) XC_TAKES_FORKFDS;

/* Call it when the other side has its copy of the fd. Idempotent. */
void xc_region_close_fd(xc_region *region) XC_TAKES_FORKFDS;

/* Unmaps the region, when nobody uses its rings any more. The other side is not told, see xc_ring_close. Idempotent; in
 * a forked child it only forgets. */
void xc_region_close(xc_region *region) XC_TAKES_FORKFDS;

#endif
