/*
 * Python object -> bytes of execnet's serializer.
 *
 * There is no recursion: containers being written stand on a stack of frames, so that depth costs no C stack, and the
 * path to an object that cannot be sent ("[3]['key']") can be read off the frames when it is needed.
 *
 * Invariants. Whoever writes asks room() first, which leaves SLACK bytes beyond what was asked for; what stands
 * between two items (a SETITEM, the index of the next) is written against that slack and needs no question of its own.
 * A frame owns its container: writing a large int, a set or a channel can run Python code, which may change any
 * container above. That is seen by its size and ends the dump; it never reads a stale item.
 */
#include "dump.h"

#include <string.h>

#include "../core/xc_opcodes.h"
#include "args.h"
#include "error.h"

enum {
    SLACK = 16,        /* SETITEM and the next index are 6 */
    FIRST_FRAMES = 24, /* frames on the C stack before the heap is asked */
    MAX_I4 = 0x7fffffff,
    PATH_ENDS = 12, /* steps of a path that are shown at either end of a long one */
    KEY_SHOWN = 40, /* characters or bytes of a key that are shown */
};

typedef enum { IN_LIST, IN_TUPLE, IN_DICT_KEY, IN_DICT, IN_SET } place;

/* A container that is being written. */
typedef struct {
    PyObject *obj;   /* owned */
    PyObject *key;   /* owned or NULL; dict: the key whose value is being written; set: the member being written */
    PyObject *held;  /* owned or NULL; dict: the value whose key is being written; set: the iterator */
    Py_ssize_t next; /* list, tuple: index of the next item; dict: position of PyDict_Next */
    Py_ssize_t size; /* when it was begun */
    place place;
} frame;

typedef struct {
    unsigned char *p;   /* next byte to write, within out->buf */
    unsigned char *end; /* of out->buf's memory */
    xcpy_dumped *out;
    xcpy_state *state;
    frame *frames; /* `first`, or owned */
    size_t depth;
    size_t cap;
    bool pin;
    frame first[FIRST_FRAMES];
} dumper;

/* What the writing of an object came to. */
enum { FAILED = -1, PUSHED = 0, WROTE = 1, NOT_PLAIN = 2 };

/* ---- errors ---- */

/* A key as it is shown in a path; long ones are cut before repr sees them. */
static PyObject *
show_key(PyObject *key)
{
    if (PyUnicode_CheckExact(key) || PyBytes_CheckExact(key)) {
        Py_ssize_t size = PyObject_Size(key);
        if (size <= KEY_SHOWN) {
            return PyUnicode_FromFormat("[%R]", key);
        }
        PyObject *head = PySequence_GetSlice(key, 0, KEY_SHOWN);
        if (head == NULL) {
            return NULL;
        }
        PyObject *text = PyUnicode_FromFormat("[%R...]", head);
        Py_DECREF(head);
        return text;
    }
    if (key == Py_None || PyBool_Check(key) || PyFloat_CheckExact(key) || PyLong_CheckExact(key)) {
        PyObject *text = PyUnicode_FromFormat("[%R]", key);
        if (text != NULL) {
            return text;
        }
        PyErr_Clear(); /* an int over the limit of digits */
    }
    return PyUnicode_FromFormat("[<%s>]", Py_TYPE(key)->tp_name);
}

static PyObject *
show_step(const frame *f)
{
    switch (f->place) {
    case IN_LIST:
    case IN_TUPLE:
        return PyUnicode_FromFormat("[%zd]", f->next - 1);
    case IN_DICT_KEY:
        return PyUnicode_FromString("<key>");
    case IN_DICT:
        return show_key(f->key);
    case IN_SET:
        return PyUnicode_FromString("<member>");
    }
    Py_UNREACHABLE();
}

