/*
 * The memory of a pair of rings: one piece of it, sealed so that nobody can shrink it under us (a memfd), with a page
 * of indices for each direction and a ring for each, which is mapped twice back to back so that no copy wraps. One side
 * makes it and passes the fd to the other, which attaches; then nobody needs the fd any more.
 *
 * Without XC_HAS_RING, both say XC_SYS with ENOSYS: there are none.
 */
#ifndef XC_REGION_H
#define XC_REGION_H

#include <fcntl.h>
#include <sys/syscall.h>

#include "xc_ring.h"

#if XC_FUTEX && defined(SYS_memfd_create) && defined(F_ADD_SEALS)
#define XC_HAS_RING 1
#else
#define XC_HAS_RING 0
#endif

/* Bytes of a ring. With less, large payloads take longer; with more they fall out of the CPU's caches. */
enum { XC_RING_SIZE = 2 * 1024 * 1024 };

/* Who uses `in` has the reader role, who uses `out` the writer role: one thread at a time each. */
typedef struct {
    xc_ring in;
    xc_ring out;
    unsigned char *map; /* owned; NULL: nothing is mapped. Not in forked children */
    size_t map_size;
    uint32_t forks; /* const: xc_fork_count at birth */
    int fd; /* owned, close-on-exec, not kept by forked children: to be passed to the other side. -1 when closed */
} xc_region;

/* A new region; `size` is of each ring: a power of two, at least a page. XC_SYS (ENOSYS: not on this system; ENOSPC: it
 * would have to be promised more memory than there is), XC_NOMEM. After a failure there is nothing to close. */
xc_status xc_region_create(size_t size, xc_region *out, xc_err *err);

/* The other side of the region behind `fd`, which is taken. XC_BAD: that is no region of this layout, sealed as it has
 * to be. XC_SYS. After a failure there is nothing to close. */
xc_status xc_region_attach(int fd, xc_region *out, xc_err *err);

/* The other side has its copy. Idempotent. */
void xc_region_close_fd(xc_region *region);

/* Unmaps it; tells the other side nothing, see xc_ring_close. Nobody uses the rings any more. Idempotent; in a forked
 * child it only forgets. */
void xc_region_close(xc_region *region);

#endif
