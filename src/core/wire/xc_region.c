/*
 * Making shared memory, checking an fd that is passed as such memory, and mapping it twice.
 *
 * Invariant: nothing is mapped whose size could change, and no size or address is taken from the memory itself.
 */
#include "xc_region.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "xc_forkfd.h"

#if !XC_HAS_RING

xc_status
xc_region_create(size_t size, xc_region *out, xc_err *err)
{
    (void)size;
    *out = (xc_region){.fd = -1};
    return xc_fail(err, XC_SYS, ENOSYS, "make shared memory");
}

xc_status
xc_region_attach(int fd, xc_region *out, xc_err *err)
{
    if (fd >= 0) {
        close(fd);
    }
    *out = (xc_region){.fd = -1};
    return xc_fail(err, XC_SYS, ENOSYS, "attach to shared memory");
}

#else

#include <linux/magic.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define MOST   ((size_t)1 << 30) /* bytes of a ring */
#define STEP   ((size_t)128 << 10)
#define LAYOUT 1 /* changes with everything that the two sides must agree on */

static const char magic[8] = "xc ring";

/* The first bytes of each direction's page. The rings follow the two pages. */
typedef struct {
    char magic[8];
    uint32_t layout;
    uint32_t unused;
    uint64_t size;
    xc_ring_end writer;
    xc_ring_end reader;
} page;

static size_t
page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static bool
is_ring_size(size_t size)
{
    return size >= page_size() && size <= MOST && (size & (size - 1)) == 0;
}

static bool
map_at(unsigned char *where, size_t n, int fd, size_t from)
{
    return mmap(where, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)from) == where;
}

/* [page][page][ring][the same ring][other ring][the same]. A forked child must not have any of it. */
static unsigned char *
map_region(int fd, size_t size)
{
    size_t pages = 2 * page_size(), n = pages + 4 * size;
    unsigned char *map = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
    bool mapped = map_at(map, pages, fd, 0);
    for (size_t i = 0; i < 4 && mapped; i++) {
        mapped = map_at(map + pages + i * size, size, fd, pages + i / 2 * size);
    }
    if (!mapped || madvise(map, n, MADV_DONTFORK) != 0) {
        int why = errno;
        munmap(map, n);
        errno = why;
        return NULL;
    }
    return map;
}

/* Side 0 writes into direction 0 and reads from direction 1. */
static void
lay_out(xc_region *region, int fd, unsigned char *map, size_t size, size_t side)
{
    size_t pages = 2 * page_size();
    xc_sync_setup(); /* forks are counted from here on */
    *region = (xc_region){.map = map, .map_size = pages + 4 * size, .fd = fd, .forks = xc_fork_count()};
    for (size_t direction = 0; direction < 2; direction++) {
        page *shared = (page *)(void *)(map + direction * page_size());
        bool writes = direction == side;
        *(writes ? &region->out : &region->in) = (xc_ring){
            .mine = writes ? &shared->writer : &shared->reader,
            .other = writes ? &shared->reader : &shared->writer,
            .data = map + pages + direction * 2 * size,
            .size = size,
            .writes = writes,
            .notify_fd = -1,
        };
    }
}

/* Where the system does not overcommit memory, it may refuse one of our pages when it is first written to, with a
 * SIGBUS. */
static bool
may_run_out(void)
{
    char how = '0';
    int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t ignored = read(fd, &how, 1);
        (void)ignored;
        close(fd);
    }
    return how == '2';
}

