/*
 * xc_scan.c: for every payload of SIZE bytes xc_scan() says yes exactly if the small machine below does, and reports
 * the same channel ids in the same order. The two quick looks never contradict it.
 */
#include <string.h>

#include "proof.h"

#define memchr first_of /* the library's, as a loop */
static void *first_of(const void *bytes, int byte, size_t n);
#include "xc_scan.c"

#ifndef SIZE
#define SIZE 18
#endif

/* What the loader does, as xc_opcodes.h tells it, but objects are only counted. */
typedef struct {
    bool ends_well;
    size_t n_ids;
    uint32_t ids[SIZE];
} run;

static uint32_t
operand(const unsigned char *at)
{
    return at[0] * 0x1000000u + at[1] * 0x10000u + at[2] * 0x100u + at[3];
}

static run
machine(const unsigned char *bytes, size_t size)
{
    run result = {false, 0, {0}};
    size_t objects = 0, next = 0; /* next: where the next opcode stands */
    for (size_t i = 0; i < size; i++) {
        if (i != next) {
            continue; /* a part of an operand */
        }
        size_t behind = size - i - 1; /* bytes behind the opcode */
        size_t length = 0, takes = 0;
        unsigned char code = bytes[i];
        uint32_t number = behind < 4 ? 0 : operand(bytes + i + 1);
        uint64_t huge = behind < 8 ? 0 : (uint64_t)number << 32 | operand(bytes + i + 5);
        if (code == 'Q') {
            result.ends_well = objects == 1;
            return result;
        }
        if (code == 'C' || code == 'J' || code == 'L' || code == 'R') {
            length = 0;
        }
        else if (code == 'D') {
            length = 8;
        }
        else if (code == 'T') {
            length = 16;
        }
        else if (code == 'P') {
            takes = 3;
        }
        else if (code == 'F' || code == 'G' || code == 'B') {
            length = 4;
        }
        else if (code == 'K') {
            length = number < 0x80000000u ? 4 : size;
        }
        else if (code == '@' || code == 'E' || code == 'O') {
            length = 4;
            takes = number;
        }
        else if (code == 'A' || code == 'H' || code == 'I' || code == 'M' || code == 'N' || code == 'S') {
            length = 4 + (size_t)number;
        }
        else if (code == 'U' || code == 'V') {
            length = huge < size ? 8 + (size_t)huge : size;
        }
        else {
            return result;
        }
        if (length > behind || takes > objects) {
            return result;
        }
        if (code == 'B') {
            result.ids[result.n_ids++] = number;
        }
        objects = objects - takes + 1;
        next = i + 1 + length;
    }
    return result;
}

static void *
first_of(const void *bytes, int byte, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (((const unsigned char *)bytes)[i] == byte) {
            return (void *)((const unsigned char *)bytes + i);
        }
    }
    return NULL;
}

static uint32_t seen[SIZE];
static size_t n_seen, stop_at;

static bool
on_id(void *arg, uint32_t id)
{
    PROVE(arg == &n_seen && n_seen < SIZE / 5);
    seen[n_seen++] = id;
    return n_seen != stop_at;
}

int
main(void)
{
    unsigned char payload[SIZE]; /* exactly so many: one byte too many is out of bounds */
    size_t size = SIZE;
#ifdef FIRST
    ASSUME(payload[0] == FIRST);
#endif
    stop_at = nondet_size();
    xc_err err;
    run expected = machine(payload, size);
    xc_status rc = xc_scan(payload, size, on_id, &n_seen, &err);
    for (size_t i = 0; i < n_seen; i++) {
        PROVE(seen[i] == expected.ids[i]);
    }
    if (n_seen == stop_at && stop_at > 0) {
        PROVE(rc == XC_NOMEM && n_seen <= expected.n_ids);
    }
    else {
        PROVE(rc == (expected.ends_well ? XC_OK : XC_BAD));
        PROVE(n_seen == expected.n_ids);
    }
    PROVE(xc_scan_may_carry_ids(payload, size) || n_seen == 0);
    size_t head = xc_scan_bytes(payload, size);
    if (head > 0) {
        PROVE(expected.ends_well && (head == 5 ? payload[0] == 'A' : head == 9 && payload[0] == 'U'));
    }
    return 0;
}
