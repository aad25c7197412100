/*
 * xc_scan.c, against the small machine below.
 *
 * ONE: one turn of the loop of xc_scan(), from every state that can be before a turn: any number of objects, any number
 * of bytes behind the opcode, and up to three in front of it, where nobody looks any more. The turn does what the
 * machine does, and the state behind it is further on: so the same holds for a whole payload of any size. Left out is
 * PICKLE, with which a payload ends: see pickle.c.
 *
 * SIEVE: one turn of the loop of xc_sieve_next(), from every state, so payloads of any size in any number of parts. The
 * turn takes a byte of an opcode or bytes behind it, is over each byte once, and looks at no other. When the opcode is
 * complete its id is reported, once, and the next opcode is looked for where the machine has it.
 *
 * BYTES: of a payload of any size, the quick look whether it is one bytes object does not contradict the machine.
 *
 * Else: the whole scan of each payload of SIZE bytes. It says yes exactly if the machine does, and reports the same
 * channel ids in the same order.
 */
#include <stdlib.h>
#include <string.h>

#include "proof.h"

#define memchr first_of /* the library's, as a loop */
static void *first_of(const void *bytes, int byte, size_t n);
#include "xc_bytes.h"
#include "xc_frame.h"
#include "xc_pickle.c"
#if defined(ONE) || defined(SIEVE)
static size_t height; /* the sieve has none */
static void from_any_state(size_t *at, size_t *height);
static void step_was(size_t at, size_t height);
static bool is_first(void);
/* clang-format off */
#define while(condition) for (from_any_state(&at, &height); is_first() && (condition); step_was(at, height))
/* clang-format on */
#endif
#include "xc_scan.c"
#undef while

/* What the loader does, as xc_opcodes.h tells it, but objects are only counted. */
typedef struct {
    enum { GOES_ON, ENDS_WELL, ENDS_BADLY } verdict;
    size_t next, objects; /* where the next opcode stands, and how many objects there are */
    bool is_id;
    uint32_t number; /* an id, if it is one */
} turn;

static uint32_t
operand(const unsigned char *at)
{
    return at[0] * 0x1000000u + at[1] * 0x10000u + at[2] * 0x100u + at[3];
}

/* The opcode at `i` of `size` bytes. */
static turn
machine(const unsigned char *bytes, size_t size, size_t i, size_t objects)
{
    size_t behind = size - i - 1; /* bytes behind the opcode */
    size_t length = 0, takes = 0;
    unsigned char code = bytes[i];
    uint32_t number = behind < 4 ? 0 : operand(bytes + i + 1);
    uint64_t huge = behind < 8 ? 0 : (uint64_t)number << 32 | operand(bytes + i + 5);
    bool negative = number > 0x7fffffff;
    if (code == 'Q') {
        return (turn){objects == 1 ? ENDS_WELL : ENDS_BADLY};
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
        length = negative ? size : 4;
    }
    else if (code == '@' || code == 'E' || code == 'O') {
        length = negative ? size : 4;
        takes = number;
    }
    else if (code == 'A' || code == 'H' || code == 'I' || code == 'M' || code == 'N' || code == 'S') {
        length = negative ? size : 4 + (size_t)number;
    }
    else if (code == 'U' || code == 'V') {
        length = huge < size ? 8 + (size_t)huge : size;
    }
    else {
        return (turn){ENDS_BADLY};
    }
    if (length > behind || takes > objects) {
        return (turn){ENDS_BADLY};
    }
    return (turn){GOES_ON, i + 1 + length, objects - takes + 1, code == 'B', number};
}

static unsigned char *payload;

#if defined(BYTES)
static void *
first_of(const void *bytes, int byte, size_t n)
{
    return NULL;
}

int
main(void)
{
    size_t size = nondet_size();
    ASSUME(size <= XC_MAX_LONG);
    payload = malloc(size);
    size_t head = xc_scan_bytes(payload, size);
    if (size > 0) {
        turn first = machine(payload, size, 0, 0);
        bool only = first.verdict == GOES_ON && first.next == size - 1 && payload[size - 1] == 'Q';
        PROVE(head == (only && payload[0] == 'A' ? 5 : only && payload[0] == 'U' ? 9 : 0));
    }
    return 0;
}
#elif defined(ONE) || defined(SIEVE)
enum { FRONT = 3 };
static unsigned char window[FRONT + 9]; /* all that one turn may look at */
static size_t state_at, state_height, next_at, next_height;
static bool begun, goes_on, reported, refuses;
static uint32_t id;

static void
from_any_state(size_t *at, size_t *height)
{
    PROVE(*at == 0 && *height == 0); /* the first state is one of them */
    *at = state_at;
    *height = state_height;
}

static bool
is_first(void)
{
    bool first = !begun;
    begun = true;
    return first;
}

static void
step_was(size_t at, size_t height)
{
    next_at = at;
    next_height = height;
    goes_on = true;
}

/* One place is enough: that of the opcode. */
static void *
first_of(const void *bytes, int byte, size_t n)
{
    PROVE(bytes == payload && state_at < n);
    return payload[state_at] == byte || nondet_bool() ? payload : NULL;
}

static bool
on_id(void *arg, uint32_t number)
{
    PROVE(arg == &id && !reported);
    reported = true;
    id = number;
    return !refuses;
}

#ifdef SIEVE
/* Bytes of the operand's fixed part. */
static unsigned
fixed(unsigned char code)
{
    return code == 'U' || code == 'V' || code == 'D'   ? 8
           : code == 'T'                               ? 16
           : code > 0 && strchr("FGBK@EOAHIMNS", code) ? 4
                                                       : 0;
}

