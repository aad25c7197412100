/*
 * Walks a payload without building objects: is it well formed, and which channel ids does it carry.
 * No allocation, no recursion; the time is linear in the payload's size.
 */
#ifndef XC_SCAN_H
#define XC_SCAN_H

#include "xc_base.h"

/* Called for each CHANNEL opcode, in order; false stops the scan, which then returns XC_NOMEM. */
typedef bool (*xc_scan_id)(void *arg, uint32_t id);

/*
 * `payload` as in a DATA frame: opcodes up to and including the first STOP; bytes behind it are ignored, as execnet
 * does and as the loader does. XC_OK: every opcode is known, every operand lies within the payload, the stack never
 * runs empty and holds exactly one object at STOP. (Whether strings are UTF-8, keys hashable, and pickles sound is for
 * the loader to find out.) XC_BAD: *err has the offset. `on_id` may be NULL.
 */
xc_status xc_scan(const unsigned char *payload, size_t size, xc_scan_id on_id, void *arg, xc_err *err);

/* A payload that comes in parts and is not kept; zeroed at first. */
typedef struct {
    uint64_t skip;        /* so many of the next bytes are no opcodes */
    unsigned char op[17]; /* an opcode and the fixed part of its operand, as far as they have come */
    unsigned n;           /* bytes of those */
    bool over;            /* STOP has come, or what is no opcode */
} xc_sieve;

/* Calls `on_id` for the ids in the next part, whether or not the whole payload is well formed. False: `on_id` was. */
bool xc_sieve_next(xc_sieve *sieve, const unsigned char *part, size_t size, xc_scan_id on_id, void *arg);

/* Where the bytes begin in a payload that is exactly one bytes object, its opcode and length being in front of them and
 * STOP behind. 0: it is something else. */
size_t xc_scan_bytes(const unsigned char *payload, size_t size);

/* The same if only the first XC_BYTES_HEAD_MAX bytes of `size` have come: nobody knows whether STOP will. */
enum { XC_BYTES_HEAD_MAX = 9 };
size_t xc_scan_bytes_head(const unsigned char *front, uint64_t size);

/* False: surely no channel id in there (a quick look for the opcode's byte). True: scan it to know. */
bool xc_scan_may_carry_ids(const unsigned char *payload, size_t size);

#endif
