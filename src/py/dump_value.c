/*
 * Encodes objects without parts that dump.c does not: long str and bytes, str that is not ASCII, large ints, complex,
 * channels.
 */
#include "dump_buf.h"
#include "error.h"
#include "xc_opcodes.h"

#include <string.h>

/* ---- bytes and ASCII ---- */

/* Lets the object's own memory be the next `n` bytes of the encoding. */
static int
add_pin(xcpy_dumper *d, PyObject *obj, const char *ptr, size_t n)
{
    leave_buf(d);
    return xcpy_dumped_pin(d->out, obj, ptr, n) < 0 ? FAILED : WROTE;
}

/* Writes opcode and length of a str or bytes object or large int of `n` bytes, and makes room for `more`. */
static int
put_text_head(xcpy_dumper *d, xc_op op, size_t n, size_t more)
{
    bool huge = n > MAX_I4;
    if (huge && (op == XC_OP_LONGINT || (d->how & XCPY_HUGE) == 0)) {
        return xcpy_dump_fail_text(d, "string is too long");
    }
    if (room(d, 9 + more) < 0) {
        return FAILED;
    }
    if (huge) {
        put_op(d, op == XC_OP_BYTES ? XC_OP_HUGE_BYTES : XC_OP_HUGE_STR);
        xc_put_u64(d->p, n);
        d->p += 8;
    }
    else {
        put_op_i4(d, op, (uint32_t)n);
    }
    return WROTE;
}

/* Writes opcode, length and `n` bytes at `ptr`, which are valid as long as `obj` lives. */
static int
put_text(xcpy_dumper *d, xc_op op, PyObject *obj, const char *ptr, size_t n)
{
    bool pinned = (d->how & XCPY_PIN) != 0 && n >= XCPY_PIN_SIZE;
    if (put_text_head(d, op, n, pinned ? 0 : n) == FAILED) {
        return FAILED;
    }
    if (pinned) {
        return add_pin(d, obj, ptr, n);
    }
    memcpy(d->p, ptr, n);
    d->p += n;
    return WROTE;
}

/* ---- str that is not ASCII ---- */

/* Its size in UTF-8, or -1 if it has a surrogate. */
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

/* Our own encoder: the interpreter's would leave a second copy of the text in the user's string. */
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
    if (put_text_head(d, XC_OP_STR, (size_t)size, (size_t)size) == FAILED) {
        return FAILED;
    }
    d->p = put_utf8(d->p, kind, data, length);
    return WROTE;
}

/* ---- numbers ---- */

/* Writes an int outside 32 bits as its digits. */
static int
dump_longint(xcpy_dumper *d, PyObject *obj)
{
    PyObject *digits = PyLong_Type.tp_repr(obj);
    if (digits == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return FAILED;
        }
        /* The interpreter's own text names the limit and how to raise it. */
        PyObject *cause = xcpy_take_cause();
        return xcpy_dump_fail(d, PyUnicode_FromFormat("can't serialize <class 'int'> (%S)", cause), cause);
    }
    int rc = put_text(d, XC_OP_LONGINT, digits, PyUnicode_DATA(digits), (size_t)PyUnicode_GET_LENGTH(digits));
    Py_DECREF(digits);
    return rc;
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

/* numpy 2's bool: the one type that execnet accepts because of its name, and correctly. */
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
    if (xc_buf_add(&d->out->channels, &id, sizeof id) != XC_OK) {
        PyErr_NoMemory();
        return FAILED;
    }
    put_op_i4(d, XC_OP_CHANNEL, id);
    return WROTE;
}

/* ---- the whole ---- */

int
xcpy_dump_value(xcpy_dumper *d, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type) {
        return dump_str(d, obj);
    }
    if (type == &PyBytes_Type) {
        return put_text(d, XC_OP_BYTES, obj, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    }
    if (type == &PyLong_Type) {
        return dump_longint(d, obj);
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
