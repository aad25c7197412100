/*
 * What a worker is lent to have our stderr: the file that it writes, and how that is read here; that nothing is left
 * where it cannot be made.
 */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"
#include "xc_lend.h"

static xc_lent
lend(bool by_pipe)
{
    xc_lent lent;
    xc_err err;
    CHECK_RC(xc_lend(by_pipe, &lent, &err), XC_OK);
    return lent;
}

static bool
is_same(int fd, int other)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* The worker's copy of the file; both write behind each other. */
static int
pass(xc_lent *lent)
{
    int file = dup(lent->file);
    CHECK(is_same(lent->ours, STDERR_FILENO));
    xc_lent_passed(lent);
    return file;
}

static void
check_text(const xc_lent *lent, size_t at, const char *want)
{
    char chunk[XC_LEND_CHUNK];
    CHECK_INT(xc_lent_read(lent, at, chunk), strlen(want));
    CHECK(memcmp(chunk, want, strlen(want)) == 0);
}

static void
said_before_and_after(void)
{
    xc_lent lent = lend(false);
    CHECK_INT(xc_lent_stderr(&lent), lent.file);
    int file = pass(&lent);
    CHECK(xc_lent_taken(&lent)); /* nothing was said: there is nothing that could have been lost */
    check_text(&lent, 0, "");
    CHECK_INT(write(file, "early ", 6), 6);
    CHECK_INT(write(file, "words", 5), 5);
    CHECK(!xc_lent_taken(&lent));
    check_text(&lent, 0, "early words");
    check_text(&lent, 6, "words");
    check_text(&lent, 1 << 20, "");
    CHECK_INT(pwrite(file, "\0\0\0\0\0\0\0\0\0\0\0", 11, 0), 11);
    CHECK_INT(lseek(file, 1, SEEK_SET), 1);
    CHECK(xc_lent_taken(&lent));
    check_text(&lent, 1, "");
    CHECK_INT(write(file, "last", 4), 4);
    check_text(&lent, 1, "last");
    close(file);
    xc_lent_close(&lent);
    xc_lent_close(&lent);
}

/* It can grow beyond what is mapped, and not be cut off. */
static void
more_than_is_mapped(void)
{
    static char text[XC_LEND_CHUNK], chunk[XC_LEND_CHUNK];
    xc_lent lent = lend(false);
    int file = pass(&lent);
    size_t size = 0, n;
    memset(text, 'x', sizeof text);
    for (int i = 0; i < 300; i++) {
        CHECK_INT(write(file, text, sizeof text), sizeof text);
    }
    CHECK(lent.map == NULL || ftruncate(file, 0) != 0);
    while ((n = xc_lent_read(&lent, size, chunk)) > 0) {
        size += n;
    }
    CHECK_INT(size, lent.map != NULL ? 1 << 20 : 300 * (int)sizeof text);
    close(file);
    xc_lent_close(&lent);
}

static void
by_a_pipe(void)
{
    xc_lent lent = lend(true);
    char got[5];
    CHECK(lent.ends[0] > 2 && xc_lent_stderr(&lent) == lent.ends[1]);
    CHECK_INT(write(xc_lent_stderr(&lent), "hello", 5), 5);
    close(pass(&lent));
    CHECK_INT(lent.ends[1], -1);
    CHECK_INT(read(lent.ends[0], got, 5), 5);
    CHECK_INT(read(lent.ends[0], got, 5), 0);
    xc_lent_close(&lent);
}

static void
our_stderr_is_closed(void)
{
    int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_WRONLY);
    close(STDERR_FILENO);
    xc_lent lent;
    xc_status rc = xc_lend(false, &lent, NULL);
    dup2(kept, STDERR_FILENO);
    close(kept);
    CHECK_RC(rc, XC_OK);
    CHECK(lent.ours > 2 && lent.file > 2 && is_same(lent.ours, null));
    close(null);
    xc_lent_close(&lent);
}

static void
without_fds(void)
{
    struct rlimit old;
    int fds = check_fds(), first_free = dup(0);
    close(first_free);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (int more = 0; more <= 4; more++) {
        struct rlimit tight = {.rlim_cur = (rlim_t)(first_free + more), .rlim_max = old.rlim_max};
        xc_lent lent;
        xc_err err;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
        xc_status rc = xc_lend(true, &lent, &err);
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
        CHECK_RC(rc, more < 4 ? XC_SYS : XC_OK);
        CHECK(more == 4 || err.sys_errno == EMFILE);
        xc_lent_close(&lent);
        CHECK_INT(check_fds(), fds);
    }
}

int
main(void)
{
    check_begin("lend", 60);
    RUN(said_before_and_after);
    RUN(more_than_is_mapped);
    RUN(by_a_pipe);
    RUN(our_stderr_is_closed);
    RUN(without_fds);
    return check_end();
}