/* Where in the structure we are: "" at its root, else " at [3]['key']". */
static PyObject *
show_path(dumper *d)
{
    PyObject *path = PyUnicode_FromString(d->depth > 0 ? " at " : "");
    for (size_t i = 0; path != NULL && i < d->depth; i++) {
        if (i == PATH_ENDS && d->depth > 2 * PATH_ENDS) {
            i = d->depth - PATH_ENDS;
            PyUnicode_AppendAndDel(&path, PyUnicode_FromString("..."));
        }
        if (path != NULL) {
            PyUnicode_AppendAndDel(&path, show_step(&d->frames[i]));
        }
    }
    return path;
}

/* Raises DumpError(text + path) from `cause`. `text` and `cause` are taken, `cause` may be NULL. Returns FAILED. */
static int
fail(dumper *d, PyObject *text, PyObject *cause)
{
    if (text != NULL) {
        PyUnicode_AppendAndDel(&text, show_path(d));
    }
    xcpy_raise_from(d->state->DumpError, text, cause);
    return FAILED;
}

static int
fail_plain(dumper *d, const char *text)
{
    return fail(d, PyUnicode_FromString(text), NULL);
}

/* execnet goes by the name of a type; a stranger who bears one of these would have been written as what it is not. */
static bool
has_known_name(PyTypeObject *type)
{
    static const char *const known[] = {"NoneType", "bool", "int",  "long", "float",     "complex", "str",
                                        "bytes",    "list", "dict", "set",  "frozenset", "tuple",   "Channel"};
    const char *dot = strrchr(type->tp_name, '.');
    const char *name = dot != NULL ? dot + 1 : type->tp_name;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(known); i++) {
        if (strcmp(name, known[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int
fail_type(dumper *d, PyObject *obj)
{
    PyObject *text = PyUnicode_FromFormat("can't serialize %R", (PyObject *)Py_TYPE(obj));
    if (text != NULL && has_known_name(Py_TYPE(obj))) {
        PyUnicode_AppendAndDel(&text, PyUnicode_FromString(" (it shares no more than its name with the known type)"));
    }
    return fail(d, text, NULL);
}

/* ---- bytes ---- */

static void
put_i4(unsigned char *p, uint32_t n)
{
    p[0] = (unsigned char)(n >> 24);
    p[1] = (unsigned char)(n >> 16);
    p[2] = (unsigned char)(n >> 8);
    p[3] = (unsigned char)n;
}

static void
put_double(unsigned char *p, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_i4(p, (uint32_t)(bits >> 32));
    put_i4(p + 4, (uint32_t)bits);
}

static void
use_buf(dumper *d)
{
    d->p = d->out->buf.data + d->out->buf.end;
    d->end = d->out->buf.data + d->out->buf.cap;
}

static void
leave_buf(dumper *d)
{
    d->out->buf.end = (size_t)(d->p - d->out->buf.data);
}

static int
grow(dumper *d, size_t n)
{
    leave_buf(d);
    if (n > PY_SSIZE_T_MAX - SLACK || xc_buf_room(&d->out->buf, n + SLACK) != XC_OK) {
        PyErr_NoMemory();
        return -1;
    }
    use_buf(d);
    return 0;
}

static inline int
room(dumper *d, size_t n)
{
    if ((size_t)(d->end - d->p) >= n + SLACK) {
        return 0;
    }
    return grow(d, n);
}

static inline void
put_op(dumper *d, xc_op op)
{
    *d->p++ = (unsigned char)op;
}

static inline void
put_op_i4(dumper *d, xc_op op, uint32_t n)
{
    unsigned char *p = d->p;
    p[0] = (unsigned char)op;
    put_i4(p + 1, n);
    d->p = p + 5;
}

/* memcpy for what is mostly a word: no call, and no byte behind `n` is touched on either side. */
static inline void
copy_short(unsigned char *to, const unsigned char *from, size_t n)
{
    if (n >= 8 && n <= 16) {
        uint64_t head, tail;
        memcpy(&head, from, 8);
        memcpy(&tail, from + n - 8, 8);
        memcpy(to, &head, 8);
        memcpy(to + n - 8, &tail, 8);
    }
    else if (n >= 4 && n < 8) {
        uint32_t head, tail;
        memcpy(&head, from, 4);
        memcpy(&tail, from + n - 4, 4);
        memcpy(to, &head, 4);
        memcpy(to + n - 4, &tail, 4);
    }
    else if (n < 4) {
        if (n > 0) {
            to[0] = from[0];
            to[n / 2] = from[n / 2];
            to[n - 1] = from[n - 1];
        }
    }
    else {
        memcpy(to, from, n);
    }
}

/* Leaves the object's own memory standing for the next `n` bytes of the encoding. */
static int
add_pin(dumper *d, PyObject *obj, const char *ptr, size_t n)
{
    xcpy_dumped *out = d->out;
    if (out->n_pins == out->cap_pins) {
        size_t cap = out->cap_pins > 0 ? out->cap_pins * 2 : 4;
        xcpy_pin *pins = xc_realloc(out->pins, cap * sizeof *pins);
        if (pins == NULL) {
            PyErr_NoMemory();
            return FAILED;
        }
        out->pins = pins;
        out->cap_pins = cap;
    }
    leave_buf(d);
    out->pins[out->n_pins++] = (xcpy_pin){.at = xc_buf_size(&out->buf), .obj = Py_NewRef(obj), .ptr = ptr, .size = n};
    return WROTE;
}

/* Opcode, length and `n` bytes that lie at `ptr` for as long as `obj` lives. */
static int
put_text(dumper *d, xc_op op, PyObject *obj, const char *ptr, size_t n)
{
    if (n > MAX_I4) {
        return fail_plain(d, "string is too long");
    }
    bool pinned = d->pin && n >= XCPY_PIN_SIZE;
    if (room(d, pinned ? 5 : n + 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, op, (uint32_t)n);
    if (pinned) {
        return add_pin(d, obj, ptr, n);
    }
    memcpy(d->p, ptr, n);
    d->p += n;
    return WROTE;
}

/* ---- str that is not ASCII ---- */

/* Bytes of it in UTF-8, or -1 if there is a surrogate in it. */
static int64_t
utf8_size(int kind, const void *data, Py_ssize_t length)
{
    int64_t size = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (c >= 0xd800 && c <= 0xdfff) {
            return -1;
        }
        size += 1 + (c >= 0x80) + (c >= 0x800) + (c >= 0x10000);
    }
    return size;
}

static unsigned char *
put_utf8(unsigned char *p, int kind, const void *data, Py_ssize_t length)
{
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (c < 0x80) {
            *p++ = (unsigned char)c;
            continue;
        }
        if (c < 0x800) {
            *p++ = (unsigned char)(0xc0 | c >> 6);
        }
        else {
            if (c < 0x10000) {
                *p++ = (unsigned char)(0xe0 | c >> 12);
            }
            else {
                *p++ = (unsigned char)(0xf0 | c >> 18);
                *p++ = (unsigned char)(0x80 | (c >> 12 & 0x3f));
            }
            *p++ = (unsigned char)(0x80 | (c >> 6 & 0x3f));
        }
        *p++ = (unsigned char)(0x80 | (c & 0x3f));
    }
    return p;
}

static int
fail_surrogate(dumper *d, PyObject *obj)
{
    PyObject *encoded = PyUnicode_AsUTF8String(obj);
    if (encoded != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        Py_XDECREF(encoded);
        return FAILED;
    }
    PyObject *cause = xcpy_take_cause();
    return fail(d, PyUnicode_FromString("strings must be utf-8 encodable"), cause);
}

/* Our own encoder: the interpreter's would leave a second copy of the text inside the user's string. */
static int
dump_str(dumper *d, PyObject *obj)
{
#if PY_VERSION_HEX < 0x030c0000
    if (PyUnicode_READY(obj) < 0) {
        return FAILED;
    }
#endif
    Py_ssize_t length = PyUnicode_GET_LENGTH(obj);
    int kind = (int)PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    if (PyUnicode_IS_ASCII(obj)) {
        return put_text(d, XC_OP_STR, obj, data, (size_t)length);
    }
    int64_t size = utf8_size(kind, data, length);
    if (size < 0) {
        return fail_surrogate(d, obj);
    }
    if (size > MAX_I4) {
        return fail_plain(d, "string is too long");
    }
    if (room(d, (size_t)size + 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_STR, (uint32_t)size);
    d->p = put_utf8(d->p, kind, data, length);
    return WROTE;
}

/* ---- numbers ---- */

/* An int outside 32 bits: its digits. */
static int
dump_longint(dumper *d, PyObject *obj)
{
    PyObject *digits = PyLong_Type.tp_repr(obj);
    if (digits == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return FAILED;
        }
        /* The interpreter's own text names its limit and how to raise it. */
        PyObject *cause = xcpy_take_cause();
        return fail(d, PyUnicode_FromFormat("can't serialize <class 'int'> (%S)", cause), cause);
    }
    int rc = put_text(d, XC_OP_LONGINT, digits, PyUnicode_DATA(digits), (size_t)PyUnicode_GET_LENGTH(digits));
    Py_DECREF(digits);
    return rc;
}

static inline int
dump_int(dumper *d, PyObject *obj)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow || value > MAX_I4 || value < -MAX_I4 - 1LL) {
        return NOT_PLAIN;
    }
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_INT, (uint32_t)value);
    return WROTE;
}

