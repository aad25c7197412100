/*
 * What the files of the decoder share: the state of one xcpy_load call. load.c builds objects, load_rare.c those that
 * are needed less often, both on the stack in load_stack.h; load_str.h makes strings, load_fail.c the error texts.
 */
#ifndef XCPY_LOADER_H
#define XCPY_LOADER_H

#include "load.h"

enum {
    FIRST_ENTRIES = 128, /* entries of the stack that are on the C stack, before memory is allocated */
};

/* The tag of an entry: its kind, whether the garbage collector must track the object, and its depth (0: no
 * container). */
enum {
    KIND = 3,
    OBJECT = 0, /* complete */
    NUMBER = 1, /* in `number`, not an object yet */
    LIST = 2,   /* not tracked by the collector; `n_set` of its slots are filled */
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
    const unsigned char *op; /* the present opcode: the one that errors name */
    size_t claimed;          /* slots of all lists so far */
    xcpy_entry *top;         /* the next free entry */
    xcpy_entry *limit;
    xcpy_entry *stack;  /* `first`, or owned */
    PyObject **strings; /* load_str.h: the cache; borrowed */
    unsigned missed;    /* load_str.h: strings that the cache did not have, minus those that it had */
    unsigned passed_by; /* load_str.h: strings since the cache is only tried now and then */
    xcpy_entry first[FIRST_ENTRIES];
} xcpy_loader;

/* A load_... function takes the position behind its opcode, and returns that behind its operand; NULL: an exception is
 * set. */
typedef const unsigned char *xcpy_cursor;

/* Each of these sets an exception that names the present opcode, and returns NULL. */

/* LoadError(what). */
xcpy_cursor xcpy_load_fail(xcpy_loader *L, const char *what);

/* TruncatedError: the input ends within the opcode's operand. */
xcpy_cursor xcpy_load_truncated(xcpy_loader *L);

/* TruncatedError; `how` comes before the opcode's offset in the text. */
xcpy_cursor xcpy_load_fail_end(xcpy_loader *L, const char *how);

/* LoadError(what + the text of the exception that is set), from that exception. An exception that is not the input's
 * fault stays: MemoryError, or one that is no Exception. */
xcpy_cursor xcpy_load_fail_from(xcpy_loader *L, const char *what);

/* LoadError: unknown opcode. */
xcpy_cursor xcpy_load_fail_opcode(xcpy_loader *L);

#endif
