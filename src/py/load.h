/*
 * Bytes of execnet's serializer -> Python object. Everything that comes in is hostile: lengths, depth, counts,
 * opcodes and UTF-8 are checked before anything is allocated for them.
 */
#ifndef XCPY_LOAD_H
#define XCPY_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "state.h"

enum {
    XCPY_LOAD_DEPTH = 100000, /* nesting of what is built */
    XCPY_HASH_DEPTH = 1000,   /* nesting of a dict key or set member: hashing recurses on the C stack */
};

/* execnet's string coercion: what py2's str and py3's str become. */
typedef struct {
    bool py2str_as_py3str; /* opcode PY2STRING: str by latin-1 instead of bytes */
    bool py3str_as_py2str; /* opcode PY3STRING: bytes instead of str */
} xcpy_strconfig;

/* Makes (or finds) the channel of that id. New reference, or NULL with an exception. */
typedef PyObject *(*xcpy_make_channel)(void *arg, uint32_t id);

typedef struct {
    xcpy_state *state;
    xcpy_strconfig strconfig;
    xcpy_make_channel make_channel; /* NULL: a CHANNEL opcode is a LoadError */
    void *arg;
} xcpy_load_opts;

/*
 * The object encoded in data[0..size), up to the first STOP; bytes behind it are ignored, as execnet does. No version
 * byte expected.
 * New reference, or NULL with: LoadError (what is wrong and at which offset), TruncatedError (both LoadError and
 * EOFError), MemoryError. `base` is added to the offsets that errors name (1 behind a version byte).
 */
PyObject *xcpy_load(const xcpy_load_opts *opts, const unsigned char *data, size_t size, size_t base);

/* Module functions: loads(bytes, py2str_as_py3str=False, py3str_as_py2str=False); load(io, ...). */
extern PyMethodDef xcpy_load_methods[];

#endif
