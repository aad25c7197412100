/*
 * The far end as a test plays it: frames put together by hand, written in cuts, read back one by one and checked.
 * The fds here are blocking ones.
 */
#ifndef WIRE_H
#define WIRE_H

#include "check.h"
#include "xc_frame.h"

typedef struct {
    unsigned char *data; /* owned */
    size_t n, cap;
} wire;

/* Room for n more bytes at the end; the place where they go. */
__attribute__((unused)) static unsigned char *
wire_room(wire *to, size_t n)
{
    if (to->n + n > to->cap) {
        to->cap = (to->n + n) * 2;
        to->data = realloc(to->data, to->cap);
        CHECK(to->data != NULL);
    }
    to->n += n;
    return to->data + to->n - n;
}

__attribute__((unused)) static void
wire_add(wire *to, int code, uint32_t chan, const void *payload, size_t size)
{
    unsigned char *at = wire_room(to, XC_HEADER_SIZE + size);
    xc_frame_pack(at, (xc_code)code, chan, (uint32_t)size);
    if (size > 0) {
        memcpy(at + XC_HEADER_SIZE, payload, size);
    }
}

__attribute__((unused)) static void
wire_free(wire *it)
{
    free(it->data);
    *it = (wire){NULL, 0, 0};
}

__attribute__((unused)) static void
write_all(int fd, const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    while (n > 0) {
        ssize_t put = write(fd, at, n);
        if (put < 0) {
            CHECK_INT(errno, EINTR);
            continue;
        }
        at += put;
        n -= (size_t)put;
    }
}

/* False: the stream ended before the first of the n bytes. */
__attribute__((unused)) static bool
read_all(int fd, void *into, size_t n)
{
    for (size_t have = 0; have < n;) {
        ssize_t got = read(fd, (unsigned char *)into + have, n - have);
        if (got < 0) {
            CHECK_INT(errno, EINTR);
            continue;
        }
        if (got == 0) {
            CHECK_INT(have, 0); /* not in the middle */
            return false;
        }
        have += (size_t)got;
    }
    return true;
}

/* The next frame; its payload is owned, never NULL. False at the end of the stream. */
__attribute__((unused)) static bool
read_frame(int fd, xc_frame *frame, unsigned char **payload)
{
    unsigned char header[XC_HEADER_SIZE];
    xc_err err;
    if (!read_all(fd, header, sizeof header)) {
        return false;
    }
    CHECK_RC(xc_frame_unpack(header, frame, &err), XC_OK);
    *payload = malloc(frame->size + 1);
    CHECK(*payload != NULL);
    CHECK(frame->size == 0 || read_all(fd, *payload, frame->size));
    return true;
}

/* The next frame is this one. */
__attribute__((unused)) static void
expect_frame(int fd, int code, uint32_t chan, const void *payload, size_t size)
{
    xc_frame frame;
    unsigned char *got;
    CHECK(read_frame(fd, &frame, &got));
    CHECK_INT(frame.code, code);
    CHECK_INT(frame.chan, chan);
    CHECK_INT(frame.size, size);
    CHECK(size == 0 || memcmp(got, payload, size) == 0);
    free(got);
}

__attribute__((unused)) static void
expect_end(int fd)
{
    unsigned char byte;
    CHECK(!read_all(fd, &byte, 1));
}

/* What xc_writer_end() leaves. */
__attribute__((unused)) static void
expect_goodbye(int fd)
{
    expect_frame(fd, XC_TERMINATE, 0, NULL, 0);
    expect_end(fd);
}

/* A payload that tells who sent it and as which one in the row, and of which each byte can be checked. */
__attribute__((unused)) static void
fill_pattern(unsigned char *into, size_t n, unsigned who, unsigned seq)
{
    for (size_t i = 0; i < n; i++) {
        into[i] = (unsigned char)(who * 37 + seq * 11 + i * 7 + (i >> 8));
    }
}

__attribute__((unused)) static bool
has_pattern(const unsigned char *bytes, size_t n, unsigned who, unsigned seq)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != (unsigned char)(who * 37 + seq * 11 + i * 7 + (i >> 8))) {
            return false;
        }
    }
    return true;
}

/* A DATA frame whose payload is that pattern. */
__attribute__((unused)) static void
wire_add_pattern(wire *to, uint32_t chan, size_t size, unsigned seq)
{
    unsigned char *payload = malloc(size + 1);
    CHECK(payload != NULL);
    fill_pattern(payload, size, chan, seq);
    wire_add(to, XC_DATA, chan, payload, size);
    free(payload);
}

#endif