/* What holds between two turns: `op` has `n` bytes of what is an opcode, and lacks some. */
static bool
sound(const xc_sieve *sieve)
{
    return sieve->n == 0 || (sieve->skip == 0 && sieve->n <= fixed(sieve->op[0]));
}

int
main(void)
{
    xc_sieve sieve = {.skip = nondet_u64(), .n = nondet_u32(), .over = nondet_bool()}, first = {0};
    unsigned char op[17]; /* the whole opcode */
    size_t size = nondet_size();
    state_at = nondet_size();
    refuses = nondet_bool();
    ASSUME(state_at <= size && state_at <= FRONT && size <= XC_MAX_LONG);
    for (unsigned i = 0; i < sizeof op; i++) {
        sieve.op[i] = i < sieve.n ? op[i] : nondet_byte();
    }
    ASSUME(sound(&sieve));
    PROVE(sound(&first));
    const xc_sieve old = sieve;
    unsigned char *part = window + sizeof window - FRONT - 1; /* one byte too many is out of bounds */
    if (!old.over && old.skip == 0 && state_at < size) {
        part[state_at] = op[old.n];
    }
    bool good = xc_sieve_next(&sieve, part, size, on_id, &id);
    bool complete = old.skip == 0 && old.n == fixed(op[0]);
    if (old.over || state_at == size) {
        PROVE(good && !goes_on && !reported && sieve.over == old.over && sieve.skip == old.skip && sieve.n == old.n);
        return 0;
    }
    PROVE(goes_on == good && good == !(reported && refuses) && sound(&sieve));
    if (old.skip > 0) {
        size_t n = old.skip < size - state_at ? old.skip : size - state_at;
        PROVE(good && !reported && next_at == state_at + n && sieve.skip == old.skip - n && sieve.n == 0 &&
              !sieve.over);
    }
    else if (!complete) {
        PROVE(good && !reported && next_at == state_at + 1 && sieve.skip == 0 && sieve.n == old.n + 1 && !sieve.over);
        for (unsigned i = 0; i < sizeof op; i++) {
            PROVE(i > old.n || sieve.op[i] == op[i]);
        }
    }
    else {
        turn expected = op[0] == 'W' ? (turn){ENDS_WELL} : machine(op, SIZE_MAX / 2, 0, SIZE_MAX / 2);
        PROVE(reported == expected.is_id && (!reported || id == expected.number));
        PROVE(!good || (next_at == state_at + 1 && sieve.n == 0));
        if (expected.verdict == GOES_ON) {
            PROVE(!sieve.over && 1 + fixed(op[0]) + sieve.skip == expected.next);
        }
        else { /* it is over, unless only an operand is wrong, which it does not look at */
            PROVE(sieve.over == (fixed(op[0]) == 0));
        }
    }
    return 0;
}
#else
int
main(void)
{
    xc_err err;
    size_t size = nondet_size();
    state_at = nondet_size();
    state_height = nondet_size();
    refuses = nondet_bool();
    ASSUME(size <= XC_MAX_LONG && state_height <= XC_MAX_LONG && state_at <= size && state_at <= FRONT);
    for (size_t i = 0; i < sizeof window; i++) {
        window[i] = nondet_byte();
    }
    payload = window + (size < sizeof window ? sizeof window - size : 0); /* one byte too many is out of bounds */
    ASSUME(state_at == size || payload[state_at] != 'W');
    xc_status rc = xc_scan(payload, size, on_id, &id, &err);
    turn expected = {ENDS_BADLY};
    if (state_at < size) {
        expected = machine(payload, size, state_at, state_height);
        PROVE(!reported || xc_scan_may_carry_ids(payload, size));
    }
    PROVE(reported == (expected.verdict == GOES_ON && expected.is_id) && (!reported || id == expected.number));
    if (reported && refuses) {
        PROVE(rc == XC_NOMEM && !goes_on);
    }
    else if (expected.verdict == GOES_ON) {
        PROVE(goes_on && next_at == expected.next && next_height == expected.objects);
        PROVE(next_at > state_at && next_at <= size && next_height <= state_height + 1);
    }
    else {
        PROVE(!goes_on && rc == (expected.verdict == ENDS_WELL ? XC_OK : XC_BAD));
    }
    return 0;
}
#endif
#else
static uint32_t seen[SIZE];
static size_t n_seen, stop_at;

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
    unsigned char bytes[SIZE];
    payload = bytes;
    stop_at = nondet_size();
    xc_err err;
    turn now = {GOES_ON};
    size_t n_ids = 0;
    uint32_t ids[SIZE];
    for (size_t i = 0; i < SIZE; i++) {
        if (i == now.next && now.verdict == GOES_ON) { /* else it is a part of an operand */
            now = machine(payload, SIZE, i, now.objects);
            if (now.verdict == GOES_ON && now.is_id) {
                ids[n_ids++] = now.number;
            }
        }
    }
    xc_status rc = xc_scan(payload, SIZE, on_id, &n_seen, &err);
    for (size_t i = 0; i < n_seen; i++) {
        PROVE(seen[i] == ids[i]);
    }
    if (n_seen == stop_at && stop_at > 0) {
        PROVE(rc == XC_NOMEM && n_seen <= n_ids);
    }
    else {
        PROVE(rc == (now.verdict == ENDS_WELL ? XC_OK : XC_BAD) && n_seen == n_ids);
    }
    PROVE(xc_scan_may_carry_ids(payload, SIZE) || n_seen == 0);
    return 0;
}
#endif
