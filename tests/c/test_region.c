/* Shared memory: what is made, what is refused, and who has it after a fork. */
#include "ring_rig.h"

#if XC_HAS_RING

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* How many pieces of shared memory this process has mapped. */
static int
mappings(void)
{
    char line[512];
    int n = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        n += strstr(line, "memfd:") != NULL;
    }
    fclose(file);
    return n;
}

/* ---- making and attaching ---- */

static void
say(xc_ring *out, xc_ring *in, const char *text)
{
    char heard[32] = "";
    size_t n = 0;
    CHECK_RC(write_one(out, text, strlen(text), &n), XC_OK);
    CHECK_RC(xc_ring_read(in, heard, sizeof heard, &n, NULL), XC_OK);
    CHECK(n == strlen(text) && strcmp(heard, text) == 0);
}

static void
both_sides_talk(void)
{
    xc_region a, b;
    struct stat about;
    CHECK_RC(xc_region_create(XC_RING_SIZE, &a, NULL), XC_OK);
    CHECK(a.fd > 2 && a.map != NULL && a.in.size == XC_RING_SIZE && a.out.size == XC_RING_SIZE);
    CHECK((fcntl(a.fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(a.fd, F_GET_SEALS) & SEALS) == SEALS);
    CHECK(fstat(a.fd, &about) == 0 && (size_t)about.st_size == 2 * PAGE + 2 * (size_t)XC_RING_SIZE);
    CHECK_RC(xc_region_attach(dup(a.fd), &b, NULL), XC_OK);
    CHECK(b.fd == -1 && mappings() > 2);
    xc_region_close_fd(&a);
    CHECK(a.fd == -1);
    say(&a.out, &b.in, "hither");
    say(&b.out, &a.in, "thither");
    CHECK(!a.in.writes && a.out.writes && a.in.notify_fd == -1 && a.out.notify_fd == -1);
    xc_region_close(&a);
    xc_ring far = far_end_of(&b.out); /* who is left still has all of it */
    far.at = far.seen = b.out.at;
    say(&b.out, &far, "alone");
    xc_region_close(&b);
    CHECK(a.map == NULL && b.map == NULL);
    xc_region_close(&a);
}

static void
each_ring_is_there_twice(void)
{
    pair two = open_pair(PAGE);
    for (size_t i = 0; i < PAGE; i += 97) {
        two.a.out.data[i] = byte_at(i);
        two.a.in.data[PAGE + i] = byte_at(i + 1);
    }
    for (size_t i = 0; i < PAGE; i += 97) {
        CHECK(two.a.out.data[PAGE + i] == byte_at(i) && two.b.in.data[i] == byte_at(i));
        CHECK(two.a.in.data[i] == byte_at(i + 1) && two.b.out.data[PAGE + i] == byte_at(i + 1));
    }
    close_pair(&two);
}

static void
no_such_size(void)
{
    size_t sizes[] = {0, 1, PAGE / 2, PAGE - 1, PAGE + 1, 3 * PAGE, (size_t)1 << 31, SIZE_MAX};
    int before = mappings();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        xc_region region;
        xc_err err;
        CHECK_RC(xc_region_create(sizes[i], &region, &err), XC_SYS);
        CHECK(err.sys_errno == EINVAL && err.step[0] != '\0' && region.fd == -1 && region.map == NULL);
    }
    CHECK_INT(mappings(), before);
}

static void
with_streams_closed(void)
{
    xc_region region;
    close(0);
    close(1);
    CHECK_RC(xc_region_create(PAGE, &region, NULL), XC_OK);
    CHECK(region.fd > 2 && fcntl(0, F_GETFD) == -1 && fcntl(1, F_GETFD) == -1);
    xc_region_close(&region);
}

static void
not_a_standard_stream(void)
{
    CHECK_INT(check_in_child(with_streams_closed), 0);
}

static void
without_fds(void)
{
    struct rlimit few = {3, 3};
    xc_region region;
    xc_err err;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_RC(xc_region_create(PAGE, &region, &err), XC_SYS);
    CHECK(err.sys_errno == EMFILE && region.fd == -1);
}

static void
without_addresses(void)
{
    struct rlimit none = {1 << 20, 1 << 20};
    xc_region region;
    xc_err err;
    CHECK_INT(setrlimit(RLIMIT_AS, &none), 0);
    CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_SYS);
    CHECK(err.sys_errno == ENOMEM && region.fd == -1 && region.map == NULL);
    CHECK_INT(fcntl(3, F_GETFD), -1);
}

/* ---- a system that promises no memory which it may not have ---- */

enum { CANNOT = 77 };