/* Allocates in steps, because a signal undoes the present step. */
static bool
take(int fd, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t step = n - at < STEP ? n - at : STEP;
        if (fallocate(fd, 0, (off_t)at, (off_t)step) == 0) {
            at += step;
        }
        else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* n bytes. They are allocated at once only where that is needed: it takes milliseconds, and memory that may never be
 * used. */
static bool
set_size(int fd, size_t n)
{
    return ftruncate(fd, (off_t)n) == 0 && (!may_run_out() || take(fd, n));
}

/* Sealed memory of n bytes. -1 and errno. */
static int
make_memory(size_t n)
{
    int memory = xc_make_memfd("execnet_c");
    if (memory >= 0 && (!set_size(memory, n) || fcntl(memory, F_ADD_SEALS, SEALS) != 0)) {
        xc_fd_drop(&memory);
    }
    return memory;
}

xc_status
xc_region_create(size_t size, xc_region *out, xc_err *err)
{
    *out = (xc_region){.fd = -1};
    if (!is_ring_size(size)) {
        return xc_fail(err, XC_SYS, EINVAL, "make shared memory");
    }
    int fd = make_memory(2 * page_size() + 2 * size);
    if (fd < 0) {
        return xc_fail(err, XC_SYS, errno, "make shared memory");
    }
    unsigned char *map = map_region(fd, size);
    if (map == NULL) {
        xc_fd_drop(&fd);
        return xc_fail(err, XC_SYS, errno, "map shared memory");
    }
    lay_out(out, fd, map, size, 0);
    for (size_t i = 0; i < 2; i++) {
        page *shared = (page *)(void *)(map + i * page_size());
        memcpy(shared->magic, magic, sizeof magic);
        shared->layout = LAYOUT;
        shared->size = size;
    }
    if (xc_forkfd_add(fd) != XC_OK) {
        close(fd);
        out->fd = -1;
        xc_region_close(out);
        return xc_fail(err, XC_NOMEM, 0, "make shared memory");
    }
    return XC_OK;
}

/* Other memory than this can vanish under us: a file that somebody cuts off, huge pages that run out. */
static xc_status
check_memory(int fd, size_t *size, xc_err *err)
{
    static const char step[] = "attach to shared memory";
    struct stat about;
    struct statfs kind;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fstat(fd, &about) != 0 || fstatfs(fd, &kind) != 0) {
        return xc_fail(err, XC_SYS, errno, step);
    }
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (unsigned long)kind.f_type != TMPFS_MAGIC) {
        return xc_failf(err, XC_BAD, step, "fd %d is no memory that can be sealed", fd);
    }
    if ((seals & SEALS) != SEALS) {
        return xc_failf(err, XC_BAD, step, "its size is not sealed: its seals are %#x", (unsigned)seals);
    }
    size_t pages = 2 * page_size(), n = (size_t)about.st_size;
    *size = n > pages ? (n - pages) / 2 : 0;
    if (!is_ring_size(*size) || n != pages + 2 * *size) {
        return xc_failf(err, XC_BAD, step, "no region has %zu bytes", n);
    }
    return XC_OK;
}

static xc_status
check_header(const unsigned char *at, size_t size, xc_err *err)
{
    page header;
    memcpy(&header, at, offsetof(page, writer));
    if (memcmp(header.magic, magic, sizeof magic) != 0) {
        return xc_failf(err, XC_BAD, "attach to shared memory", "it is not a region");
    }
    if (header.layout != LAYOUT || header.size != size) {
        return xc_failf(err, XC_BAD, "attach to shared memory",
                        "layout %u, rings of %llu bytes, not layout %d, %zu bytes", header.layout,
                        (unsigned long long)header.size, LAYOUT, size);
    }
    return XC_OK;
}

xc_status
xc_region_attach(int fd, xc_region *out, xc_err *err)
{
    size_t size = 0;
    unsigned char *map = NULL;
    *out = (xc_region){.fd = -1};
    xc_status rc = check_memory(fd, &size, err);
    if (rc == XC_OK && (map = map_region(fd, size)) == NULL) {
        rc = xc_fail(err, XC_SYS, errno, "map shared memory");
    }
    if (fd >= 0) {
        close(fd);
    }
    for (size_t i = 0; i < 2 && rc == XC_OK; i++) {
        rc = check_header(map + i * page_size(), size, err);
    }
    if (map != NULL) {
        lay_out(out, -1, map, size, 1);
        if (rc != XC_OK) {
            xc_region_close(out);
        }
    }
    return rc;
}

#endif

/* In a forked child the fd is closed and the memory is not mapped: by now the number and the address may be
 * another's. */
static bool
is_ours(const xc_region *region)
{
    return region->forks == xc_fork_count();
}

void
xc_region_close_fd(xc_region *region)
{
    if (region->fd >= 0 && is_ours(region)) {
        xc_forkfd_remove(region->fd);
        xc_fd_close(region->fd);
    }
    region->fd = -1;
}

void
xc_region_close(xc_region *region)
{
    xc_region_close_fd(region);
    if (region->map != NULL && is_ours(region)) {
        munmap(region->map, region->map_size);
    }
    region->map = NULL;
}
