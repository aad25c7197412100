/*
 * Python object -> bytes of execnet's serializer. Other programs store these bytes on disk, so each byte must be as
 * execnet writes it.
 */
#ifndef XCPY_DUMP_H
#define XCPY_DUMP_H

#include "state.h"
#include "xc_buf.h"

#include <sys/uio.h>

/* The nesting that dumps accepts; also what stops it in a structure that contains itself. execnet stops near 330. */
enum { XCPY_DUMP_DEPTH = 2000 };

/* bytes and ASCII str objects of at least this size (bytes) are not copied into a frame but pinned and written from
 * where they are. */
enum { XCPY_PIN_SIZE = 64 * 1024 };

typedef struct {
    size_t at;     /* comes before byte number `at` of buf (counted from buf.start) */
    PyObject *obj; /* owned: keeps ptr alive */
    const char *ptr;
    size_t size;
} xcpy_pin;

/* An encoded object: bytes in `buf`, interleaved with the memory of pinned objects. A zeroed one is empty. */
typedef struct {
    xc_buf buf;
    xcpy_pin *pins; /* owned; in ascending order of `at` */
    size_t n_pins;
    size_t cap_pins;
    xc_buf channels; /* the ids of the channels in it, a uint32_t each */
} xcpy_dumped;

enum {
    XCPY_PIN = 1,  /* large objects become pins; else all bytes are in `buf` */
    XCPY_HUGE = 2, /* bytes and str of 2 GiB and more can be sent, by opcodes that only our own far ends know */
};

/*
 * Appends the encoding of `obj` to out->buf, with STOP, without a version byte; what is already in out->buf stays.
 * `how`: a sum of the above. 0, or -1 with DumpError set, which names the type of the object and its place in the
 * structure ("can't serialize <class 'x.Y'> at [3]['key']"). After -1, call xcpy_dumped_fini.
 */
int xcpy_dump(xcpy_state *state, PyObject *obj, int how, xcpy_dumped *out);
/* Lets `n` bytes at `ptr`, which are valid as long as `obj` lives, be the next ones. 0, or -1 with MemoryError. */
int xcpy_dumped_pin(xcpy_dumped *out, PyObject *obj, const void *ptr, size_t n);
/* The same for the plain value of `obj`: see execnet_c/common/plain.py. */
int xcpy_dump_plain(xcpy_state *state, PyObject *obj, int how, xcpy_dumped *out);
void xcpy_dumped_fini(xcpy_dumped *out);         /* GIL held: releases the pins */
size_t xcpy_dumped_size(const xcpy_dumped *out); /* all bytes, also those of pins */

/* The pieces in order. `parts` must have room for 2 * n_pins + 1 pieces; *n: how many there are. */
void xcpy_dumped_iov(const xcpy_dumped *out, struct iovec *parts, int *n);

/* Module functions: dumps(obj) -> bytes; dump(io, obj). */
extern PyMethodDef xcpy_dump_methods[];

#endif