/* From here on this process finds that such a system it is. */
static void
promise_nothing(void)
{
    char name[] = "/tmp/xc_region_XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && write(fd, "2\n", 2) == 2 && close(fd) == 0);
    if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(name, "/proc/sys/vm/overcommit_memory", NULL, MS_BIND, NULL) != 0) {
        unlink(name);
        _exit(CANNOT);
    }
    unlink(name);
}

static size_t
memory_taken(void)
{
    xc_region region;
    struct stat about;
    CHECK_RC(xc_region_create(XC_RING_SIZE, &region, NULL), XC_OK);
    CHECK_INT(fstat(region.fd, &about), 0);
    xc_region_close(&region);
    return (size_t)about.st_blocks * 512;
}

static void
taken_at_once(void)
{
    promise_nothing();
    CHECK(memory_taken() >= 2 * XC_RING_SIZE);
}

static void
none_to_be_had(void)
{
    static struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    xc_region region;
    xc_err err;
    promise_nothing();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        _exit(CANNOT);
    }
    int fds = check_fds();
    CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_SYS);
    CHECK(err.sys_errno == ENOSPC && region.fd == -1 && region.map == NULL);
    CHECK_INT(check_fds(), fds);
}

static void
check_if_possible(void (*body)(void))
{
    int status = check_in_child(body);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT) {
        fprintf(stderr, "%s: %s: left out, no such system can be made up here\n", check_name, check_case);
        return;
    }
    CHECK_INT(status, 0);
}

/* Else a page that is not there when it is first written to would be a SIGBUS. */
static void
memory_is_taken_at_once_where_it_may_run_out(void)
{
    FILE *file = fopen("/proc/sys/vm/overcommit_memory", "r");
    int how = file == NULL ? 0 : fgetc(file);
    if (file != NULL) {
        fclose(file);
    }
    if (how != '2') {
        CHECK(memory_taken() <= 4 * PAGE); /* it takes its time, and memory that may never be used */
    }
    check_if_possible(taken_at_once);
    check_if_possible(none_to_be_had);
}

static bool
allow_nothing(void)
{
    return false;
}

static void
without_memory(void)
{
    xc_region region = {.fd = -1};
    xc_err err;
    int fds = check_fds(), maps = mappings();
    xc_set_alloc_hook(allow_nothing);
    CHECK_RC(xc_region_create(PAGE, &region, &err), XC_NOMEM);
    xc_set_alloc_hook(NULL);
    CHECK(err.code == XC_NOMEM && region.fd == -1 && region.map == NULL);
    CHECK_INT(check_fds(), fds);
    CHECK_INT(mappings(), maps);
}

/* Each in a process that has used nothing yet: the list of fds has no room. */
static void
nothing_left(void)
{
    CHECK_INT(check_in_child(without_fds), 0);
    if (!CHECK_TSAN) { /* which needs addresses itself */
        CHECK_INT(check_in_child(without_addresses), 0);
    }
}

/* ---- what is refused ---- */

static void
refuse(int fd, xc_status code, const char *detail)
{
    xc_region region;
    xc_err err;
    int maps = mappings();
    CHECK_RC(xc_region_attach(fd, &region, &err), code);
    CHECK_RC(err.code, code);
    CHECK(err.step[0] != '\0' && strstr(err.detail, detail) != NULL);
    CHECK(region.fd == -1 && region.map == NULL);
    CHECK(fcntl(fd, F_GETFD) == -1);
    CHECK_INT(mappings(), maps);
}

/* Memory with a region's header, changed by `spoil`, and these seals. */
static int
false_region(size_t size, int seals, unsigned flags, void (*spoil)(unsigned char *map))
{
    xc_region region;
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    unsigned char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) {
        CHECK_RC(xc_region_create(PAGE, &region, NULL), XC_OK);
        memcpy(map, region.map, size < 2 * PAGE ? size : 2 * PAGE);
        xc_region_close(&region);
        if (spoil != NULL) {
            spoil(map);
        }
        munmap(map, size);
    }
    CHECK_INT(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void
spoil_magic(unsigned char *map)
{
    map[0]++;
}

static void
spoil_layout(unsigned char *map)
{
    map[8]++;
}

static void
spoil_size(unsigned char *map)
{
    map[16]++;
}

static void
spoil_second_page(unsigned char *map)
{
    map[PAGE + 8]++;
}

static void
other_things_are_refused(void)
{
    int ends[2];
    char name[] = "/tmp/ring-XXXXXX", shm_name[] = "/dev/shm/ring-XXXXXX";
    refuse(-1, XC_SYS, "");
    CHECK_INT(pipe(ends), 0);
    refuse(ends[0], XC_BAD, "sealed");
    refuse(ends[1], XC_BAD, "sealed");
    int file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, (off_t)(4 * PAGE)) == 0);
    refuse(file, XC_BAD, "sealed");
    int shm = mkstemp(shm_name);
    if (shm >= 0) {
        CHECK(unlink(shm_name) == 0 && ftruncate(shm, (off_t)(4 * PAGE)) == 0);
        refuse(shm, XC_BAD, "sealed");
    }
}

