/*
 * xc_scan: every opcode, every way to be cut short, and noise.
 */
#include "check.h"

#include "xc_opcodes.h"
#include "xc_scan.h"

#define BYTES(text) (const unsigned char *)(text), sizeof(text) - 1

static uint32_t seen[8];
static unsigned n_seen;
static unsigned stop_after;

static bool
remember(void *arg, uint32_t id)
{
    (void)arg;
    if (n_seen < 8) {
        seen[n_seen] = id;
    }
    return ++n_seen != stop_after;
}

static xc_status
scan(const unsigned char *payload, size_t size, xc_err *err)
{
    /* An exact copy on the heap: the sanitizer sees a look at one byte too many. */
    unsigned char *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, payload, size);
    n_seen = 0;
    memset(err, 0, sizeof(*err));
    xc_status rc = xc_scan(copy, size, remember, NULL, err);
    CHECK(rc == XC_OK || err->code == rc);
    free(copy);
    return rc;
}

static void
good(const unsigned char *payload, size_t size)
{
    xc_err err;
    CHECK_RC(scan(payload, size, &err), XC_OK);
    /* The first STOP ends it, so no proper prefix is well formed. */
    for (size_t n = 0; n < size; n++) {
        CHECK_RC(scan(payload, n, &err), XC_BAD);
    }
}

static void
bad(const unsigned char *payload, size_t size, const char *detail)
{
    xc_err err;
    CHECK_RC(scan(payload, size, &err), XC_BAD);
    if (strcmp(err.detail, detail) != 0) {
        fprintf(stderr, "got: %s\nnot: %s\n", err.detail, detail);
    }
    CHECK(strcmp(err.detail, detail) == 0);
}

static void
case_each_opcode(void)
{
    good(BYTES("LQ"));
    good(BYTES("RQ"));
    good(BYTES("CQ"));
    good(BYTES("JQ"));
    good(BYTES("F\xff\xff\xff\xffQ"));
    good(BYTES("G\0\0\0\1Q"));
    good(BYTES("D12345678Q"));
    good(BYTES("T1234567812345678Q"));
    good(BYTES("B\0\0\0\1Q"));
    good(BYTES("A\0\0\0\2QQQ"));
    good(BYTES("N\0\0\0\1aQ"));
    good(BYTES("M\0\0\0\0Q"));
    good(BYTES("S\0\0\0\1aQ"));
    good(BYTES("H\0\0\0\1aQ"));
    good(BYTES("I\0\0\0\1aQ"));
    good(BYTES("K\0\0\0\0Q"));
    good(BYTES("@\0\0\0\0Q"));
    good(BYTES("O\0\0\0\0Q"));
    good(BYTES("E\0\0\0\0Q"));
    good(BYTES("U\0\0\0\0\0\0\0\2QQQ"));
    good(BYTES("V\0\0\0\0\0\0\0\1aQ"));
}

static void
case_containers(void)
{
    good(BYTES("LLL@\0\0\0\3Q"));
    good(BYTES("LRO\0\0\0\2E\0\0\0\1Q"));
    good(BYTES("JLRPQ"));
    good(BYTES("K\0\0\0\1F\0\0\0\0LPQ"));
}

static void
case_too_few_objects(void)
{
    bad(BYTES("Q"), "STOP without exactly one object at offset 0");
    bad(BYTES("LLQ"), "STOP without exactly one object at offset 2");
    bad(BYTES("LL@\0\0\0\3Q"), "too few objects on the stack at offset 2");
    bad(BYTES("O\0\0\0\1Q"), "too few objects on the stack at offset 0");
    bad(BYTES("LLPQ"), "too few objects on the stack at offset 2");
}

static void
case_bad_operands(void)
{
    bad(BYTES("ZQ"), "unknown opcode at offset 0");
    bad(BYTES("L\0Q"), "unknown opcode at offset 1");
    bad(BYTES("A\xff\xff\xff\xffQ"), "negative length at offset 0");
    bad(BYTES("@\x80\0\0\0Q"), "negative length at offset 0");
    bad(BYTES("K\xff\xff\xff\xffQ"), "negative length at offset 0");
    bad(BYTES("A\x7f\xff\xff\xffQ"), "length beyond the end at offset 0");
    bad(BYTES("A\0\0\0\2Q"), "length beyond the end at offset 0");
    bad(BYTES("U\0\0\0\0\0\0\0\2Q"), "length beyond the end at offset 0");
    bad(BYTES("V\0\0\0\1\0\0\0\0Q"), "length beyond the end at offset 0"); /* more than 32 bits */
    bad(BYTES("U\xff\xff\xff\xff\xff\xff\xff\xffQ"), "length beyond the end at offset 0");
    bad(BYTES("U\0\0\0\0\0\0\0"), "operand cut short at offset 0");
    bad(BYTES("LF\0\0Q"), "operand cut short at offset 1");
    bad(BYTES(""), "no STOP at offset 0");
    bad(BYTES("L"), "no STOP at offset 1");
    bad(BYTES("A\0\0\0\1Q"), "no STOP at offset 6");
}

