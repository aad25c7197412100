/* What the harnesses share. */
#ifndef PROOF_H
#define PROOF_H

#include <stdbool.h>
#include <stdint.h>

#include "xc_base.h"

/* Any value. */
bool nondet_bool(void);
unsigned char nondet_byte(void);
uint32_t nondet_u32(void);
uint64_t nondet_u64(void);
size_t nondet_size(void);

#define ASSUME(condition) __CPROVER_assume(condition)
#define PROVE(condition)  __CPROVER_assert(condition, #condition)

xc_status
xc_fail(xc_err *err, xc_status code, int sys_errno, const char *step)
{
    if (err != NULL) {
        err->code = code;
        err->sys_errno = sys_errno;
        err->step = step;
    }
    return code;
}

xc_status
xc_failf(xc_err *err, xc_status code, const char *step, const char *format, ...)
{
    (void)format;
    return xc_fail(err, code, 0, step);
}

/* An XC_ASSERT that does not hold. */
_Noreturn void
xc_assert_failed(const char *file, int line, const char *function, const char *condition)
{
    __CPROVER_assert(false, "XC_ASSERT");
    __CPROVER_assume(false);
    for (;;) {
    }
}

#endif
