/*
 * What the decoder's rooms share: the state of one xcpy_load call. load.c builds, load_rare.c what is met less
 * often, both on the stack in load_stack.h; load_str.h has the strings, load_fail.c says what was wrong where.
 */
#ifndef XCPY_LOADER_H
#define XCPY_LOADER_H

#include "load.h"

enum {
    FIRST_ENTRIES = 128, /* entries of the stack on the C stack, before the heap is asked */
};

/* The tag of an entry: its kind, whether the garbage collector needs to know it, and its depth (0: no container). */
enum {
    KIND = 3,
    OBJECT = 0, /* complete */
    NUMBER = 1, /* `number`, no object yet */
    LIST = 2,   /* untracked, `n_set` slots filled */
    TRACKED = 4,
    DEPTH_SHIFT = 3,
    DEPTH_1 = 1 << DEPTH_SHIFT,
};

typedef struct {
    union {
        PyObject *obj; /* owned; NULL once it was moved into a container that is being built */
        int32_t number;
    } u;
    uint32_t n_set;
    uint32_t tag;
} xcpy_entry;

typedef struct {
    const xcpy_load_opts *opts;
    const unsigned char *data;
    const unsigned char *end;
    size_t base;
    const unsigned char *op; /* the opcode at hand: what errors name */
    size_t claimed;          /* slots of all lists so far */
    xcpy_entry *top;         /* next free */
    xcpy_entry *limit;
    xcpy_entry *stack;  /* `first`, or owned */
    unsigned missed;    /* load_str.h: strings that its cache had not, less those that it had */
    unsigned passed_by; /* load_str.h: strings that it may not have looked for */
    xcpy_entry first[FIRST_ENTRIES];
} xcpy_loader;

/* Each load_x takes the position behind its opcode, and returns the one behind its operand; NULL: an exception is set.
 */
typedef const unsigned char *xcpy_cursor;

/* Each of these sets an exception that names the opcode at hand, and returns NULL. */

/* LoadError(what). */
xcpy_cursor xcpy_load_fail(xcpy_loader *L, const char *what);

/* TruncatedError: the end comes within the opcode's operand. */
xcpy_cursor xcpy_load_truncated(xcpy_loader *L);

/* TruncatedError; `how` goes before the opcode's offset. */
xcpy_cursor xcpy_load_fail_end(xcpy_loader *L, const char *how);

/* LoadError(what + the text of the exception that is set) from that exception, unless it is none of the input's fault:
 * no memory, or no Exception at all. */
xcpy_cursor xcpy_load_fail_from(xcpy_loader *L, const char *what);

/* LoadError: unknown opcode. */
xcpy_cursor xcpy_load_fail_opcode(xcpy_loader *L);

#endif
