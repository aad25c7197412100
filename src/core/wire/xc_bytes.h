/*
 * Numbers as the wire and the serializer have them: 32 or 64 bits, big-endian, at any address.
 */
#ifndef XC_BYTES_H
#define XC_BYTES_H

#include <stdint.h>

static inline uint32_t
xc_get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void
xc_put_u32(unsigned char *p, uint32_t value)
{
    p[0] = (unsigned char)(value >> 24);
    p[1] = (unsigned char)(value >> 16);
    p[2] = (unsigned char)(value >> 8);
    p[3] = (unsigned char)value;
}

static inline uint64_t
xc_get_u64(const unsigned char *p)
{
    return (uint64_t)xc_get_u32(p) << 32 | xc_get_u32(p + 4);
}

static inline void
xc_put_u64(unsigned char *p, uint64_t value)
{
    xc_put_u32(p, (uint32_t)(value >> 32));
    xc_put_u32(p + 4, (uint32_t)value);
}

#endif
