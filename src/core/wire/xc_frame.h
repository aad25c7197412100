/*
 * The wire: the 9-byte header of a frame, the codes, the limits. Nothing else in the core knows them.
 *
 * Version 1 is execnet's: struct "!bii" = code, channel id, payload length, then the payload. Codes 0-7 are execnet's.
 * XC_HELLO is ours, and sent only where both ends are known to be ours (see execnet_c/near/bootstrap.py).
 *
 * A payload of XC_LONG_MIN bytes or more travels in pieces, between which other frames may stand: XC_LONG announces the
 * message, XC_PIECEs bring its payload, and when the last byte has come it takes effect like a frame of its code. These
 * codes, and those above them, are only sent to a far end that is known to have this very version: nothing about them
 * is negotiated.
 *
 * A far end writes the marker before its first frame: what a login shell or a start-up file prints comes before the
 * marker and is not taken for frames.
 */
#ifndef XC_FRAME_H
#define XC_FRAME_H

#include "xc_base.h"

#define XC_MARKER "\0execnet_c\0"
enum { XC_MARKER_SIZE = sizeof XC_MARKER - 1 };

enum {
    XC_HEADER_SIZE = 9,
    XC_MAX_PAYLOAD = 0x7fffffff, /* bytes: a signed 32-bit length */

    XC_LONG_SIZE = 13,         /* bytes of XC_LONG's payload */
    XC_LONG_MIN = 1024 * 1024, /* bytes of payload; from here on it travels in pieces */
    XC_PIECE_SIZE = 512 * 1024,
    XC_LONG_COUNT = 64, /* long messages on their way in one direction at a time, at most */

    XC_CREDIT_SIZE = 16, /* bytes of XC_CREDIT's payload */
    XC_ITEM_COST = 64,   /* bytes that an item counts for beside its payload: what it costs in memory */
};

#define XC_NO_LIMIT UINT64_MAX

/* Bytes of a long message's payload, at most: more than the memory of any machine. */
#if SIZE_MAX > 0xffffffff
#define XC_MAX_LONG ((uint64_t)1 << 46)
#else
#define XC_MAX_LONG ((uint64_t)SIZE_MAX / 4)
#endif

typedef enum {
    XC_STATUS = 0,       /* asks for a status dict, sent back on the channel, which is then closed */
    XC_RECONFIGURE = 1,  /* string coercion of a channel, or of the gateway for channel 0 */
    XC_TERMINATE = 2,    /* goodbye */
    XC_EXEC = 3,         /* (source, file name, function name, keyword arguments) */
    XC_DATA = 4,         /* one item */
    XC_CLOSE = 5,        /* the channel is closed for both sides */
    XC_CLOSE_ERROR = 6,  /* the same, with a text */
    XC_LAST_MESSAGE = 7, /* its sender sends no more on the channel; it may still receive */
    XC_HELLO = 8,        /* ours: settings one way, what started the other way */
    /* In these, the header has the sender's number for the message in place of a channel. Once the message is complete
     * or dropped the number is free for another. */
    XC_LONG = 9,   /* a long message begins: its code (1 byte), channel id (4), size of its payload (8) */
    XC_PIECE = 10, /* the next bytes of that payload */
    XC_DROP = 11,  /* the sender gave the message up: what came of it is forgotten. No payload */
    XC_MOVE = 12,  /* what follows comes through the rings that were offered: see xc_move.c. No payload */
    /* These are about how much may be sent to a channel: see xc_credit.c. */
    XC_CREDIT = 13, /* from who receives: cost of all items that were taken (8 bytes), limit (8), XC_NO_LIMIT: none */
    XC_WAITS = 14,  /* from who sends: he waits for credit. No payload */
    XC_INTERRUPT = 15, /* KeyboardInterrupt for the channel's task: see xc_tasks.c. No payload */
} xc_code;

typedef struct {
    uint8_t code;  /* an xc_code, checked */
    uint32_t chan; /* the id's 32 bits as they are: an id is opaque, execnet's may be negative after 2**31 */
    uint32_t size; /* bytes of payload, at most XC_MAX_PAYLOAD */
} xc_frame;

/* "DATA"; "?" for a number that is no code. */
const char *xc_code_name(uint8_t code);

void xc_frame_pack(unsigned char out[XC_HEADER_SIZE], xc_code code, uint32_t chan, uint32_t size);

/* XC_OK, or XC_BAD with the header's bytes in hex and what is wrong: an unknown code, a negative length, or the wrong
 * length for a LONG, DROP, MOVE, CREDIT, WAITS or INTERRUPT. */
xc_status xc_frame_unpack(const unsigned char in[XC_HEADER_SIZE], xc_frame *out, xc_err *err);

/* What a LONG announces: like xc_frame, but with a larger size. */
typedef struct {
    uint8_t code;  /* checked: at most XC_HELLO */
    uint32_t chan; /* as in xc_frame */
    uint64_t size; /* 1 to XC_MAX_LONG */
} xc_long_frame;

/* The payload of a LONG. */
void xc_long_pack(unsigned char out[XC_LONG_SIZE], const xc_long_frame *message);
xc_status xc_long_unpack(const unsigned char in[XC_LONG_SIZE], xc_long_frame *out, xc_err *err);

/* The payload of a CREDIT. */
void xc_credit_pack(unsigned char out[XC_CREDIT_SIZE], uint64_t taken, uint64_t limit);
void xc_credit_unpack(const unsigned char in[XC_CREDIT_SIZE], uint64_t *taken, uint64_t *limit);

#endif
