/*
 * Invariant: the bytes in front of `rest` are in frames already, so the header of the next frame may overwrite that
 * place.
 */
#include "xc_cut.h"

void
xc_cut_begin(xc_cut *cut, const xc_long_frame *message, struct iovec *parts)
{
    XC_ASSERT(message->code <= XC_HELLO && message->size > 0 && message->size <= XC_MAX_LONG);
    *cut = (xc_cut){.message = *message, .rest = parts};
}

/* The bytes in front of a piece's payload. */
static size_t
pack_head(xc_cut *cut, uint32_t number, size_t piece)
{
    unsigned char *at = cut->head;
    if (!cut->announced) {
        cut->announced = true;
        xc_frame_pack(at, XC_LONG, number, XC_LONG_SIZE);
        xc_long_pack(at + XC_HEADER_SIZE, &cut->message);
        at += XC_HEADER_SIZE + XC_LONG_SIZE;
    }
    xc_frame_pack(at, XC_PIECE, number, (uint32_t)piece);
    return (size_t)(at - cut->head) + XC_HEADER_SIZE;
}

int
xc_cut_next(xc_cut *cut, uint32_t number, struct iovec **parts)
{
    size_t left = (size_t)cut->message.size;
    if (left == 0) {
        return 0;
    }
    size_t piece = left == 1 ? 1 : left - 1 < XC_PIECE_SIZE ? left - 1 : XC_PIECE_SIZE;
    struct iovec *first = cut->rest;
    if (cut->tail.iov_len > 0) {
        *first = cut->tail;
    }
    first[-1] = (struct iovec){.iov_base = cut->head, .iov_len = pack_head(cut, number, piece)};

    int n = 0;
    size_t more = piece;
    for (; more > 0 && first[n].iov_len <= more; n++) {
        more -= first[n].iov_len;
    }
    cut->rest = first + n;
    cut->tail.iov_len = 0;
    if (more > 0) {
        cut->tail = (struct iovec){(char *)first[n].iov_base + more, first[n].iov_len - more};
        first[n++].iov_len = more;
    }
    cut->message.size -= piece;
    *parts = first - 1;
    return n + 1;
}
