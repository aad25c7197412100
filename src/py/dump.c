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
#include <string.h>

#include "dumper.h"
#include "error.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

enum {
    SLACK = 16, /* SETITEM and the next index are 6 */
    MAX_I4 = 0x7fffffff,
};

static int
fail_plain(xcpy_dumper *d, const char *text)
{
    return xcpy_dump_fail(d, PyUnicode_FromString(text), NULL);
}

/* ---- bytes ---- */

static void
put_double(unsigned char *p, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    xc_put_u32(p, (uint32_t)(bits >> 32));
    xc_put_u32(p + 4, (uint32_t)bits);
}

static void
use_buf(xcpy_dumper *d)
{
    d->p = d->out->buf.data + d->out->buf.end;
    d->end = d->out->buf.data + d->out->buf.cap;
}

static void
leave_buf(xcpy_dumper *d)
{
    d->out->buf.end = (size_t)(d->p - d->out->buf.data);
}

static int
grow(xcpy_dumper *d, size_t n)
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
room(xcpy_dumper *d, size_t n)
{
    if ((size_t)(d->end - d->p) >= n + SLACK) {
        return 0;
    }
    return grow(d, n);
}

static inline void
put_op(xcpy_dumper *d, xc_op op)
{
    *d->p++ = (unsigned char)op;
}

static inline void
put_op_i4(xcpy_dumper *d, xc_op op, uint32_t n)
{
    unsigned char *p = d->p;
    p[0] = (unsigned char)op;
    xc_put_u32(p + 1, n);
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
add_pin(xcpy_dumper *d, PyObject *obj, const char *ptr, size_t n)
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
put_text(xcpy_dumper *d, xc_op op, PyObject *obj, const char *ptr, size_t n)
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
fail_surrogate(xcpy_dumper *d, PyObject *obj)
{
    PyObject *encoded = PyUnicode_AsUTF8String(obj);
    if (encoded != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        Py_XDECREF(encoded);
        return FAILED;
    }
    PyObject *cause = xcpy_take_cause();
    return xcpy_dump_fail(d, PyUnicode_FromString("strings must be utf-8 encodable"), cause);
}

/* Our own encoder: the interpreter's would leave a second copy of the text inside the user's string. */
static int
dump_str(xcpy_dumper *d, PyObject *obj)
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
dump_longint(xcpy_dumper *d, PyObject *obj)
{
    PyObject *digits = PyLong_Type.tp_repr(obj);
    if (digits == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return FAILED;
        }
        /* The interpreter's own text names its limit and how to raise it. */
        PyObject *cause = xcpy_take_cause();
        return xcpy_dump_fail(d, PyUnicode_FromFormat("can't serialize <class 'int'> (%S)", cause), cause);
    }
    int rc = put_text(d, XC_OP_LONGINT, digits, PyUnicode_DATA(digits), (size_t)PyUnicode_GET_LENGTH(digits));
    Py_DECREF(digits);
    return rc;
}

static inline int
dump_int(xcpy_dumper *d, PyObject *obj)
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
dump_complex(xcpy_dumper *d, PyObject *obj)
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
dump_bool(xcpy_dumper *d, int truth)
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
dump_channel(xcpy_dumper *d, PyObject *obj)
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
more_frames(xcpy_dumper *d)
{
    size_t cap = d->cap * 4;
    xcpy_frame *frames = xc_alloc(cap * sizeof *frames);
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
push(xcpy_dumper *d, xcpy_place place, PyObject *obj, Py_ssize_t next, Py_ssize_t size)
{
    if (d->depth == XCPY_DUMP_DEPTH) {
        PyObject *text = PyUnicode_FromFormat("can't serialize %R: nested deeper than %d, or it contains itself,",
                                              (PyObject *)Py_TYPE(obj), (int)XCPY_DUMP_DEPTH);
        return xcpy_dump_fail(d, text, NULL);
    }
    if (d->depth == d->cap && more_frames(d) < 0) {
        return FAILED;
    }
    d->frames[d->depth++] = (xcpy_frame){
        .obj = Py_NewRef(obj),
        .next = next,
        .size = size,
        .place = place,
    };
    return PUSHED;
}

static void
drop_frame(xcpy_frame *f)
{
    Py_DECREF(f->obj);
    Py_XDECREF(f->key);
    Py_XDECREF(f->held);
}

static int
pop(xcpy_dumper *d)
{
    xcpy_frame gone = d->frames[--d->depth];
    drop_frame(&gone);
    return WROTE;
}

/* The size of the topmost frame's container against what it was when its dump began. */
static inline int
check_size(xcpy_dumper *d, Py_ssize_t size, Py_ssize_t before)
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
put_plain(xcpy_dumper *d, PyObject *obj)
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
        xc_put_u32(p + 1, (uint32_t)n);
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
end_tuple(xcpy_dumper *d, Py_ssize_t size)
{
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_TUPLE, (uint32_t)size);
    return WROTE;
}

/* Most tuples hold plain things only and are done without a frame. */
static int
dump_tuple(xcpy_dumper *d, PyObject *obj)
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
dump_list(xcpy_dumper *d, PyObject *obj)
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
dump_dict(xcpy_dumper *d, PyObject *obj)
{
    if (room(d, 1) < 0) {
        return FAILED;
    }
    put_op(d, XC_OP_NEWDICT);
    return PyDict_GET_SIZE(obj) == 0 ? WROTE : push(d, IN_DICT, obj, 0, PyDict_GET_SIZE(obj));
}

static int
end_set(xcpy_dumper *d, PyObject *obj, Py_ssize_t size)
{
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, PyFrozenSet_CheckExact(obj) ? XC_OP_FROZENSET : XC_OP_SET, (uint32_t)size);
    return WROTE;
}

static int
dump_set(xcpy_dumper *d, PyObject *obj)
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
put_other(xcpy_dumper *d, PyObject *obj)
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
    return xcpy_dump_fail_type(d, obj);
}

static inline int
put(xcpy_dumper *d, PyObject *obj)
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
go_on_list(xcpy_dumper *d, xcpy_frame *f)
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
go_on_tuple(xcpy_dumper *d, xcpy_frame *f)
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
put_value(xcpy_dumper *d, xcpy_frame *f, PyObject *value)
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
put_held_value(xcpy_dumper *d, xcpy_frame *f)
{
    PyObject *value = f->held;
    f->held = NULL;
    int rc = put_value(d, f, value);
    Py_DECREF(value);
    return rc;
}

static int
go_on_dict(xcpy_dumper *d, xcpy_frame *f)
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
go_on_set(xcpy_dumper *d, xcpy_frame *f)
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
go_on(xcpy_dumper *d)
{
    xcpy_frame *f = &d->frames[d->depth - 1];
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
    xcpy_dumper d;
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
