/*
 * Makes the file and reads it. The worker may write into it what it likes: this side takes only text from it, of a
 * limited size.
 */
#include "xc_lend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Bytes. If a worker prints more than that before it serves, only the worker itself passes the rest on. */
enum { MAPPED = 1 << 20 };

#if XC_HAS_MEMFD
/* Sets lent->file and lent->map. */
static bool
make_memory(xc_lent *lent)
{
    lent->file = xc_make_memfd("execnet_c stderr");
    if (lent->file < 0 || ftruncate(lent->file, MAPPED) != 0 || fcntl(lent->file, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
        return false;
    }
    void *map = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, lent->file, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    lent->map = map;
    return madvise(map, MAPPED, MADV_DONTFORK) == 0;
}
#endif

static bool
make_file(xc_lent *lent)
{
#if XC_HAS_MEMFD
    if (make_memory(lent)) {
        return true;
    }
    xc_lent_close(lent);
#endif
    const char *dir = getenv("TMPDIR");
    char name[1024] = "/tmp/execnet_c-XXXXXX";
    if (dir != NULL && strlen(dir) < sizeof name - 32) {
        strcpy(name, dir);
        strcat(name, "/execnet_c-XXXXXX");
    }
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0) {
        unlink(name);
    }
    lent->file = xc_fd_lift(fd);
    return lent->file >= 0;
}

/* A copy of our stderr. If that is closed, /dev/null: with no fd 2, the next file that the worker opens would become
 * it. */
static int
open_ours(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    return fd >= 0 || errno != EBADF ? fd : xc_fd_lift(open("/dev/null", O_WRONLY | O_CLOEXEC));
}

xc_status
xc_lend(bool by_pipe, xc_lent *out, xc_err *err)
{
    *out = XC_LENT_NOTHING;
    xc_sync_setup(); /* forks are counted from here on */
    out->forks = xc_fork_count();
    if (make_file(out) && (out->ours = open_ours()) >= 0 && (!by_pipe || xc_make_pipe(out->ends))) {
        return XC_OK;
    }
    int why = errno;
    xc_lent_close(out);
    return xc_fail(err, XC_SYS, why, "lend our stderr");
}

int
xc_lent_stderr(const xc_lent *lent)
{
    return lent->ends[1] >= 0 ? lent->ends[1] : lent->file;
}

void
xc_lent_passed(xc_lent *lent)
{
    xc_fd_drop(&lent->ends[1]);
    xc_fd_drop(&lent->ours);
    if (lent->map != NULL) {
        xc_fd_drop(&lent->file);
    }
}

static size_t
read_at(const xc_lent *lent, size_t at, void *into)
{
    if (lent->map != NULL) {
        size_t n = at < MAPPED ? MAPPED - at : 0;
        n = n < XC_LEND_CHUNK ? n : XC_LEND_CHUNK;
        memcpy(into, lent->map + at, n);
        return n;
    }
    ssize_t n = lent->file >= 0 ? pread(lent->file, into, XC_LEND_CHUNK, (off_t)at) : 0;
    return n > 0 ? (size_t)n : 0;
}

bool
xc_lent_taken(const xc_lent *lent)
{
    unsigned char chunk[XC_LEND_CHUNK];
    return read_at(lent, 0, chunk) == 0 || chunk[0] == 0;
}

size_t
xc_lent_read(const xc_lent *lent, size_t at, void *into)
{
    size_t n = read_at(lent, at, into);
    return strnlen(into, n);
}

void
xc_lent_close(xc_lent *lent)
{
    xc_lent_passed(lent);
    xc_fd_drop(&lent->ends[0]);
    xc_fd_drop(&lent->file);
    if (lent->map != NULL && lent->forks == xc_fork_count()) {
        munmap((void *)(uintptr_t)lent->map, MAPPED);
    }
    lent->map = NULL;
}
