/* A stream between two links, as a relay carries it. */
#ifndef RELAY_RIG_H
#define RELAY_RIG_H

#include <poll.h>
#include <sys/resource.h>

#include "credit_rig.h"
#include "xc_bytes.h"
#include "xc_relay.h"

typedef struct {
    rig outer;
    xc_chan *chan;
    int feed; /* what is written here is sent; -1: closed */
    int sunk; /* what arrives comes out here */
} stream;

__attribute__((unused)) static stream
stream_open(void)
{
    int feed[2], sunk[2];
    xc_err err;
    stream it = {.outer = rig_open(false)};
    it.chan = new_chan(&it.outer);
    CHECK(pipe2(feed, O_CLOEXEC) == 0 && pipe2(sunk, O_CLOEXEC) == 0);
    it.feed = feed[1];
    it.sunk = sunk[0];
    CHECK_RC(xc_relay_fds(it.outer.link, it.chan, feed[0], sunk[1], &err), XC_OK);
    return it;
}

__attribute__((unused)) static void
stream_close(stream *it)
{
    xc_link_drop_chan(it->outer.link, it->chan);
    rig_close(&it->outer);
    if (it->feed >= 0) {
        close(it->feed);
    }
    close(it->sunk);
}

/* A piece with that pattern. Returns the size of the payload; `at` has n + 6 bytes. */
__attribute__((unused)) static size_t
put_piece(unsigned char *at, size_t n, unsigned seq)
{
    at[0] = 'A';
    put32(at + 1, (uint32_t)n);
    fill_pattern(at + 5, n, 1, seq);
    at[n + 5] = 'Q';
    return n + 6;
}

__attribute__((unused)) static void
send_piece(rig *it, uint32_t chan, size_t n, unsigned seq)
{
    unsigned char *payload = malloc(n + 6);
    CHECK(payload != NULL);
    rig_send(it, XC_DATA, chan, payload, put_piece(payload, n, seq));
    free(payload);
}

/* What such a piece counts. */
#define PIECE_COST(n) ((n) + 6 + XC_ITEM_COST)

__attribute__((unused)) static void
expect_piece_of(int fd, size_t n, unsigned seq)
{
    unsigned char *got = malloc(n + 1);
    CHECK(got != NULL && (n == 0 || read_all(fd, got, n)));
    CHECK(has_pattern(got, n, 1, seq));
    free(got);
}

__attribute__((unused)) static void
await_broken(int fd)
{
    ssize_t n;
    while ((n = write(fd, "x", 1)) == 1) {
        check_pause_ms(1);
    }
    CHECK(n == -1 && errno == EPIPE);
}

#endif