static int
dump_complex(dumper *d, PyObject *obj)
{
    if (room(d, 17) < 0) {
        return FAILED;
    }
    Py_complex value = ((PyComplexObject *)obj)->cval;
    put_op(d, XC_OP_COMPLEX);
    put_double(d->p, value.real);
    put_double(d->p + 8, value.imag);
    d->p += 16;
    return WROTE;
}

static int
dump_bool(dumper *d, int truth)
{
    if (truth < 0 || room(d, 1) < 0) {
        return FAILED;
    }
    put_op(d, truth ? XC_OP_TRUE : XC_OP_FALSE);
    return WROTE;
}

/* numpy 2's bool is the one type that execnet takes for its name's sake and rightly so. */
static bool
is_numpy_bool(PyTypeObject *type)
{
    return !(type->tp_flags & Py_TPFLAGS_HEAPTYPE) && strcmp(type->tp_name, "numpy.bool") == 0;
}

/* ---- channels ---- */

static int
channel_id(PyObject *channel, uint32_t *id)
{
    PyObject *number = PyObject_GetAttrString(channel, "id");
    if (number == NULL) {
        return -1;
    }
    long long value = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    *id = (uint32_t)value;
    return 0;
}

static int
dump_channel(dumper *d, PyObject *obj)
{
    uint32_t id;
    if (channel_id(obj, &id) < 0 || room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_CHANNEL, id);
    return WROTE;
}

