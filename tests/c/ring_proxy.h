/*
 * Stands between a link with rings and a test that writes and reads pipes: what the test writes goes into the ring that
 * the link reads, what the link writes comes out of the pipe that the test reads. An end of the one is an end of the
 * other.
 */
#ifndef RING_PROXY_H
#define RING_PROXY_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "check_io.h"
#include "xc_region.h"

typedef struct {
    xc_region region; /* the far end's */
    int from_test;    /* owned by the thread `in` */
    int notify_fd;    /* owned: where the link's pump is notified; shut down, it says that the far end is gone */
    int to_test;      /* owned by the thread `out` */
    int notified_fd;  /* the same: says when the link is gone */
    atomic_int ready; /* threads that have a bell: a test may count what is allocated from now on */
    atomic_bool busy; /* `in` may have bytes that are in neither */
    pthread_t in, out;
} proxy;

__attribute__((unused)) static bool
proxy_wanted(void)
{
    return XC_HAS_RING && getenv("RIG_RINGS") != NULL;
}

static bool
proxy_write(proxy *it, const unsigned char *bytes, size_t n)
{
    xc_err err;
    while (n > 0) {
        struct iovec part = {.iov_base = (void *)bytes, .iov_len = n};
        size_t put = 0;
        xc_status rc = xc_ring_write(&it->region.out, &part, 1, &put, &err);
        if (rc == XC_AGAIN) {
            (void)xc_ring_sleep_nogil(&it->region.out, xc_bell_mine(), xc_after(5 * XC_MS));
        }
        else if (rc != XC_OK) {
            return false;
        }
        bytes += put;
        n -= put;
    }
    return true;
}

static void *
proxy_in(void *arg)
{
    proxy *it = arg;
    unsigned char bytes[32 * 1024];
    ssize_t n;
    (void)xc_bell_mine();
    atomic_fetch_add(&it->ready, 1);
    do {
        struct pollfd fd = {.fd = it->from_test, .events = POLLIN};
        atomic_store(&it->busy, false);
        (void)poll(&fd, 1, -1);
        atomic_store(&it->busy, true);
        n = read(it->from_test, bytes, sizeof bytes);
    } while (n > 0 && proxy_write(it, bytes, (size_t)n));
    close(it->from_test); /* as with a pipe: who writes more learns that nobody reads */
    (void)shutdown(it->notify_fd, SHUT_WR);
    return NULL;
}

/* The link is gone: what it wrote before is there by now. */
static bool
proxy_gone(const proxy *it)
{
    struct pollfd fd = {.fd = it->notified_fd, .events = 0};
    return poll(&fd, 1, 0) > 0;
}

static void *
proxy_out(void *arg)
{
    proxy *it = arg;
    unsigned char bytes[32 * 1024];
    xc_err err;
    (void)xc_bell_mine();
    atomic_fetch_add(&it->ready, 1);
    for (;;) {
        bool gone = proxy_gone(it);
        size_t got = 0;
        xc_status rc = xc_ring_read(&it->region.in, bytes, sizeof bytes, &got, &err);
        if (rc == XC_AGAIN && !gone) {
            (void)xc_ring_sleep_nogil(&it->region.in, xc_bell_mine(), xc_after(5 * XC_MS));
            continue;
        }
        if (rc != XC_OK || write(it->to_test, bytes, got) != (ssize_t)got) {
            break;
        }
    }
    xc_ring_close(&it->region.in);
    close(it->to_test);
    AWAIT(proxy_gone(it));
    close(it->notified_fd);
    return NULL;
}

/* Takes the test's two fds and puts others in their place, which with `region` are the link's. */
__attribute__((unused)) static proxy *
proxy_start(int *in, int *out, xc_region *region)
{
    int notify[2], notified[2];
    xc_err err;
    proxy *it = calloc(1, sizeof *it);
    CHECK(it != NULL);
    signal(SIGPIPE, SIG_IGN);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, notify) == 0 && pipe2(notified, O_CLOEXEC) == 0);
    CHECK_RC(xc_region_create(XC_RING_SIZE, region, &err), XC_OK);
    CHECK_RC(xc_region_attach(dup(region->fd), &it->region, &err), XC_OK);
    xc_region_close_fd(region);
    it->from_test = *in;
    it->to_test = *out;
    it->notify_fd = notify[1];
    it->notified_fd = notified[0];
    it->region.in.notify_fd = it->region.out.notify_fd = notify[1];
    *in = notify[0];
    *out = notified[1];
    CHECK_INT(pthread_create(&it->in, NULL, proxy_in, it), 0);
    CHECK_INT(pthread_create(&it->out, NULL, proxy_out, it), 0);
    AWAIT(atomic_load(&it->ready) == 2);
    return it;
}

/* What the test wrote is in the ring. */
__attribute__((unused)) static bool
proxy_settled(proxy *it)
{
    int n = 0;
    return ioctl(it->from_test, FIONREAD, &n) != 0 || (n == 0 && !atomic_load(&it->busy));
}

/* The test has closed its ends and released the link. */
__attribute__((unused)) static void
proxy_end(proxy *it)
{
    pthread_join(it->in, NULL);
    pthread_join(it->out, NULL);
    close(it->notify_fd);
    xc_region_close(&it->region);
    free(it);
}

#endif
