/* A table of files by fd number. It has no lock, so that a forked child can use it. Its pages are made when they are
 * needed, and stay. */
#include "xc_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#if XC_HAS_MEMFD
#include <linux/memfd.h>
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#endif

enum { PAGE = 256, PAGES = 1024 }; /* higher numbers are not remembered */

typedef struct {
    _Atomic(uint64_t) file[PAGE]; /* 0: not remembered */
} page;

static _Atomic(page *) pages[PAGES];

static _Atomic(uint64_t) *
place_of(int fd, bool make)
{
    if (fd < 0 || fd >= PAGE * PAGES) {
        return NULL;
    }
    _Atomic(page *) *slot = &pages[fd / PAGE];
    page *there = atomic_load(slot);
    if (there == NULL && make) {
        page *fresh = xc_alloc(sizeof *fresh);
        if (fresh == NULL) {
            return NULL;
        }
        for (int i = 0; i < PAGE; i++) {
            atomic_init(&fresh->file[i], 0);
        }
        if (atomic_compare_exchange_strong(slot, &there, fresh)) {
            there = fresh;
        }
        else {
            xc_free(fresh);
        }
    }
    return there != NULL ? &there->file[fd % PAGE] : NULL;
}

/* A byte that tells the kinds of files without an inode apart, by the name in /proc. 0: not known. */
static uint64_t
kind_of(int fd)
{
    uint64_t kind = 0;
#if defined(__linux__)
    char place[32], name[64];
    (void)snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(place, name, sizeof name);
    for (ssize_t i = 0; i < n; i++) {
        kind = kind * 31 + (unsigned char)name[i];
    }
#else
    (void)fd;
#endif
    return kind & 0xff;
}

/* A number for the file behind `fd`; 0: nothing is behind it. with_kind: costs a second system call for some files. */
static uint64_t
inspect(int fd, bool with_kind)
{
    struct stat about;
    if (fstat(fd, &about) != 0) {
        return 0;
    }
    uint64_t file = (uint64_t)about.st_dev * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)about.st_ino << 8;
    uint64_t kind = with_kind && (about.st_mode & S_IFMT) == 0 ? kind_of(fd) : 0;
    return ((file & ~UINT64_C(0xff)) | kind) | (UINT64_C(1) << 63);
}

void
xc_fd_own(int fd)
{
    _Atomic(uint64_t) *place = place_of(fd, true);
    if (place != NULL) {
        atomic_store(place, inspect(fd, true));
    }
}

static bool
is_ours(int fd, bool with_kind)
{
    _Atomic(uint64_t) *place = place_of(fd, false);
    uint64_t file = place != NULL ? atomic_load(place) : 0;
    uint64_t mask = with_kind ? ~UINT64_C(0) : ~UINT64_C(0xff);
    return file == 0 || (inspect(fd, with_kind) & mask) == (file & mask);
}

bool
xc_fd_ours(int fd)
{
    return is_ours(fd, false);
}

static bool
is_remembered(int fd)
{
    _Atomic(uint64_t) *place = place_of(fd, false);
    return place != NULL && atomic_load(place) != 0;
}

void
xc_fd_close(int fd)
{
    /* It was owned, and is closed only once; or the table had no memory, or nothing is there. */
    XC_ASSERT(is_remembered(fd) || place_of(fd, false) == NULL || fcntl(fd, F_GETFD) < 0);
    if (fd < 0) {
        return;
    }
    bool ours = is_ours(fd, true);
    _Atomic(uint64_t) *place = place_of(fd, false);
    if (place != NULL) {
        atomic_store(place, 0);
    }
    if (ours) {
        close(fd);
    }
}

static void
close_quietly(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
}

void
xc_fd_drop(int *fd)
{
    XC_ASSERT(*fd < 0 || !is_remembered(*fd) || !is_ours(*fd, true));
    if (*fd >= 0) {
        close_quietly(*fd);
        *fd = -1;
    }
}

int
xc_fd_lift(int fd)
{
    while (fd >= 0 && (fd <= 2 || is_remembered(fd))) {
        int lifted = fcntl(fd, F_DUPFD_CLOEXEC, fd <= 2 ? 3 : fd + 1);
        close_quietly(fd);
        fd = lifted;
    }
    return fd;
}

bool
xc_make_pipe(int ends[2])
{
#if defined(__linux__) && !defined(XC_PORTABLE)
    bool made = pipe2(ends, O_CLOEXEC) == 0;
#else
    bool made = pipe(ends) == 0;
    for (int i = 0; i < 2 && made; i++) {
        (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    }
#endif
    for (int i = 0; i < 2 && made; i++) {
        ends[i] = xc_fd_lift(ends[i]);
        if (ends[i] < 0) {
            xc_fd_drop(&ends[1 - i]);
            made = false;
        }
    }
    if (!made) {
        ends[0] = ends[1] = -1;
    }
    return made;
}

#if XC_HAS_MEMFD
int
xc_make_memfd(const char *name)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    long fd = syscall(SYS_memfd_create, name, flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) { /* old systems do not know this flag; some new ones require it */
        fd = syscall(SYS_memfd_create, name, flags);
    }
    return xc_fd_lift((int)fd);
}
#endif
