/*
 * A long message is cut into frames: whatever parts it lies in, its bytes come out in order, no piece is larger than it
 * may be, and the last byte travels alone.
 */
#include "check.h"
#include "wire.h"
#include "xc_bytes.h"
#include "xc_cut.h"
#include "xc_stream.h"

enum { MOST_PARTS = 40 };

static unsigned random_state = 1;

static unsigned
random_below(unsigned n)
{
    random_state = random_state * 1103515245 + 12345;
    return (random_state >> 8) % n;
}

/* Takes the frames as a writer does: in bites, each of which advances the parts in place. */
static void
collect(wire *to, struct iovec *parts, int n, unsigned bite)
{
    while (n > 0) {
        size_t put = 0;
        for (int i = 0; i < n && put < bite; i++) {
            size_t more = parts[i].iov_len < bite - put ? parts[i].iov_len : bite - put;
            memcpy(wire_room(to, more), parts[i].iov_base, more);
            put += more;
        }
        xc_iov_advance(&parts, &n, put);
    }
}

/* The payload that those frames bring; they are as they must be. */
static wire
put_together(const wire *frames, const xc_long_frame *message, uint32_t number)
{
    wire payload = {NULL, 0, 0};
    size_t last = 0;
    for (size_t at = 0; at < frames->n;) {
        xc_frame frame;
        xc_err err;
        CHECK_RC(xc_frame_unpack(frames->data + at, &frame, &err), XC_OK);
        CHECK_INT(frame.chan, number);
        CHECK_INT(frame.code, at == 0 ? XC_LONG : XC_PIECE);
        at += XC_HEADER_SIZE;
        CHECK(at + frame.size <= frames->n);
        if (frame.code == XC_LONG) {
            xc_long_frame got;
            CHECK_RC(xc_long_unpack(frames->data + at, &got, &err), XC_OK);
            CHECK(got.code == message->code && got.chan == message->chan && got.size == message->size);
        }
        else {
            CHECK(frame.size >= 1 && frame.size <= XC_PIECE_SIZE);
            CHECK(payload.n > 0 || frame.size >= 5); /* enough to see what it is */
            memcpy(wire_room(&payload, frame.size), frames->data + at, frame.size);
            last = frame.size;
        }
        at += frame.size;
    }
    CHECK_INT(payload.n, message->size);
    CHECK_INT(last, 1);
    return payload;
}

static void
any_parts(void)
{
    static const size_t sizes[] = {XC_LONG_MIN, XC_LONG_MIN + 1, 2 * XC_PIECE_SIZE + 1, 3 * XC_PIECE_SIZE + 2,
                                   3 * XC_PIECE_SIZE + 77777};
    for (unsigned round = 0; round < 60; round++) {
        struct iovec room[MOST_PARTS + 1], *parts = room + 1, *frame;
        xc_long_frame message = {.code = XC_DATA, .chan = round, .size = sizes[round % 5]};
        unsigned n_parts = 1 + random_below(MOST_PARTS);
        unsigned char *bytes = malloc((size_t)message.size);
        CHECK(bytes != NULL);
        fill_pattern(bytes, (size_t)message.size, round, 3);
        size_t at = 0;
        for (unsigned i = 0; i < n_parts; i++) {
            size_t left = (size_t)message.size - at;
            size_t some = i == n_parts - 1 ? left : random_below((unsigned)(2 * left / (n_parts - i)) + 1);
            some = random_below(4) == 0 && i < n_parts - 1 ? 0 : some;
            parts[i] = (struct iovec){bytes + at, some};
            at += some;
        }
        xc_cut cut;
        wire frames = {NULL, 0, 0};
        int n;
        xc_cut_begin(&cut, &message, parts);
        while ((n = xc_cut_next(&cut, round + 5, &frame)) > 0) {
            CHECK(frame >= room && frame + n <= parts + n_parts);
            collect(&frames, frame, n, round % 2 == 0 ? 4000 : 10000000);
        }
        CHECK_INT(xc_cut_next(&cut, round + 5, &frame), 0);
        wire payload = put_together(&frames, &message, round + 5);
        CHECK(has_pattern(payload.data, payload.n, round, 3));
        wire_free(&payload);
        wire_free(&frames);
        free(bytes);
    }
}

/* Longer than a frame could say: only the front of it is looked at here. */
static void
more_than_a_frame_holds(void)
{
    static unsigned char some[XC_PIECE_SIZE];
    struct iovec room[2] = {{NULL, 0}, {some, (size_t)5 << 30}}, *frame;
    xc_long_frame message = {.code = XC_DATA, .chan = 1, .size = (uint64_t)5 << 30};
    xc_cut cut;
    size_t left = (size_t)5 << 30;
    xc_cut_begin(&cut, &message, room + 1);
    while (left > 0) {
        int n = xc_cut_next(&cut, 0, &frame);
        CHECK_INT(n, 2);
        CHECK(frame[1].iov_len <= XC_PIECE_SIZE);
        CHECK((uintptr_t)frame[1].iov_base == (uintptr_t)some + (((size_t)5 << 30) - left)); /* `some` has no more */
        left -= frame[1].iov_len;
        CHECK(left > 0 || frame[1].iov_len == 1);
        struct iovec *rest = frame;
        xc_iov_advance(&rest, &n, frame[0].iov_len + frame[1].iov_len);
    }
    CHECK_INT(xc_cut_next(&cut, 0, &frame), 0);
}

int
main(void)
{
    check_begin("cut", 60);
    RUN(any_parts);
    RUN(more_than_a_frame_holds);
    return check_end();
}
