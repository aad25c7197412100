/*
 * xc_pickle.c: for every operand of SIZE bytes behind a byte, with buffers at multiples of ALIGN: where
 * xc_pickle_read() says yes, the lengths, the pickle and each buffer lie within the payload, one behind the other, and
 * buffers are aligned. It says yes exactly if the sums of the lengths, made in numbers that are large enough, fit.
 */
#define XC_PICKLE_ALIGN 4 /* instead of 64: so a few bytes have some buffers */

#include "proof.h"
#include "xc_pickle.c"

int
main(void)
{
    unsigned char payload[SIZE];
    xc_pickle pickle;
    bool yes = xc_pickle_read(payload, SIZE, 1, &pickle);
    bool fits = SIZE - 1 >= XC_PICKLE_HEAD;
    if (fits) {
        uint64_t n = xc_get_u32(payload + 9);
        __uint128_t at = 1 + XC_PICKLE_HEAD + (__uint128_t)n * 8;
        fits = at <= SIZE;
        at += xc_get_u64(payload + 1);
        fits = fits && at <= SIZE;
        for (uint64_t i = 0; fits && i < n; i++) {
            at = (at + 3) / 4 * 4 + xc_get_u64(payload + 13 + i * 8);
            fits = at <= SIZE;
        }
        PROVE(!yes || pickle.end == at);
    }
    PROVE(yes == fits);
    if (yes) {
        size_t end = pickle.at + pickle.size;
        PROVE(pickle.lengths == 13 && pickle.at == 13 + (size_t)pickle.n * 8 && end >= pickle.at && end <= SIZE);
        for (uint32_t i = 0; i < pickle.n; i++) {
            size_t before = end, begin = xc_pickle_buffer(payload, &pickle, i, &end);
            PROVE(begin >= before && begin - before < 4 && begin % 4 == 0 && begin <= end && end <= SIZE);
        }
        PROVE(end == pickle.end);
    }
    return 0;
}