/* ---- containers ---- */

static int
more_frames(dumper *d)
{
    size_t cap = d->cap * 4;
    frame *frames = xc_alloc(cap * sizeof *frames);
    if (frames == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    memcpy(frames, d->frames, d->depth * sizeof *frames);
    if (d->frames != d->first) {
        xc_free(d->frames);
    }
    d->frames = frames;
    d->cap = cap;
    return 0;
}

static int
push(dumper *d, place place, PyObject *obj, Py_ssize_t next, Py_ssize_t size)
{
    if (d->depth == XCPY_DUMP_DEPTH) {
        PyObject *text = PyUnicode_FromFormat("can't serialize %R: nested deeper than %d, or it contains itself,",
                                              (PyObject *)Py_TYPE(obj), (int)XCPY_DUMP_DEPTH);
        return fail(d, text, NULL);
    }
    if (d->depth == d->cap && more_frames(d) < 0) {
        return FAILED;
    }
    d->frames[d->depth++] = (frame){
        .obj = Py_NewRef(obj),
        .next = next,
        .size = size,
        .place = place,
    };
    return PUSHED;
}

static void
drop_frame(frame *f)
{
    Py_DECREF(f->obj);
    Py_XDECREF(f->key);
    Py_XDECREF(f->held);
}

static int
pop(dumper *d)
{
    frame gone = d->frames[--d->depth];
    drop_frame(&gone);
    return WROTE;
}

/* The size of the topmost frame's container against what it was when its dump began. */
static inline int
check_size(dumper *d, Py_ssize_t size, Py_ssize_t before)
{
    if (size == before) {
        return 0;
    }
    d->depth--; /* the path to the container, not to an item of it */
    int rc = fail_plain(d, "container changed its size while it was dumped");
    d->depth++;
    return rc;
}

/* The plain kinds, which take one question for room and run no Python code. */
static inline int
put_plain(dumper *d, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type) {
        if (!PyUnicode_IS_COMPACT_ASCII(obj)) {
            return NOT_PLAIN;
        }
        size_t n = (size_t)PyUnicode_GET_LENGTH(obj);
        if (n >= XCPY_PIN_SIZE) {
            return NOT_PLAIN;
        }
        if (room(d, n + 5) < 0) {
            return FAILED;
        }
        unsigned char *p = d->p;
        p[0] = XC_OP_STR;
        put_i4(p + 1, (uint32_t)n);
        copy_short(p + 5, PyUnicode_DATA(obj), n);
        d->p = p + 5 + n;
        return WROTE;
    }
    if (type == &PyLong_Type) {
        return dump_int(d, obj);
    }
    if (type == &PyFloat_Type) {
        if (room(d, 9) < 0) {
            return FAILED;
        }
        put_op(d, XC_OP_FLOAT);
        put_double(d->p, PyFloat_AS_DOUBLE(obj));
        d->p += 8;
        return WROTE;
    }
    if (obj == Py_None || type == &PyBool_Type) {
        if (room(d, 1) < 0) {
            return FAILED;
        }
        put_op(d, obj == Py_None ? XC_OP_NONE : obj == Py_True ? XC_OP_TRUE : XC_OP_FALSE);
        return WROTE;
    }
    return NOT_PLAIN;
}