static void
what_could_shrink_is_refused(void)
{
    static const int too_few[] = {0, F_SEAL_SHRINK, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_GROW | F_SEAL_SEAL};
    for (size_t i = 0; i < sizeof too_few / sizeof too_few[0]; i++) {
        refuse(false_region(4 * PAGE, too_few[i], 0, NULL), XC_BAD, "sealed");
    }
    int huge = false_region((size_t)2 << 20, SEALS, MFD_HUGETLB, NULL);
    if (huge >= 0) {
        refuse(huge, XC_BAD, "");
    }
    xc_region a;
    CHECK_RC(xc_region_create(PAGE, &a, NULL), XC_OK);
    CHECK(ftruncate(a.fd, 0) == -1 && errno == EPERM);
    CHECK(ftruncate(a.fd, (off_t)(64 * PAGE)) == -1 && errno == EPERM);
    CHECK(fcntl(a.fd, F_ADD_SEALS, F_SEAL_WRITE) == -1);
    xc_region_close(&a);
}

static void
other_layouts_are_refused(void)
{
    size_t sizes[] = {1, PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE - 1, 4 * PAGE + 1, 8 * PAGE};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        refuse(false_region(sizes[i], SEALS, 0, NULL), XC_BAD, "bytes");
    }
    refuse(false_region(6 * PAGE, SEALS, 0, NULL), XC_BAD, "layout"); /* of rings of two pages, says one */
    refuse(false_region(4 * PAGE, SEALS, 0, spoil_magic), XC_BAD, "not a region");
    refuse(false_region(4 * PAGE, SEALS, 0, spoil_layout), XC_BAD, "layout 2");
    refuse(false_region(4 * PAGE, SEALS, 0, spoil_size), XC_BAD, "layout 1");
    refuse(false_region(4 * PAGE, SEALS, 0, spoil_second_page), XC_BAD, "layout 2");
    xc_region good; /* the same that is not spoilt */
    CHECK_RC(xc_region_attach(false_region(4 * PAGE, SEALS, 0, NULL), &good, NULL), XC_OK);
    xc_region_close(&good);
    refuse(false_region(4 * PAGE, SEALS | F_SEAL_WRITE, 0, NULL), XC_SYS, "");
}

/* ---- fork ---- */

static xc_region kept;

/* The memory is not there, the fd is closed; what the child has put in their places stays when it lets go. */
static void
in_forked_child(void)
{
    int old = kept.fd;
    unsigned char *old_map = kept.map;
    CHECK_INT(fcntl(old, F_GETFD), -1);
    CHECK(msync(old_map, PAGE, MS_ASYNC) == -1 && errno == ENOMEM);
    CHECK(mmap(old_map, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == old_map);
    old_map[5] = 55;
    CHECK_INT(dup2(2, old), old);
    xc_region_close(&kept);
    CHECK(kept.fd == -1 && kept.map == NULL);
    CHECK(fcntl(old, F_GETFD) != -1 && old_map[5] == 55);
}

static void
a_forked_child_has_none_of_it(void)
{
    xc_region b;
    CHECK_RC(xc_region_create(PAGE, &kept, NULL), XC_OK);
    CHECK_INT(check_in_child(in_forked_child), 0);
    CHECK_RC(xc_region_attach(dup(kept.fd), &b, NULL), XC_OK);
    say(&kept.out, &b.in, "as before");
    xc_region_close(&b);
    xc_region_close(&kept);
}

int
main(void)
{
    check_io_begin("region", 60);
    CHECK_INT(check_in_child(without_memory), 0);
    RUN_IO(nothing_left);
    RUN_IO(both_sides_talk);
    RUN_IO(each_ring_is_there_twice);
    RUN_IO(no_such_size);
    RUN_IO(not_a_standard_stream);
    RUN_IO(other_things_are_refused);
    RUN_IO(what_could_shrink_is_refused);
    RUN_IO(other_layouts_are_refused);
    RUN_IO(a_forked_child_has_none_of_it);
    RUN_IO(memory_is_taken_at_once_where_it_may_run_out);
    return check_end();
}

#endif
