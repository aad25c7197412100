/*
 * Python object -> bytes of execnet's serializer. The format is stored on disk by other programs: byte for byte
 * execnet's.
 */
#ifndef XCPY_DUMP_H
#define XCPY_DUMP_H

#include <sys/uio.h>

#include "state.h"
#include "xc_buf.h"

/* Nesting that dumps accepts; a structure that contains itself ends here, too. execnet's own end is near 330. */
enum { XCPY_DUMP_DEPTH = 2000 };

/* bytes and ASCII str objects of at least this size (bytes) are not copied into a frame but pinned and written from
 * where they are. */
enum { XCPY_PIN_SIZE = 64 * 1024 };

typedef struct {
    size_t at;     /* stands in the encoded stream before buf's byte number `at` (counted from buf.start) */
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
} xcpy_dumped;

/*
 * Appends the encoding of `obj` to out->buf, STOP included, no version byte; what already stands in out->buf stays.
 * With `pin`, large objects become pins; without, everything lies in out->buf.
 * 0, or -1 with DumpError set: it names the type and where in the structure it sits
 * ("can't serialize <class 'x.Y'> at [3]['key']"). After -1, call xcpy_dumped_fini.
 */
int xcpy_dump(xcpy_state *state, PyObject *obj, bool pin, xcpy_dumped *out);
void xcpy_dumped_fini(xcpy_dumped *out);         /* GIL held: releases the pins */
size_t xcpy_dumped_size(const xcpy_dumped *out); /* bytes of it all */

/* The pieces in order. *n on return is at most 2 * n_pins + 1; `parts` has room for so many. */
void xcpy_dumped_iov(const xcpy_dumped *out, struct iovec *parts, int *n);

/* Module functions: dumps(obj) -> bytes; dump(io, obj). */
extern PyMethodDef xcpy_dump_methods[];

#endif