static int
end_tuple(dumper *d, Py_ssize_t size)
{
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_TUPLE, (uint32_t)size);
    return WROTE;
}

/* Most tuples hold plain things only and are done without a frame. */
static int
dump_tuple(dumper *d, PyObject *obj)
{
    Py_ssize_t size = PyTuple_GET_SIZE(obj);
    if (size > MAX_I4) {
        return fail_plain(d, "tuple is too long");
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        int rc = put_plain(d, PyTuple_GET_ITEM(obj, i));
        if (rc == NOT_PLAIN) {
            return push(d, IN_TUPLE, obj, i, size);
        }
        if (rc == FAILED) {
            return FAILED;
        }
    }
    return end_tuple(d, size);
}

static int
dump_list(dumper *d, PyObject *obj)
{
    Py_ssize_t size = PyList_GET_SIZE(obj);
    if (size > MAX_I4) {
        return fail_plain(d, "list is too long");
    }
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_NEWLIST, (uint32_t)size);
    return size == 0 ? WROTE : push(d, IN_LIST, obj, 0, size);
}

static int
dump_dict(dumper *d, PyObject *obj)
{
    if (room(d, 1) < 0) {
        return FAILED;
    }
    put_op(d, XC_OP_NEWDICT);
    return PyDict_GET_SIZE(obj) == 0 ? WROTE : push(d, IN_DICT, obj, 0, PyDict_GET_SIZE(obj));
}

static int
end_set(dumper *d, PyObject *obj, Py_ssize_t size)
{
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, PyFrozenSet_CheckExact(obj) ? XC_OP_FROZENSET : XC_OP_SET, (uint32_t)size);
    return WROTE;
}

