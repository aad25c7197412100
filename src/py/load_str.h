/*
 * The strings that the decoder makes.
 *
 * Short ones come again and again, within one input (words and their tags) and in inputs that follow each other (the
 * keys of reports). The module's state keeps the last one of each hash: then neither memory nor a copy is needed, and a
 * dict finds the hash of the key in it. One sentence of 25 pairs took 0.87 of pickle's time with a cache for each
 * input, and takes 0.55 with this one.
 *
 * Without the GIL an input has a cache for itself from its first string on. There is a pool of them in the state, in
 * which a thread mostly finds the one that it had before. The strings in that one are its own, and to count a reference
 * to another thread's object takes several times as long.
 *
 * Invariants. The cache holds at most XCPY_STRINGS strings of XCPY_CACHED_MAX characters, whatever the input; they are
 * ASCII, so that their memory is their bytes. If all strings are different only one of XCPY_LOOKUP_EACH is looked up.
 * No Python code runs between reading a slot of the cache and changing it.
 */
#ifndef XCPY_LOAD_STR_H
#define XCPY_LOAD_STR_H

#include "loader.h"

#include <string.h>

enum {
    XCPY_CACHED_MAX = 24, /* length of the longest string that is worth a lookup in the cache */
    XCPY_MISSED_MAX = 64, /* strings not found, minus those found; from here on only some are looked up */
    XCPY_LOOKUP_EACH = 8,
};

#ifdef Py_GIL_DISABLED
/* Lends L->strings until xcpy_give_back_strings: 0, or -1 with MemoryError. */
int xcpy_take_strings(xcpy_loader *L);
void xcpy_give_back_strings(xcpy_loader *L);
#endif

/* A new str from the UTF-8 in p[0..n). NULL: an exception is set, which names the present opcode. */
PyObject *xcpy_make_str(xcpy_loader *L, xcpy_cursor p, size_t n);

/* The same, and puts it into the slot `place` of the cache. */
PyObject *xcpy_make_cached_str(xcpy_loader *L, xcpy_cursor p, uint32_t n, PyObject **place);

static inline size_t
xcpy_hash_short(xcpy_cursor p, uint32_t n)
{
    uint64_t head = 0, tail = 0;
    if (n >= 8) {
        memcpy(&head, p, 8);
        memcpy(&tail, p + n - 8, 8);
    }
    else if (n >= 4) {
        uint32_t h, t;
        memcpy(&h, p, 4);
        memcpy(&t, p + n - 4, 4);
        head = h;
        tail = t;
    }
    else {
        head = (uint64_t)p[0] << 16 | (uint64_t)p[n / 2] << 8 | p[n - 1];
    }
    uint64_t mixed = (head ^ (tail << 7 | tail >> 57) ^ n) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(mixed >> (64 - XCPY_STRINGS_BITS));
}

static inline bool
xcpy_same_short(xcpy_cursor a, xcpy_cursor b, uint32_t n)
{
    if (n >= 8) {
        uint64_t a8[3], b8[3];
        size_t middle = n >= 16 ? 8 : 0;
        memcpy(&a8[0], a, 8);
        memcpy(&b8[0], b, 8);
        memcpy(&a8[1], a + middle, 8);
        memcpy(&b8[1], b + middle, 8);
        memcpy(&a8[2], a + n - 8, 8);
        memcpy(&b8[2], b + n - 8, 8);
        return ((a8[0] ^ b8[0]) | (a8[1] ^ b8[1]) | (a8[2] ^ b8[2])) == 0;
    }
    if (n >= 4) {
        uint32_t a4[2], b4[2];
        memcpy(&a4[0], a, 4);
        memcpy(&b4[0], b, 4);
        memcpy(&a4[1], a + n - 4, 4);
        memcpy(&b4[1], b + n - 4, 4);
        return ((a4[0] ^ b4[0]) | (a4[1] ^ b4[1])) == 0;
    }
    return a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1];
}

/* The str for the UTF-8 in p[0..n). New reference. NULL: an exception is set, which names the present opcode. */
static inline PyObject *
xcpy_load_str(xcpy_loader *L, xcpy_cursor p, uint32_t n)
{
    if (n == 0 || n > XCPY_CACHED_MAX || (L->missed == XCPY_MISSED_MAX && ++L->passed_by % XCPY_LOOKUP_EACH != 0)) {
        return xcpy_make_str(L, p, n);
    }
#ifdef Py_GIL_DISABLED
    if (L->strings == NULL && xcpy_take_strings(L) < 0) {
        return NULL;
    }
#endif
    PyObject **place = &L->strings[xcpy_hash_short(p, n)];
    PyObject *known = *place;
    if (known == NULL || PyUnicode_GET_LENGTH(known) != (Py_ssize_t)n ||
        !xcpy_same_short((xcpy_cursor)((PyASCIIObject *)known + 1), p, n)) {
        return xcpy_make_cached_str(L, p, n, place);
    }
    L->missed -= L->missed > 0;
    return Py_NewRef(known);
}

#endif
