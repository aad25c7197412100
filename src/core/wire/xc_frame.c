/*
 * The 9 bytes in front of a payload: signed code, channel id, signed length, big-endian. After xc_frame_unpack the rest
 * of the core can rely on a known code and a length that is not negative.
 */
#include "xc_frame.h"

#include "xc_bytes.h"

const char *
xc_code_name(uint8_t code)
{
    static const char *const names[] = {"STATUS",      "RECONFIGURE",  "TERMINATE", "EXEC",     "DATA",  "CLOSE",
                                        "CLOSE_ERROR", "LAST_MESSAGE", "HELLO",     "LONG",     "PIECE", "DROP",
                                        "MOVE",        "CREDIT",       "WAITS",     "INTERRUPT"};
    return code < sizeof names / sizeof *names ? names[code] : "?";
}

void
xc_frame_pack(unsigned char out[XC_HEADER_SIZE], xc_code code, uint32_t chan, uint32_t size)
{
    XC_ASSERT(code <= XC_INTERRUPT && size <= XC_MAX_PAYLOAD);
    out[0] = (unsigned char)code;
    xc_put_u32(out + 1, chan);
    xc_put_u32(out + 5, size);
}

static xc_status
bad_header(const unsigned char in[XC_HEADER_SIZE], const char *what, xc_err *err)
{
    return xc_failf(err, XC_BAD, "read a frame's header", "%s in %02x %02x%02x%02x%02x %02x%02x%02x%02x", what, in[0],
                    in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]);
}

xc_status
xc_frame_unpack(const unsigned char in[XC_HEADER_SIZE], xc_frame *out, xc_err *err)
{
    uint32_t size = xc_get_u32(in + 5);
    if (in[0] > XC_INTERRUPT) {
        return bad_header(in, "unknown message code", err);
    }
    if (size > XC_MAX_PAYLOAD) {
        return bad_header(in, "negative payload length", err);
    }
    uint32_t fixed = in[0] == XC_LONG ? XC_LONG_SIZE : in[0] == XC_CREDIT ? XC_CREDIT_SIZE : 0;
    if ((in[0] == XC_LONG || in[0] >= XC_DROP) && size != fixed) {
        return bad_header(in, "wrong payload length", err);
    }
    *out = (xc_frame){.code = in[0], .chan = xc_get_u32(in + 1), .size = size};
    return XC_OK;
}

void
xc_long_pack(unsigned char out[XC_LONG_SIZE], const xc_long_frame *message)
{
    out[0] = message->code;
    xc_put_u32(out + 1, message->chan);
    xc_put_u64(out + 5, message->size);
}

xc_status
xc_long_unpack(const unsigned char in[XC_LONG_SIZE], xc_long_frame *out, xc_err *err)
{
    uint64_t size = xc_get_u64(in + 5);
    if (in[0] > XC_HELLO) {
        return xc_failf(err, XC_BAD, "read a long message's head", "code %u cannot travel in pieces", in[0]);
    }
    if (size == 0 || size > XC_MAX_LONG) {
        return xc_failf(err, XC_BAD, "read a long message's head", "%llu bytes", (unsigned long long)size);
    }
    *out = (xc_long_frame){.code = in[0], .chan = xc_get_u32(in + 1), .size = size};
    return XC_OK;
}

void
xc_credit_pack(unsigned char out[XC_CREDIT_SIZE], uint64_t taken, uint64_t limit)
{
    xc_put_u64(out, taken);
    xc_put_u64(out + 8, limit);
}

void
xc_credit_unpack(const unsigned char in[XC_CREDIT_SIZE], uint64_t *taken, uint64_t *limit)
{
    *taken = xc_get_u64(in);
    *limit = xc_get_u64(in + 8);
}