static int
dump_set(dumper *d, PyObject *obj)
{
    Py_ssize_t size = PySet_GET_SIZE(obj);
    if (size > MAX_I4) {
        return fail_plain(d, "set is too long");
    }
    if (size == 0) {
        return end_set(d, obj, 0);
    }
    if (push(d, IN_SET, obj, 0, size) == FAILED) {
        return FAILED;
    }
    PyObject *iterator = PyObject_GetIter(obj);
    if (iterator == NULL) {
        return FAILED;
    }
    d->frames[d->depth - 1].held = iterator;
    return PUSHED;
}

/* Writes what put_plain did not. The caller keeps `obj` alive. */
static int
put_other(dumper *d, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyTuple_Type) {
        return dump_tuple(d, obj);
    }
    if (type == &PyList_Type) {
        return dump_list(d, obj);
    }
    if (type == &PyDict_Type) {
        return dump_dict(d, obj);
    }
    if (type == &PyUnicode_Type) {
        return dump_str(d, obj);
    }
    if (type == &PyBytes_Type) {
        return put_text(d, XC_OP_BYTES, obj, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    }
    if (type == &PyLong_Type) {
        return dump_longint(d, obj);
    }
    if (type == &PySet_Type || type == &PyFrozenSet_Type) {
        return dump_set(d, obj);
    }
    if (type == &PyComplex_Type) {
        return dump_complex(d, obj);
    }
    if (d->state->ChannelType != NULL && PyObject_TypeCheck(obj, (PyTypeObject *)d->state->ChannelType)) {
        return dump_channel(d, obj);
    }
    if (is_numpy_bool(type)) {
        return dump_bool(d, PyObject_IsTrue(obj));
    }
    return fail_type(d, obj);
}

static inline int
put(dumper *d, PyObject *obj)
{
    int rc = put_plain(d, obj);
    if (rc != NOT_PLAIN) {
        return rc;
    }
    Py_INCREF(obj);
    rc = put_other(d, obj);
    Py_DECREF(obj);
    return rc;
}

/* Each of these goes on with the topmost frame until an item of it has been pushed (PUSHED) or it is done (WROTE). */

static int
go_on_list(dumper *d, frame *f)
{
    Py_ssize_t i = f->next;
    /* An item of ours was pushed, and is complete now. Many frames may end in one place: each asks for room. */
    if (i > 0) {
        if (room(d, 1) < 0) {
            return FAILED;
        }
        put_op(d, XC_OP_SETITEM);
    }
    while (i < f->size) {
        if (check_size(d, PyList_GET_SIZE(f->obj), f->size) < 0) {
            return FAILED;
        }
        PyObject *item = PyList_GET_ITEM(f->obj, i);
        put_op_i4(d, XC_OP_INT, (uint32_t)i);
        f->next = ++i;
        int rc = put(d, item);
        if (rc != WROTE) {
            return rc;
        }
        put_op(d, XC_OP_SETITEM);
    }
    return pop(d);
}

static int
go_on_tuple(dumper *d, frame *f)
{
    while (f->next < f->size) {
        int rc = put(d, PyTuple_GET_ITEM(f->obj, f->next++));
        if (rc != WROTE) {
            return rc;
        }
    }
    return end_tuple(d, f->size) == FAILED ? FAILED : pop(d);
}

static int
put_value(dumper *d, frame *f, PyObject *value)
{
    f->place = IN_DICT;
    int rc = put(d, value);
    if (rc != WROTE) {
        return rc;
    }
    put_op(d, XC_OP_SETITEM);
    Py_CLEAR(f->key);
    return WROTE;
}

static int
put_held_value(dumper *d, frame *f)
{
    PyObject *value = f->held;
    f->held = NULL;
    int rc = put_value(d, f, value);
    Py_DECREF(value);
    return rc;
}

