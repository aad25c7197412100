/*
 * What all of the core shares: result codes, the error record, the allocation hook and the GIL probe.
 *
 * The core is plain C11. It never includes Python.h, never prints (except a failed assertion), never passes a result
 * through errno, and reports every failure as an xc_status with an xc_err beside it.
 */
#ifndef XC_BASE_H
#define XC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    XC_OK = 0,
    XC_AGAIN,   /* nothing was done: the call would have had to wait */
    XC_TIMEOUT, /* the deadline passed; nothing was lost */
    XC_INTR,    /* a signal may have come: handle it, then call again; nothing was lost */
    XC_SPACE,   /* a large payload has begun: give memory for it with xc_link_give_space, then call again */
    XC_CLOSED,  /* this channel or link ended in an orderly way */
    XC_EOF,     /* the other side is gone without a goodbye */
    XC_SILENT,  /* the other side has given no sign of life for too long */
    XC_BAD,     /* what arrived is not well formed */
    XC_LIMIT,   /* over a limit of the wire format */
    XC_FORKED,  /* this object belongs to the parent process */
    XC_NOMEM,   /* no memory; nothing was changed */
    XC_SYS,     /* a system call failed: see xc_err.sys_errno */
} xc_status;

/* The first thing that went wrong, in full. `step` is a string literal that names what was being done. */
typedef struct {
    xc_status code;
    int sys_errno;    /* 0 if no system call failed */
    const char *step; /* "" if nothing went wrong */
    char detail[200]; /* what was wrong with it, "" if `step` says all; always terminated */
} xc_err;

#if defined(__GNUC__)
#define XC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define XC_PRINTF(fmt, args)
#endif

/* Fills *err (which may be NULL) and returns `code`, so that a failing path reads `return xc_fail(...)`. */
xc_status xc_fail(xc_err *err, xc_status code, int sys_errno, const char *step);
xc_status xc_failf(xc_err *err, xc_status code, const char *step, const char *format, ...) XC_PRINTF(4, 5);

/* The name of a status, for messages and tests: "XC_OK". */
const char *xc_status_name(xc_status code);

/* Memory of the core. NULL: there is none. xc_free takes NULL. A test may set a hook that is asked before each
 * allocation; if it returns false, that allocation fails. */
void *xc_alloc(size_t n);
void *xc_realloc(void *p, size_t n);
void xc_free(void *p);
void xc_set_alloc_hook(bool (*allow)(void));

/* True when the calling thread holds the GIL; set once by the Python side, in debug builds. */
void xc_set_gil_probe(bool (*held)(void));
void xc_assert_nogil(const char *where);
#ifdef XC_DEBUG
#define XC_ASSERT_NOGIL() xc_assert_nogil(__func__)
#else
#define XC_ASSERT_NOGIL() ((void)0)
#endif

/* Says a mistake of ours and ends the process. Debug builds write it to the file XC_REPORT of the environment, too. */
_Noreturn void xc_abort(const char *format, ...) XC_PRINTF(1, 2);

/* What a caller owes: false only by a mistake of ours. Debug builds check it, and abort; others do not evaluate it. */
_Noreturn void xc_assert_failed(const char *file, int line, const char *function, const char *condition);
#ifdef XC_DEBUG
#define XC_ASSERT(condition) ((condition) ? (void)0 : xc_assert_failed(__FILE__, __LINE__, __func__, #condition))
#else
#define XC_ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
