/*
 * xc_frame.c and xc_cut.c.
 *
 * FRAMES: every header and every head of a long message: exactly the good ones are accepted, and packing gives the same
 * bytes again. CUT: a message of up to 4 bytes in two parts, where a piece has up to 2: its frames have its bytes, each
 * once and in order, and say how many they have.
 */
#include "proof.h"

#define XC_PIECE_SIZE real_piece_size
#include "xc_frame.h"
#undef XC_PIECE_SIZE
#define XC_PIECE_SIZE ((size_t)2)
#include "xc_frame.c"

#ifdef FRAMES
int
main(void)
{
    xc_err err;
    unsigned char in[XC_HEADER_SIZE], again[XC_HEADER_SIZE], head[XC_LONG_SIZE], same[XC_LONG_SIZE];
    for (int i = 0; i < XC_HEADER_SIZE; i++) {
        in[i] = nondet_byte();
    }
    uint32_t size = in[5] * 0x1000000u + in[6] * 0x10000u + in[7] * 0x100u + in[8];
    uint32_t fixed = in[0] == 9    ? 13
                     : in[0] == 13 ? 16
                     : in[0] >= 11 ? 0
                                   : size; /* LONG, CREDIT; those without a payload */
    bool good = in[0] <= 15 && size < 0x80000000u && size == fixed;
    xc_frame frame;
    xc_status rc = xc_frame_unpack(in, &frame, &err);
    PROVE(rc == (good ? XC_OK : XC_BAD));
    if (rc == XC_OK) {
        xc_frame_pack(again, frame.code, frame.chan, frame.size);
        PROVE(xc_code_name(frame.code)[0] != '?');
    }
    for (int i = 0; i < XC_HEADER_SIZE; i++) {
        PROVE(rc != XC_OK || in[i] == again[i]);
    }

    for (int i = 0; i < XC_LONG_SIZE; i++) {
        head[i] = nondet_byte();
    }
    bool zero = true, larger = head[5] > 0 || head[6] > 0 || head[7] > 0x40; /* than 2**46 */
    for (int i = 5; i < XC_LONG_SIZE; i++) {
        zero = zero && head[i] == 0;
        larger = larger || (i > 7 && head[7] == 0x40 && head[i] > 0);
    }
    xc_long_frame message;
    rc = xc_long_unpack(head, &message, &err);
    PROVE(rc == (head[0] <= 8 && !zero && !larger ? XC_OK : XC_BAD));
    if (rc == XC_OK) {
        xc_long_pack(same, &message);
    }
    for (int i = 0; i < XC_LONG_SIZE; i++) {
        PROVE(rc != XC_OK || head[i] == same[i]);
    }
    return 0;
}
#endif

#ifdef CUT
#include "xc_cut.c"

int
main(void)
{
    static char payload[1]; /* only addresses are used */
    struct iovec room[3], *parts;
    size_t whole = 0, sent = 0;
    for (int i = 1; i < 3; i++) {
        room[i] = (struct iovec){payload + whole, nondet_byte() % 4};
        whole += room[i].iov_len;
    }
    ASSUME(whole > 0 && whole <= 2 * XC_PIECE_SIZE);
    xc_long_frame message = {.code = nondet_byte(), .chan = nondet_u32(), .size = whole};
    ASSUME(message.code <= XC_HELLO);
    uint32_t number = nondet_u32();
    xc_cut cut;
    xc_err err;
    xc_cut_begin(&cut, &message, room + 1);
    int n;
    for (int turn = 0; (n = xc_cut_next(&cut, number, &parts)) > 0; turn++) {
        const unsigned char *head = parts[0].iov_base;
        size_t in_front = parts[0].iov_len, piece = 0;
        PROVE(n <= 3 && in_front == (turn == 0 ? 2 : 1) * (size_t)XC_HEADER_SIZE + (turn == 0 ? XC_LONG_SIZE : 0));
        xc_frame frame;
        if (turn == 0) {
            xc_long_frame announced;
            PROVE(xc_frame_unpack(head, &frame, &err) == XC_OK && frame.code == XC_LONG && frame.chan == number);
            PROVE(xc_long_unpack(head + XC_HEADER_SIZE, &announced, &err) == XC_OK);
            PROVE(announced.code == message.code && announced.chan == message.chan && announced.size == whole);
        }
        PROVE(xc_frame_unpack(head + in_front - XC_HEADER_SIZE, &frame, &err) == XC_OK);
        PROVE(frame.code == XC_PIECE && frame.chan == number && frame.size > 0 && frame.size <= XC_PIECE_SIZE);
        for (int i = 1; i < n; i++) {
            PROVE(parts[i].iov_len == 0 || __CPROVER_same_object(parts[i].iov_base, payload));
            PROVE(parts[i].iov_len == 0 || __CPROVER_POINTER_OFFSET(parts[i].iov_base) == sent);
            sent += parts[i].iov_len;
            piece += parts[i].iov_len;
            parts[i] = (struct iovec){NULL, nondet_size()}; /* the writer may change them */
        }
        PROVE(piece == frame.size && (sent < whole || piece == 1));
    }
    PROVE(sent == whole);
    return 0;
}
#endif