static int
go_on_dict(dumper *d, frame *f)
{
    PyObject *key, *value; /* borrowed */
    if (f->held != NULL) {
        int rc = put_held_value(d, f);
        if (rc != WROTE) {
            return rc;
        }
    }
    else if (f->key != NULL) {
        if (room(d, 1) < 0) {
            return FAILED;
        }
        put_op(d, XC_OP_SETITEM);
        Py_CLEAR(f->key);
    }
    for (;;) {
        if (check_size(d, PyDict_GET_SIZE(f->obj), f->size) < 0) {
            return FAILED;
        }
        if (!PyDict_Next(f->obj, &f->next, &key, &value)) {
            return pop(d);
        }
        int rc = put_plain(d, key);
        if (rc == WROTE) {
            rc = put_plain(d, value);
            if (rc == WROTE) {
                put_op(d, XC_OP_SETITEM);
                continue;
            }
            if (rc == NOT_PLAIN) {
                f->key = Py_NewRef(key);
                rc = put_value(d, f, value);
            }
        }
        else if (rc == NOT_PLAIN) {
            f->key = Py_NewRef(key);
            f->held = Py_NewRef(value);
            f->place = IN_DICT_KEY;
            rc = put(d, key);
            if (rc == WROTE) {
                rc = put_held_value(d, f);
            }
        }
        if (rc != WROTE) {
            return rc;
        }
    }
}

static int
go_on_set(dumper *d, frame *f)
{
    for (;;) {
        Py_CLEAR(f->key);
        if (check_size(d, PySet_GET_SIZE(f->obj), f->size) < 0) {
            return FAILED;
        }
        f->key = PyIter_Next(f->held);
        if (f->key == NULL) {
            break;
        }
        int rc = put(d, f->key);
        if (rc != WROTE) {
            return rc;
        }
    }
    if (PyErr_Occurred() || end_set(d, f->obj, f->size) == FAILED) {
        return FAILED;
    }
    return pop(d);
}

static int
go_on(dumper *d)
{
    frame *f = &d->frames[d->depth - 1];
    switch (f->place) {
    case IN_LIST:
        return go_on_list(d, f);
    case IN_TUPLE:
        return go_on_tuple(d, f);
    case IN_DICT_KEY:
    case IN_DICT:
        return go_on_dict(d, f);
    case IN_SET:
        return go_on_set(d, f);
    }
    Py_UNREACHABLE();
}

/* ---- the whole ---- */

int
xcpy_dump(xcpy_state *state, PyObject *obj, bool pin, xcpy_dumped *out)
{
    dumper d;
    d.out = out;
    d.state = state;
    d.frames = d.first;
    d.depth = 0;
    d.cap = FIRST_FRAMES;
    d.pin = pin;
    if (xc_buf_room(&out->buf, SLACK) != XC_OK) {
        PyErr_NoMemory();
        return -1;
    }
    use_buf(&d);
    int rc = put(&d, obj);
    while (rc != FAILED && d.depth > 0) {
        rc = go_on(&d);
    }
    if (rc != FAILED && room(&d, 1) < 0) {
        rc = FAILED;
    }
    if (rc != FAILED) {
        put_op(&d, XC_OP_STOP);
        leave_buf(&d);
    }
    while (d.depth > 0) {
        (void)pop(&d);
    }
    if (d.frames != d.first) {
        xc_free(d.frames);
    }
    return rc == FAILED ? -1 : 0;
}

void
xcpy_dumped_fini(xcpy_dumped *out)
{
    for (size_t i = 0; i < out->n_pins; i++) {
        Py_DECREF(out->pins[i].obj);
    }
    xc_free(out->pins);
    xc_buf_fini(&out->buf);
    *out = (xcpy_dumped){0};
}

size_t
xcpy_dumped_size(const xcpy_dumped *out)
{
    size_t size = xc_buf_size(&out->buf);
    for (size_t i = 0; i < out->n_pins; i++) {
        size += out->pins[i].size;
    }
    return size;
}