static void
case_pickles(void)
{
    enum { SIZE = 64 + 5 + 1 };
    static const char two[] = "@\0\0\0\0W\0\0\0\0\0\0\0\3\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5abc";
    unsigned char buffers[SIZE] = {0}; /* none and five bytes, both at 64 */
    memcpy(buffers, two, sizeof two - 1);
    buffers[SIZE - 1] = 'Q';
    good(buffers, SIZE);
    buffers[33] = 6;
    bad(buffers, SIZE, "no STOP behind a pickle at offset 70");
    buffers[33] = 7;
    bad(buffers, SIZE, "length beyond the end at offset 5");
    buffers[26] = 0xff; /* the sum is small again in 64 bits */
    bad(buffers, SIZE, "length beyond the end at offset 5");

    good(BYTES("@\0\0\0\0W\0\0\0\0\0\0\0\2\0\0\0\0QQQ"));
    bad(BYTES("W\0\0\0\0\0\0\0\2\0\0\0\0QQQ"), "a pickle without its channels at offset 0");
    bad(BYTES("LLW\0\0\0\0\0\0\0\2\0\0\0\0QQQ"), "a pickle without its channels at offset 2");
    bad(BYTES("LW\0\0\0\0\0\0\0\2\0\0\0\0QQLQ"), "no STOP behind a pickle at offset 16");
    bad(BYTES("LW\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0QQ"), "length beyond the end at offset 1");
    bad(BYTES("LW\0\0\0\0\0\0\0\0\xff\xff\xff\xffQQQQQQQQQQQQ"), "length beyond the end at offset 1");

    xc_err err;
    CHECK_RC(scan(BYTES("B\0\0\0\7@\0\0\0\1W\0\0\0\0\0\0\0\5\0\0\0\0B\0\0\0\1Q"), &err), XC_OK);
    CHECK_INT(n_seen, 1);
    CHECK_INT(seen[0], 7);
    CHECK(!xc_scan_may_carry_ids(BYTES("@\0\0\0\0W\0\0\0\0\0\0\0\5\0\0\0\0B\0\0\0\1Q")));
    CHECK(xc_scan_may_carry_ids(BYTES("B\0\0\0\7@\0\0\0\1W")));
}

static void
case_behind_stop(void)
{
    xc_err err;
    CHECK_RC(scan(BYTES("LQZZ"), &err), XC_OK);
    CHECK_RC(scan(BYTES("LQQ"), &err), XC_OK);
}

static void
case_ids(void)
{
    static const char two[] = "B\0\0\0\7B\xff\xff\xff\xfe@\0\0\0\2Q";
    xc_err err;
    CHECK_RC(scan(BYTES(two), &err), XC_OK);
    CHECK_INT(n_seen, 2);
    CHECK_INT(seen[0], 7);
    CHECK_INT(seen[1], 0xfffffffe);

    /* A text that looks like a channel is none. */
    CHECK_RC(scan(BYTES("A\0\0\0\5B\0\0\0\1Q"), &err), XC_OK);
    CHECK_INT(n_seen, 0);
    CHECK_RC(scan(BYTES("U\0\0\0\0\0\0\0\5B\0\0\0\1Q"), &err), XC_OK);
    CHECK_INT(n_seen, 0);
    CHECK_RC(scan(BYTES("U\0\0\0\0\0\0\0\1BB\0\0\0\7@\0\0\0\2Q"), &err), XC_OK);
    CHECK_INT(n_seen, 1);

    stop_after = 1;
    CHECK_RC(scan(BYTES(two), &err), XC_NOMEM);
    CHECK_INT(n_seen, 1);
    stop_after = 0;

    CHECK_RC(xc_scan(BYTES(two), NULL, NULL, NULL), XC_OK);
}

/* In parts of any size, of which none is kept. */
static void
case_ids_in_parts(void)
{
    static const char all[] =
        "B\0\0\0\7F\0\0\0\102A\0\0\0\5B\0\0\0\1N\0\0\0\0U\0\0\0\0\0\0\0\2BBDBBBBBBBBTBBBBBBBBBBBBBBBBL"
        "B\xff\xff\xff\xfe@\0\0\0\2QB\0\0\0\1";
    for (size_t size = 1; size <= sizeof all; size++) {
        xc_sieve sieve = {.skip = 0};
        n_seen = 0;
        for (size_t at = 0; at < sizeof all - 1; at += size) {
            size_t n = size < sizeof all - 1 - at ? size : sizeof all - 1 - at;
            unsigned char *part = malloc(n);
            CHECK(part != NULL);
            memcpy(part, all + at, n);
            CHECK(xc_sieve_next(&sieve, part, n, remember, NULL));
            free(part);
        }
        CHECK_INT(n_seen, 2);
        CHECK_INT(seen[0], 7);
        CHECK_INT(seen[1], 0xfffffffe);
        CHECK(sieve.over);
    }
    xc_sieve sieve = {.skip = 0};
    n_seen = 0;
    stop_after = 1;
    CHECK(!xc_sieve_next(&sieve, BYTES("B\0\0\0\7Q"), remember, NULL));
    stop_after = 0;
    sieve = (xc_sieve){.skip = 0};
    CHECK(xc_sieve_next(&sieve, BYTES("ZB\0\0\0\7Q"), remember, NULL) && sieve.over); /* no opcode */
    CHECK_INT(n_seen, 1);
    sieve = (xc_sieve){.skip = 0};
    CHECK(xc_sieve_next(&sieve, BYTES("@\0\0\0\0WB\0\0\0\7Q"), remember, NULL) && sieve.over); /* a pickle */
    CHECK_INT(n_seen, 1);
}

