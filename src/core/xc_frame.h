/*
 * The wire: the 9-byte header of a frame, the message codes, the limits. Nothing else in the project knows them.
 *
 * Version 1 is execnet's: struct "!bii" = code, channel id, payload length, then the payload. Codes 0-7 are
 * execnet's; XC_HELLO is ours, sent only where both ends are known to be ours (see execnet_c/bootstrap.py).
 *
 * A far end that is started writes the marker before its first frame: what a login shell or a start-up file prints
 * comes before it and is not taken for frames.
 */
#ifndef XC_FRAME_H
#define XC_FRAME_H

#include "xc_base.h"

#define XC_MARKER "\0execnet_c\0"
enum { XC_MARKER_SIZE = sizeof XC_MARKER - 1 };

enum {
    XC_HEADER_SIZE = 9,
    XC_MAX_PAYLOAD = 0x7fffffff, /* bytes: a signed 32-bit length */
};

typedef enum {
    XC_STATUS = 0,       /* asks for a status dict, sent back on the channel, which is then closed */
    XC_RECONFIGURE = 1,  /* string coercion of a channel, or of the gateway for channel 0 */
    XC_TERMINATE = 2,    /* goodbye */
    XC_EXEC = 3,         /* (source, file name, function name, keyword arguments) */
    XC_DATA = 4,         /* one item */
    XC_CLOSE = 5,        /* the channel is closed for both sides */
    XC_CLOSE_ERROR = 6,  /* the same, with a text */
    XC_LAST_MESSAGE = 7, /* the sender of it sends no more; it may still receive */
    XC_HELLO = 8,        /* ours: settings one way, what started the other way */
} xc_code;

typedef struct {
    uint8_t code;  /* an xc_code, checked */
    uint32_t chan; /* the id's 32 bits as they are: an id is opaque, execnet's may be negative after 2**31 */
    uint32_t size; /* bytes of payload, at most XC_MAX_PAYLOAD */
} xc_frame;

/* "DATA"; "?" for a number that is no code. */
const char *xc_code_name(uint8_t code);

void xc_frame_pack(unsigned char out[XC_HEADER_SIZE], xc_code code, uint32_t chan, uint32_t size);

/* XC_OK, or XC_BAD with what is wrong (an unknown code, a negative length) and the header's bytes in hex. */
xc_status xc_frame_unpack(const unsigned char in[XC_HEADER_SIZE], xc_frame *out, xc_err *err);

#endif