void
xcpy_dumped_iov(const xcpy_dumped *out, struct iovec *parts, int *n)
{
    unsigned char *head = out->buf.data + out->buf.start;
    size_t at = 0;
    *n = 0;
    for (size_t i = 0; i < out->n_pins; i++) {
        const xcpy_pin *pin = &out->pins[i];
        if (pin->at > at) {
            parts[(*n)++] = (struct iovec){.iov_base = head + at, .iov_len = pin->at - at};
            at = pin->at;
        }
        parts[(*n)++] = (struct iovec){.iov_base = (void *)pin->ptr, .iov_len = pin->size};
    }
    if (xc_buf_size(&out->buf) > at) {
        parts[(*n)++] = (struct iovec){.iov_base = head + at, .iov_len = xc_buf_size(&out->buf) - at};
    }
}

/* ---- module functions ---- */

/* All of it in one bytes object. */
static PyObject *
join(const xcpy_dumped *out)
{
    size_t size = xcpy_dumped_size(out);
    if (size > PY_SSIZE_T_MAX) {
        return PyErr_NoMemory();
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (result == NULL) {
        return NULL;
    }
    char *to = PyBytes_AS_STRING(result);
    const unsigned char *head = xc_buf_head(&out->buf);
    size_t at = 0;
    for (size_t i = 0; i < out->n_pins; i++) {
        const xcpy_pin *pin = &out->pins[i];
        memcpy(to, head + at, pin->at - at);
        to += pin->at - at;
        at = pin->at;
        memcpy(to, pin->ptr, pin->size);
        to += pin->size;
    }
    memcpy(to, head + at, xc_buf_size(&out->buf) - at);
    return result;
}

static PyObject *
dump_versioned(xcpy_state *state, PyObject *obj)
{
    static const unsigned char version = XC_FORMAT_VERSION;
    PyObject *result = NULL; /* owned */
    xcpy_dumped out = {0};
    if (xc_buf_add(&out.buf, &version, 1) != XC_OK) {
        PyErr_NoMemory();
    }
    else if (xcpy_dump(state, obj, true, &out) == 0) {
        result = join(&out);
    }
    xcpy_dumped_fini(&out);
    return result;
}

PyDoc_STRVAR(dumps_doc, "dumps($module, /, obj)\n--\n\n"
                        "The bytes that encode obj; loads() makes an equal object of them.\n\n"
                        "obj is None, a bool, int, float, complex, str, bytes, Channel, or a list, tuple, dict, set\n"
                        "or frozenset of these, of exactly these types and at most 2000 deep. Anything else, a str\n"
                        "with surrogates, and an int of more digits than sys.get_int_max_str_digits() raise a\n"
                        "DumpError that says what it was and where it sat.");

static PyObject *
module_dumps(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"obj"};
    PyObject *obj; /* borrowed */
    if (xcpy_args("dumps", names, 1, 1, args, nargs, kwnames, &obj) < 0) {
        return NULL;
    }
    return dump_versioned(PyModule_GetState(module), obj);
}

PyDoc_STRVAR(dump_doc, "dump($module, /, byteio, obj)\n--\n\n"
                       "Passes dumps(obj) to byteio.write(), in one call; what write() returns is not looked at.\n"
                       "If obj cannot be encoded, a DumpError is raised as by dumps(), and nothing was written.");

static PyObject *
module_dump(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"byteio", "obj"};
    PyObject *given[2]; /* borrowed */
    if (xcpy_args("dump", names, 2, 2, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    PyObject *bytes = dump_versioned(PyModule_GetState(module), given[1]);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *written = PyObject_CallMethod(given[0], "write", "O", bytes);
    Py_DECREF(bytes);
    if (written == NULL) {
        return NULL;
    }
    Py_DECREF(written);
    Py_RETURN_NONE;
}

PyMethodDef xcpy_dump_methods[] = {
    {"dumps", (PyCFunction)(void (*)(void))module_dumps, METH_FASTCALL | METH_KEYWORDS, dumps_doc},
    {"dump", (PyCFunction)(void (*)(void))module_dump, METH_FASTCALL | METH_KEYWORDS, dump_doc},
    {NULL, NULL, 0, NULL},
};