static void
case_may_carry_ids(void)
{
    CHECK(!xc_scan_may_carry_ids(NULL, 0));
    CHECK(!xc_scan_may_carry_ids(BYTES("LQ")));
    CHECK(xc_scan_may_carry_ids(BYTES("B\0\0\0\1Q")));
}

/* A copy of exactly that size: the sanitizer sees a look at one byte too many. */
static size_t
head_of(const unsigned char *payload, size_t size)
{
    unsigned char *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, payload, size);
    size_t head = xc_scan_bytes(copy, size);
    free(copy);
    return head;
}

static void
case_one_bytes_object(void)
{
    CHECK_INT(head_of(BYTES("A\0\0\0\0Q")), 5);
    CHECK_INT(head_of(BYTES("A\0\0\0\2abQ")), 5);
    CHECK_INT(head_of(BYTES("U\0\0\0\0\0\0\0\0Q")), 9);
    CHECK_INT(head_of(BYTES("U\0\0\0\0\0\0\0\2abQ")), 9);
    CHECK_INT(head_of(BYTES("")), 0);
    CHECK_INT(head_of(BYTES("Q")), 0);
    CHECK_INT(head_of(BYTES("A\0\0\0\1Q")), 0);
    CHECK_INT(head_of(BYTES("A\0\0\0\1aR")), 0);
    CHECK_INT(head_of(BYTES("N\0\0\0\1aQ")), 0);
    CHECK_INT(head_of(BYTES("U\0\0\0\0\0Q")), 0);
    CHECK_INT(head_of(BYTES("U\0\0\0\1\0\0\0\2abQ")), 0);
    CHECK_INT(head_of(BYTES("V\0\0\0\0\0\0\0\1aQ")), 0);
    /* Of 5 GiB, of which only the first bytes have come. */
    CHECK_INT(xc_scan_bytes_head((const unsigned char *)"U\0\0\0\1\x40\0\0\0", (UINT64_C(5) << 30) + 10), 9);
    CHECK_INT(xc_scan_bytes_head((const unsigned char *)"A\x40\0\0\0\0\0\0\0", (UINT64_C(5) << 30) + 6), 0);
    /* The length of BYTES is signed: one of 2 GiB is negative, and the loader refuses it. */
    CHECK_INT(xc_scan_bytes_head((const unsigned char *)"A\x7f\xff\xff\xff\0\0\0\0", (UINT64_C(1) << 31) + 5), 5);
    CHECK_INT(xc_scan_bytes_head((const unsigned char *)"A\x80\0\0\0\0\0\0\0", (UINT64_C(1) << 31) + 6), 0);
}

/* Whatever the bytes: an end, within the bytes. Opcodes are dealt often enough for some of it to be well formed. */
static void
case_preamble(void)
{
    static const char ops[] = "@ABCDEFGHIJKLMNOPQRSTUV";
    unsigned well_formed = 0;
    uint32_t r = 12345;
    for (int round = 0; round < 200000; round++) {
        unsigned char payload[24];
        r = r * 1664525 + 1013904223;
        size_t size = (r >> 16) % (sizeof payload + 1);
        for (size_t i = 0; i < size; i++) {
            r = r * 1664525 + 1013904223;
            unsigned what = r >> 24;
            payload[i] = what < 160 ? (unsigned char)ops[what % 23] : what < 240 ? 0 : (unsigned char)(r >> 16);
        }
        xc_err err;
        xc_status rc = scan(payload, size, &err);
        CHECK(rc == XC_OK || rc == XC_BAD);
        well_formed += rc == XC_OK;
    }
    CHECK(well_formed > 100);
}

int
main(void)
{
    check_begin("scan", 60);
    RUN(case_each_opcode);
    RUN(case_containers);
    RUN(case_too_few_objects);
    RUN(case_bad_operands);
    RUN(case_pickles);
    RUN(case_behind_stop);
    RUN(case_ids);
    RUN(case_ids_in_parts);
    RUN(case_may_carry_ids);
    RUN(case_one_bytes_object);
    RUN(case_preamble);
    return check_end();
}
