/* Two sides of a region for the tests of rings, and bytes that say where in a stream they belong. */
#ifndef RING_RIG_H
#define RING_RIG_H

#include <poll.h>

#include "check_io.h"
#include "xc_region.h"

#if XC_HAS_RING

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

typedef struct {
    xc_region a, b;
} pair;

__attribute__((unused)) static pair
open_pair(size_t size)
{
    pair two;
    xc_err err;
    CHECK_RC(xc_region_create(size, &two.a, &err), XC_OK);
    CHECK_RC(xc_region_attach(dup(two.a.fd), &two.b, &err), XC_OK);
    xc_region_close_fd(&two.a);
    return two;
}

__attribute__((unused)) static void
close_pair(pair *two)
{
    xc_region_close(&two->a);
    xc_region_close(&two->b);
}

/* The ring's other end at the same addresses, so that the thread sanitizer sees who touches what. */
__attribute__((unused)) static xc_ring
far_end_of(const xc_ring *ring)
{
    xc_ring far = *ring;
    far.mine = ring->other;
    far.other = ring->mine;
    far.writes = !ring->writes;
    return far;
}

/* The byte at a place of a stream. */
__attribute__((unused)) static unsigned char
byte_at(uint64_t place)
{
    return (unsigned char)((place ^ place >> 7 ^ place >> 15) * 167 >> 3);
}

__attribute__((unused)) static void
fill_bytes(unsigned char *into, size_t n, uint64_t place)
{
    for (size_t i = 0; i < n; i++) {
        into[i] = byte_at(place + i);
    }
}

__attribute__((unused)) static void
check_bytes(const unsigned char *bytes, size_t n, uint64_t place)
{
    size_t i = 0;
    while (i < n && bytes[i] == byte_at(place + i)) {
        i++;
    }
    CHECK_INT(place + i, place + n);
}

/* One try with one part. */
__attribute__((unused)) static xc_status
write_one(xc_ring *out, const void *bytes, size_t n, size_t *put)
{
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = n};
    return xc_ring_write(out, &part, 1, put, NULL);
}

/* So small that a test goes round often, or so large that the copies are worth it. */
__attribute__((unused)) static size_t
random_size(unsigned *seed, size_t ring)
{
    static const size_t small[] = {0, 1, 2, 3, 9, 64, 4095, 4096, 4097};
    switch (rand_r(seed) % 4) {
    case 0:
        return ring - 2 + (size_t)rand_r(seed) % 4;
    case 1:
        return (size_t)rand_r(seed) % (2 * ring);
    default:
        return small[(size_t)rand_r(seed) % (sizeof small / sizeof small[0])];
    }
}

/* How an end waits. */
enum { SPINS, SLEEPS, CALLED, WAYS };

#define SPIN_NS (20 * INT64_C(1000))
#define BUFFER  (4 * (size_t)XC_RING_SIZE + 4)

/* Waits until another try is worth it. `fd` is where calls come, in place of the pump's epoll. */
__attribute__((unused)) static void
wait_for(xc_ring *ring, int way, int fd)
{
    if (way == CALLED) {
        char dump[64];
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (xc_ring_arm(ring)) {
            CHECK(poll(&p, 1, -1) == 1 && read(fd, dump, sizeof dump) > 0);
        }
        return;
    }
    if (way == SPINS && xc_ring_spin(ring, SPIN_NS)) {
        return;
    }
    CHECK_RC(xc_ring_sleep_nogil(ring, xc_bell_mine(), XC_FOREVER), XC_OK);
}

__attribute__((unused)) static void
put_all(xc_ring *out, const void *from, size_t n, int way, int fd)
{
    struct iovec part = {.iov_base = (void *)from, .iov_len = n};
    while (part.iov_len > 0) {
        size_t put;
        xc_status rc = xc_ring_write(out, &part, 1, &put, NULL);
        if (rc == XC_AGAIN) {
            wait_for(out, way, fd);
            continue;
        }
        CHECK_RC(rc, XC_OK);
        part.iov_base = (char *)part.iov_base + put;
        part.iov_len -= put;
    }
}

__attribute__((unused)) static void
get_all(xc_ring *in, void *into, size_t n, int way, int fd)
{
    while (n > 0) {
        size_t got;
        xc_status rc = xc_ring_read(in, into, n, &got, NULL);
        if (rc == XC_AGAIN) {
            wait_for(in, way, fd);
            continue;
        }
        CHECK_RC(rc, XC_OK);
        into = (char *)into + got;
        n -= got;
    }
}

/* A forked child at the other side, by the fd alone, as a program that was started with it. */
__attribute__((unused)) static pid_t
fork_side(xc_region *near, void (*body)(xc_region *far))
{
    int fd = dup(near->fd);
    CHECK(fd >= 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        xc_region far;
        check_die_with_parent();
        CHECK_RC(xc_region_attach(fd, &far, NULL), XC_OK);
        body(&far);
        xc_region_close(&far);
        _exit(0);
    }
    close(fd);
    return pid;
}

__attribute__((unused)) static void
join_side(pid_t pid, int want)
{
    int status = -1;
    while (waitpid(pid, &status, 0) != pid) {
        CHECK_INT(errno, EINTR);
    }
    CHECK_INT(status, want);
}

#else

/* Without rings each of these programs has one case only: making a region fails, says so, and keeps nothing. */
static void
regions_cannot_be_made(void)
{
    xc_region region;
    xc_err err;
    CHECK_RC(xc_region_create(XC_RING_SIZE, &region, &err), XC_SYS);
    CHECK(err.sys_errno == ENOSYS && region.fd == -1 && region.map == NULL);
    CHECK_RC(xc_region_attach(dup(0), &region, &err), XC_SYS);
    CHECK(err.sys_errno == ENOSYS && region.fd == -1 && region.map == NULL);
}

int
main(void)
{
    check_io_begin("rings", 60);
    RUN_IO(regions_cannot_be_made);
    return check_end();
}

#endif

#endif
