/*
 * The decoder's stack, and how it reads operands; for load.c and load_rare.c. Inline, because it is used for each
 * opcode.
 */
#ifndef XCPY_LOAD_STACK_H
#define XCPY_LOAD_STACK_H

#include "loader.h"
#include "xc_bytes.h"

#include <string.h>

/* Doubles the stack: 0, or -1 with MemoryError. */
int xcpy_more_stack(xcpy_loader *L);

/* Puts None into each empty slot of the list, as execnet does. Only crafted input leaves such slots. */
void xcpy_fill_gaps(PyObject *list);

/* ---- operands ---- */

static inline double
get_double(xcpy_cursor p)
{
    uint64_t bits = xc_get_u64(p);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline bool
has_bytes(const xcpy_loader *L, xcpy_cursor p, size_t n)
{
    return (size_t)(L->end - p) >= n;
}

/* A length that must not be negative. */
static inline xcpy_cursor
take_length(xcpy_loader *L, xcpy_cursor p, uint32_t *n)
{
    *n = 0;
    if (!has_bytes(L, p, 4)) {
        return xcpy_load_truncated(L);
    }
    *n = xc_get_u32(p);
    return *n <= INT32_MAX ? p + 4 : xcpy_load_fail(L, "negative length");
}

/* A length, with *n bytes behind the returned position. */
static inline xcpy_cursor
take_text(xcpy_loader *L, xcpy_cursor p, uint32_t *n)
{
    p = take_length(L, p, n);
    if (p != NULL && !has_bytes(L, p, *n)) {
        return xcpy_load_truncated(L);
    }
    return p;
}

/* ---- entries ---- */

/* Takes `obj`; NULL: an exception is set, which is passed on. */
static inline xcpy_cursor
push(xcpy_loader *L, xcpy_cursor p, PyObject *obj, uint32_t tag)
{
    if (obj == NULL) {
        return NULL;
    }
    if (L->top == L->limit && xcpy_more_stack(L) < 0) {
        Py_DECREF(obj);
        return NULL;
    }
    *L->top++ = (xcpy_entry){.u.obj = obj, .tag = tag};
    return p;
}

static inline xcpy_cursor
push_number(xcpy_loader *L, xcpy_cursor p, int32_t number)
{
    if (L->top == L->limit && xcpy_more_stack(L) < 0) {
        return NULL;
    }
    *L->top++ = (xcpy_entry){.u.number = number, .tag = NUMBER};
    return p;
}

/* Makes a complete object of an entry, in place. */
static inline int
complete_entry(xcpy_entry *e)
{
    switch (e->tag & KIND) {
    case NUMBER:
        e->u.obj = PyLong_FromLong(e->u.number);
        e->tag = OBJECT;
        return e->u.obj != NULL ? 0 : -1;
    case LIST:
        if ((Py_ssize_t)e->n_set < PyList_GET_SIZE(e->u.obj)) {
            xcpy_fill_gaps(e->u.obj);
        }
        PyObject_GC_Track(e->u.obj);
        e->tag = (e->tag & ~(uint32_t)KIND) | OBJECT;
        return 0;
    default:
        return 0;
    }
}

/* Drops the entries from `from` on. A list among them may have empty slots; its deallocator accepts that. */
static inline void
drop_entries(xcpy_loader *L, xcpy_entry *from)
{
    while (L->top > from) {
        xcpy_entry *e = --L->top;
        if ((e->tag & KIND) != NUMBER) {
            Py_XDECREF(e->u.obj);
        }
    }
}

/* The number of entries for a tuple or set; there must be so many. */
static inline xcpy_cursor
take_members(xcpy_loader *L, xcpy_cursor p, uint32_t *n)
{
    p = take_length(L, p, n);
    if (p != NULL && *n > (size_t)(L->top - L->stack)) {
        return xcpy_load_fail(L, "too few objects on the stack");
    }
    return p;
}

/* ---- depth ---- */

/* The depth, as a part of a tag, of a container around something with this tag. */
static inline uint32_t
depth_around(uint32_t tag)
{
    return (tag >> DEPTH_SHIFT << DEPTH_SHIFT) + DEPTH_1;
}

static inline bool
too_deep(uint32_t tag)
{
    return tag >> DEPTH_SHIFT > XCPY_LOAD_DEPTH;
}

/* Hashing recurses on the C stack, so this is checked before an object is hashed. */
static inline bool
hashable_depth(const xcpy_entry *e)
{
    return e->tag >> DEPTH_SHIFT <= XCPY_HASH_DEPTH;
}

#endif
