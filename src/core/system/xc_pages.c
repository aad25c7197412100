#include "xc_pages.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "xc_sync.h"

#define MIB       ((size_t)1 << 20)
#define FILL_MIN  (4 * MIB)
#define MOVE_STEP MIB
#define HUGE      (2 * MIB) /* nearly everywhere; where it is more, the time of the first one tells less */
#define STEP      (32 * MIB)
#define MARGIN    (2 * MIB) /* the caller fills no more than this before it asks again */
#define DEAR_NS   XC_MS     /* filling as much memory in small pages takes about as long */

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

#if defined(MADV_HUGEPAGE)
/* Touches the huge page at `page`, and measures how long that takes. */
static bool
are_huge_pages_dear(unsigned char *page)
{
    int64_t before = xc_now();
    *(volatile unsigned char *)page = 0;
    return xc_now() - before > DEAR_NS;
}

size_t
xc_pages_ahead(void *ptr, size_t n, size_t from)
{
    XC_ASSERT(from <= n);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), step = n - from < STEP ? n - from : STEP;
    unsigned char *next = (unsigned char *)ptr + from;
    if (n - from < FILL_MIN) {
        return n;
    }
    unsigned char *first = next + (HUGE - (uintptr_t)next % HUGE) % HUGE;
    advise(next, step, page, MADV_HUGEPAGE);
    if (are_huge_pages_dear(first)) {
        advise(first + HUGE, (size_t)(next + step - first) - HUGE, page, MADV_NOHUGEPAGE);
    }
    return from + step == n ? n : from + step - MARGIN;
}
#else
size_t
xc_pages_ahead(void *ptr, size_t n, size_t from)
{
    (void)ptr;
    (void)from;
    return n;
}
#endif

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
    XC_ASSERT((uintptr_t)into + n <= (uintptr_t)from || (uintptr_t)from + n <= (uintptr_t)into);
    xc_pages_fill(into, n);
    for (size_t at = 0; at < n; at += MOVE_STEP) {
        size_t step = n - at < MOVE_STEP ? n - at : MOVE_STEP;
        memcpy((unsigned char *)into + at, (unsigned char *)from + at, step);
        xc_pages_drop((unsigned char *)from + at, step);
    }
}
