/*
 * What the files of the encoder share: the state of one xcpy_dump call. dump.c writes containers and plain objects,
 * dump_value.c all other objects without parts, dump_path.c makes the error texts.
 */
#ifndef XCPY_DUMPER_H
#define XCPY_DUMPER_H

#include "dump.h"

enum { FIRST_FRAMES = 24 }; /* frames on the C stack, before memory is allocated */

typedef enum { IN_LIST, IN_TUPLE, IN_DICT_KEY, IN_DICT, IN_SET } xcpy_place;

/* A container that is being written. */
typedef struct {
    PyObject *obj;   /* owned */
    PyObject *key;   /* owned or NULL; dict: the key whose value is being written; set: the present member */
    PyObject *held;  /* owned or NULL; dict: the value whose key is being written; set: the iterator */
    Py_ssize_t next; /* list, tuple: index of the next item; dict: position of PyDict_Next; set: members so far */
    Py_ssize_t size; /* when its dump began */
    xcpy_place place;
} xcpy_frame;

typedef struct {
    unsigned char *p;   /* next byte to write, within out->buf */
    unsigned char *end; /* of out->buf's memory */
    xcpy_dumped *out;
    xcpy_state *state;
    xcpy_frame *frames; /* `first`, or owned */
    size_t depth;
    size_t cap;
    int how; /* XCPY_PIN, XCPY_HUGE */
    xcpy_frame first[FIRST_FRAMES];
} xcpy_dumper;

/* Results of writing an object. */
enum { FAILED = -1, PUSHED = 0, WROTE = 1, NOT_PLAIN = 2 };

/* dump_value.c: writes an object without parts. The caller keeps `obj` alive. */
int xcpy_dump_value(xcpy_dumper *d, PyObject *obj);

/* Raises DumpError(text + path) from `cause`, and returns FAILED. Takes `text` and `cause`. `cause` may be NULL; so may
 * `text`, if there was no memory for it. */
int xcpy_dump_fail(xcpy_dumper *d, PyObject *text, PyObject *cause);

/* The same with this text and no cause. */
int xcpy_dump_fail_text(xcpy_dumper *d, const char *text);

/* The same for an object of a type that cannot be sent; the text says what to send instead. */
int xcpy_dump_fail_type(xcpy_dumper *d, PyObject *obj);

#endif
