/*
 * Invariant: `at` never passes `size`, and no length is used before it is known that so many bytes are there.
 */
#include "xc_pickle.h"

#include "xc_bytes.h"

bool
xc_pickle_read(const unsigned char *payload, size_t size, size_t at, xc_pickle *pickle)
{
    if (size - at < XC_PICKLE_HEAD) {
        return false;
    }
    uint64_t length = xc_get_u64(payload + at);
    uint32_t n = xc_get_u32(payload + at + 8);
    at += XC_PICKLE_HEAD;
    if (n > (size - at) / XC_PICKLE_SIZE) {
        return false;
    }
    pickle->lengths = at;
    pickle->n = n;
    at += (size_t)n * XC_PICKLE_SIZE;
    if (length > size - at) {
        return false;
    }
    pickle->at = at;
    pickle->size = (size_t)length;
    at += pickle->size;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t more = xc_get_u64(payload + pickle->lengths + (size_t)i * XC_PICKLE_SIZE);
        at = xc_pickle_align(at);
        if (at > size || more > size - at) {
            return false;
        }
        at += (size_t)more;
    }
    pickle->end = at;
    return true;
}

size_t
xc_pickle_buffer(const unsigned char *payload, const xc_pickle *pickle, uint32_t n, size_t *end)
{
    size_t begin = xc_pickle_align(*end);
    *end = begin + (size_t)xc_get_u64(payload + pickle->lengths + (size_t)n * XC_PICKLE_SIZE);
    return begin;
}
