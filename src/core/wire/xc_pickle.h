/*
 * The operand of PICKLE, which is the last opcode of its payload: a pickle, and the buffers beside it.
 *
 *     8 bytes length of the pickle | 4 bytes number of buffers | 8 bytes length of each | the pickle | the buffers
 *
 * Each buffer begins at an offset of the payload that is a multiple of XC_PICKLE_ALIGN, so that the payload's memory
 * can become the receiver's arrays. What is between them is ignored.
 */
#ifndef XC_PICKLE_H
#define XC_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef XC_PICKLE_ALIGN
enum { XC_PICKLE_ALIGN = 64 };
#endif
enum { XC_PICKLE_HEAD = 12, XC_PICKLE_SIZE = 8 };

/* All are places in the payload. */
typedef struct {
    size_t lengths; /* of the buffers */
    uint32_t n;     /* buffers */
    size_t at;      /* the pickle */
    size_t size;    /* bytes of the pickle */
    size_t end;     /* behind the last buffer */
} xc_pickle;

/* Reads the operand at payload[at]. False: not all of it lies within the payload. */
bool xc_pickle_read(const unsigned char *payload, size_t size, size_t at, xc_pickle *pickle);

/* Where the buffer number `n` begins, in ascending order: *end is the end of the one before, at first that of the
 * pickle, and becomes its own. */
size_t xc_pickle_buffer(const unsigned char *payload, const xc_pickle *pickle, uint32_t n, size_t *end);

/* The first place from `at` on where a buffer may begin. */
static inline size_t
xc_pickle_align(size_t at)
{
    return (at + XC_PICKLE_ALIGN - 1) / XC_PICKLE_ALIGN * XC_PICKLE_ALIGN;
}

#endif
