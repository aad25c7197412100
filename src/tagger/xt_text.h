/*
 * Words as bytes: UTF-8, in which a lone surrogate is three bytes like any other such character. Equal words have equal
 * bytes, and the order of the bytes is that of the code points.
 */
#ifndef XT_TEXT_H
#define XT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Part of a text; borrowed from whoever owns the text. */
typedef struct {
    const unsigned char *at;
    size_t size;
} xt_span;

/* memcmp for short n: for words, calling the function would take longer than comparing. */
static inline bool
xt_same_bytes(const unsigned char *a, const unsigned char *b, size_t n)
{
    uint64_t x, y;
    if (n > 16) {
        return memcmp(a, b, n) == 0;
    }
    if (n >= 8) {
        uint64_t x2, y2;
        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        memcpy(&x2, a + n - 8, 8);
        memcpy(&y2, b + n - 8, 8);
        return ((x ^ y) | (x2 ^ y2)) == 0;
    }
    if (n >= 4) {
        uint32_t x1, y1, x2, y2;
        memcpy(&x1, a, 4);
        memcpy(&y1, b, 4);
        memcpy(&x2, a + n - 4, 4);
        memcpy(&y2, b + n - 4, 4);
        return ((x1 ^ y1) | (x2 ^ y2)) == 0;
    }
    return n == 0 || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
}

static inline bool
xt_span_equal(xt_span a, xt_span b)
{
    return a.size == b.size && xt_same_bytes(a.at, b.at, a.size);
}

/* Negative, 0 or positive, in the order of code points. */
static inline int
xt_span_compare(xt_span a, xt_span b)
{
    size_t both = a.size < b.size ? a.size : b.size;
    int order = both > 0 ? memcmp(a.at, b.at, both) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* The index of a stored model depends on this: a change needs a new version of the block. */
static inline uint32_t
xt_hash(const unsigned char *p, size_t n)
{
    const uint64_t prime = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t hash = (n + 1) * prime, piece;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&piece, p, 8);
        hash = (hash ^ piece) * prime;
        hash ^= hash >> 29;
    }
    if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
        hash ^= (uint64_t)high << 32 | low;
    }
    else if (n > 0) {
        hash ^= (uint64_t)p[0] << 16 | (uint64_t)p[n / 2] << 8 | p[n - 1];
    }
    hash = (hash ^ hash >> 32) * prime;
    return (uint32_t)(hash >> 32);
}

/* The first character; empty for an empty word. */
static inline xt_span
xt_first(xt_span word)
{
    size_t n = word.size > 0;
    while (n < word.size && (word.at[n] & 0xC0) == 0x80) {
        n++;
    }
    return (xt_span){word.at, n};
}

/* The last three characters, or fewer. */
static inline xt_span
xt_last_three(xt_span word)
{
    size_t from = word.size;
    for (int i = 0; i < 3 && from > 0; i++) {
        do {
            from--;
        } while (from > 0 && (word.at[from] & 0xC0) == 0x80);
    }
    return (xt_span){word.at + from, word.size - from};
}

#endif
