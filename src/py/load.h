/*
 * Bytes of execnet's serializer -> Python object. All input may be hostile: lengths, depth, counts, opcodes and UTF-8
 * are checked before anything is allocated for them.
 */
#ifndef XCPY_LOAD_H
#define XCPY_LOAD_H

#include "state.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    XCPY_LOAD_DEPTH = 100000, /* nesting of the object */
    XCPY_HASH_DEPTH = 1000,   /* nesting of a dict key or set member: hashing recurses on the C stack */
};

/* execnet's string coercion: what a str of Python 2 and a str of Python 3 become. */
typedef struct {
    bool py2str_as_py3str; /* opcode PY2STR: str by latin-1, not bytes */
    bool py3str_as_py2str; /* opcode STR: bytes, not str */
} xcpy_strconfig;

/* Makes (or finds) the channel of that id. New reference, or NULL with an exception. */
typedef PyObject *(*xcpy_make_channel)(void *arg, uint32_t id);

/* Makes an object of the input's memory, or, if `aligned` asks for a multiple of XC_PICKLE_ALIGN and it is none, of a
 * copy. The input stays valid until the load is over. New reference, or NULL with MemoryError. */
typedef PyObject *(*xcpy_own)(void *arg, bool aligned);

typedef struct {
    xcpy_state *state;
    xcpy_strconfig strconfig;
    xcpy_make_channel make_channel; /* NULL: a CHANNEL opcode is a LoadError */
    xcpy_own own;                   /* NULL: a PICKLE opcode is a LoadError */
    void *arg;                      /* of both */
} xcpy_load_opts;

/*
 * The object encoded in data[0..size), up to the first STOP; bytes behind that are ignored, as execnet does. There is
 * no version byte. New reference, or NULL with LoadError (what is wrong, and at which offset), TruncatedError (both
 * LoadError and EOFError) or MemoryError. `base` is added to the offsets in errors (1: behind a version byte).
 */
PyObject *xcpy_load(const xcpy_load_opts *opts, const unsigned char *data, size_t size, size_t base);

#ifdef Py_GIL_DISABLED
/* Frees state->strings, when the module is cleared. */
void xcpy_free_strings(xcpy_state *state);
#endif

/* Module functions: loads(bytes, py2str_as_py3str=False, py3str_as_py2str=False); load(io, ...). */
extern PyMethodDef xcpy_load_methods[];

#endif
