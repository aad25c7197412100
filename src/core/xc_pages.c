#include "xc_pages.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILL_MIN  ((size_t)4 << 20)
#define MOVE_STEP ((size_t)1 << 20)

static void
advise(void *ptr, size_t n, size_t page, int advice)
{
    uintptr_t from = ((uintptr_t)ptr + page - 1) & ~(uintptr_t)(page - 1);
    uintptr_t to = ((uintptr_t)ptr + n) & ~(uintptr_t)(page - 1);
    if (from < to) {
        (void)madvise((void *)from, to - from, advice);
    }
}

void
xc_pages_fill(void *ptr, size_t n)
{
#if defined(MADV_HUGEPAGE)
    if (n >= FILL_MIN) {
        advise(ptr, n, (size_t)sysconf(_SC_PAGESIZE), MADV_HUGEPAGE);
    }
#else
    (void)ptr;
    (void)n;
#endif
}

void
xc_pages_drop(void *ptr, size_t n)
{
#if defined(__linux__)
    advise(ptr, n, (size_t)sysconf(_SC_PAGESIZE), MADV_DONTNEED);
#else
    (void)ptr;
    (void)n;
#endif
}

void
xc_pages_move(void *into, void *from, size_t n)
{
    xc_pages_fill(into, n);
    for (size_t at = 0; at < n; at += MOVE_STEP) {
        size_t step = n - at < MOVE_STEP ? n - at : MOVE_STEP;
        memcpy((unsigned char *)into + at, (unsigned char *)from + at, step);
        xc_pages_drop((unsigned char *)from + at, step);
    }
}
