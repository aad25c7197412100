/*
 * Result codes, the allocation hook, the GIL probe.
 *
 * Nothing in here keeps state but two function pointers, both set by tests or once at start, both atomic.
 */
#include "xc_base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef bool (*yes_or_no)(void);

static _Atomic(yes_or_no) alloc_hook;
static _Atomic(yes_or_no) gil_probe;

xc_status
xc_fail(xc_err *err, xc_status code, int sys_errno, const char *step)
{
    XC_ASSERT(code > XC_OK && code <= XC_SYS && step != NULL);
    if (err != NULL) {
        err->code = code;
        err->sys_errno = sys_errno;
        err->step = step;
        err->detail[0] = '\0';
    }
    return code;
}

xc_status
xc_failf(xc_err *err, xc_status code, const char *step, const char *format, ...)
{
    xc_fail(err, code, 0, step);
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        if (vsnprintf(err->detail, sizeof(err->detail), format, args) < 0) {
            err->detail[0] = '\0';
        }
        va_end(args);
    }
    return code;
}

const char *
xc_status_name(xc_status code)
{
    static const char *const names[] = {
        [XC_OK] = "XC_OK",         [XC_AGAIN] = "XC_AGAIN",   [XC_TIMEOUT] = "XC_TIMEOUT", [XC_INTR] = "XC_INTR",
        [XC_SPACE] = "XC_SPACE",   [XC_CLOSED] = "XC_CLOSED", [XC_EOF] = "XC_EOF",         [XC_BAD] = "XC_BAD",
        [XC_SILENT] = "XC_SILENT", [XC_LIMIT] = "XC_LIMIT",   [XC_FORKED] = "XC_FORKED",   [XC_NOMEM] = "XC_NOMEM",
        [XC_SYS] = "XC_SYS",
    };
    size_t at = (size_t)code;
    if (at >= sizeof(names) / sizeof(names[0])) {
        return "not an xc_status";
    }
    return names[at];
}

static bool
may_allocate(void)
{
    yes_or_no allow = atomic_load_explicit(&alloc_hook, memory_order_acquire);
    return allow == NULL || allow();
}

/* malloc(0) may return NULL, which would look like a failure: ask for a byte at least. */
void *
xc_alloc(size_t n)
{
    return may_allocate() ? malloc(n > 0 ? n : 1) : NULL;
}

void *
xc_realloc(void *p, size_t n)
{
    return may_allocate() ? realloc(p, n > 0 ? n : 1) : NULL;
}

void
xc_free(void *p)
{
    free(p);
}

void
xc_set_alloc_hook(bool (*allow)(void))
{
    atomic_store_explicit(&alloc_hook, allow, memory_order_release);
}

void
xc_set_gil_probe(bool (*held)(void))
{
    atomic_store_explicit(&gil_probe, held, memory_order_release);
}

void
xc_assert_nogil(const char *where)
{
    yes_or_no held = atomic_load_explicit(&gil_probe, memory_order_acquire);
    if (held != NULL && held()) {
        xc_abort("%s: called with the GIL held, but it may sleep", where);
    }
}

void
xc_assert_failed(const char *file, int line, const char *function, const char *condition)
{
    xc_abort("%s:%d: %s: failed: %s", file, line, function, condition);
}

void
xc_abort(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", text);
#ifdef XC_DEBUG
    const char *name = getenv("XC_REPORT");
    FILE *report = name == NULL ? NULL : fopen(name, "a");
    if (report != NULL) {
        fprintf(report, "%s\n\n", text);
        fclose(report);
    }
#endif
    abort();
}
