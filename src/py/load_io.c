/*
 * The module functions loads() and load(): bytes from an object, or from a file that is read in pieces.
 *
 * Invariant of load(): it reads no byte that does not belong to the object. Behind each opcode except STOP there is
 * another one, so an operand and the next opcode are read together. No object is built before all bytes are there, and
 * a false length makes us allocate no more than one piece beyond what was really read.
 */
#include "args.h"
#include "error.h"
#include "load.h"
#include "xc_buf.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

#include <string.h>

/* The smallest and the largest piece of a long string that is read at once. */
enum { PIECE_MIN = 64 * 1024, PIECE_MAX = 64 * 1024 * 1024 };

static PyObject *
fail_version(PyObject *type, const unsigned char *byte, Py_ssize_t n)
{
    PyObject *got = PyBytes_FromStringAndSize((const char *)byte, n);
    if (got == NULL) {
        return NULL;
    }
    PyErr_Format(type, "wrong dumpformat version %R", got);
    Py_DECREF(got);
    return NULL;
}

/* The object in `data`, which begins with a version byte. */
static PyObject *
load_versioned(const xcpy_load_opts *opts, const unsigned char *data, size_t size)
{
    if (size == 0) {
        return fail_version(opts->state->TruncatedError, (const unsigned char *)"", 0);
    }
    if (data[0] != XC_FORMAT_VERSION) {
        return fail_version(opts->state->LoadError, data, 1);
    }
    return xcpy_load(opts, data + 1, size - 1, 1);
}

/* Parses (source, py2str_as_py3str, py3str_as_py2str) for both functions. */
static int
take_args(PyObject *module, const char *function, const char *source_name, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames, PyObject **source, xcpy_load_opts *opts)
{
    const char *const names[] = {source_name, "py2str_as_py3str", "py3str_as_py2str"};
    PyObject *given[] = {NULL, Py_False, Py_False}; /* borrowed */
    if (xcpy_args(function, names, 3, 1, args, nargs, kwnames, given) < 0) {
        return -1;
    }
    int py2 = PyObject_IsTrue(given[1]);
    int py3 = py2 < 0 ? -1 : PyObject_IsTrue(given[2]);
    if (py3 < 0) {
        return -1;
    }
    *source = given[0];
    *opts = (xcpy_load_opts){
        .state = PyModule_GetState(module),
        .strconfig = {.py2str_as_py3str = py2 > 0, .py3str_as_py2str = py3 > 0},
    };
    return 0;
}

PyDoc_STRVAR(loads_doc,
             "loads($module, /, bytestring, py2str_as_py3str=False, py3str_as_py2str=False)\n--\n\n"
             "The object that dumps() encoded in bytestring, any contiguous bytes-like object; bytes behind it are\n"
             "ignored. py2str_as_py3str: what was a str of Python 2 becomes a str (by latin-1), not bytes.\n"
             "py3str_as_py2str: what was a str of Python 3 becomes bytes (UTF-8).\n\n"
             "Raises LoadError, with the offset, if the bytes are not well formed; TruncatedError, which is an\n"
             "EOFError too, if they end too early. A Channel cannot be loaded here: LoadError.");

static PyObject *
module_loads(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *source; /* borrowed */
    xcpy_load_opts opts;
    if (take_args(module, "loads", "bytestring", args, nargs, kwnames, &source, &opts) < 0) {
        return NULL;
    }
    if (PyBytes_CheckExact(source)) {
        return load_versioned(&opts, (const unsigned char *)PyBytes_AS_STRING(source),
                              (size_t)PyBytes_GET_SIZE(source));
    }
    Py_buffer view;
    if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *result = load_versioned(&opts, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return result;
}

/* ---- load(io) ---- */

/* Appends what one read(n) returns, at most n bytes; *got: how many. */
static int
read_some(PyObject *io, size_t n, xc_buf *buf, size_t *got)
{
    PyObject *bytes = PyObject_CallMethod(io, "read", "n", (Py_ssize_t)n);
    if (bytes == NULL) {
        return -1;
    }
    int rc = -1;
    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "read() should return bytes, not %s", Py_TYPE(bytes)->tp_name);
    }
    else if ((size_t)PyBytes_GET_SIZE(bytes) > n) {
        PyErr_Format(PyExc_ValueError, "read(%zu) returned %zd bytes", n, PyBytes_GET_SIZE(bytes));
    }
    else if (xc_buf_add(buf, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)) != XC_OK) {
        PyErr_NoMemory();
    }
    else {
        *got = (size_t)PyBytes_GET_SIZE(bytes);
        rc = 0;
    }
    Py_DECREF(bytes);
    return rc;
}

/* Appends n bytes. *short_read: there were fewer, as a read() that returns fewer bytes than it was asked for is the end
 * of the input. */
static int
read_all(PyObject *io, size_t n, xc_buf *buf, bool *short_read)
{
    while (n > 0) {
        size_t piece = xc_buf_size(buf) > PIECE_MIN ? xc_buf_size(buf) : PIECE_MIN;
        piece = piece > PIECE_MAX ? PIECE_MAX : piece;
        piece = piece > n ? n : piece;
        size_t got;
        if (read_some(io, piece, buf, &got) < 0) {
            return -1;
        }
        if (got < piece) {
            *short_read = true;
            return 0;
        }
        n -= got;
    }
    return 0;
}

/* How many bytes must follow this opcode: its operand's fixed part and, except for texts, the next opcode. */
static size_t
sure_to_follow(unsigned char op)
{
    switch ((xc_op)op) {
    case XC_OP_FLOAT:
        return 8 + 1;
    case XC_OP_COMPLEX:
        return 16 + 1;
    case XC_OP_TUPLE:
    case XC_OP_SET:
    case XC_OP_FROZENSET:
    case XC_OP_CHANNEL:
    case XC_OP_INT:
    case XC_OP_LONG:
    case XC_OP_NEWLIST:
        return 4 + 1;
    case XC_OP_BYTES:
    case XC_OP_STR:
    case XC_OP_PY2STR:
    case XC_OP_UNICODE:
    case XC_OP_LONGINT:
    case XC_OP_LONGLONG:
        return 4;
    case XC_OP_NONE:
    case XC_OP_TRUE:
    case XC_OP_FALSE:
    case XC_OP_NEWDICT:
    case XC_OP_SETITEM:
        return 1;
    case XC_OP_STOP:
    case XC_OP_HUGE_BYTES: /* unknown in files */
    case XC_OP_HUGE_STR:
    case XC_OP_PICKLE:
        break;
    }
    return 0;
}

/* Reads from the opcode at the end of `buf` up to STOP, or to where xcpy_load will find the input wrong or
 * incomplete. */
static int
read_opcodes(PyObject *io, xc_buf *buf)
{
    bool short_read = false;
    for (;;) {
        size_t n = sure_to_follow(xc_buf_head(buf)[xc_buf_size(buf) - 1]);
        if (n == 0) {
            return 0; /* STOP, or unknown */
        }
        if (read_all(io, n, buf, &short_read) < 0) {
            return -1;
        }
        if (short_read) {
            return 0;
        }
        if (n != 4) {
            continue;
        }
        const unsigned char *p = xc_buf_head(buf) + xc_buf_size(buf) - 4;
        uint32_t length = xc_get_u32(p);
        if (length > INT32_MAX) {
            return 0;
        }
        if (read_all(io, (size_t)length + 1, buf, &short_read) < 0) {
            return -1;
        }
        if (short_read) {
            return 0;
        }
    }
}

PyDoc_STRVAR(load_doc, "load($module, /, io, py2str_as_py3str=False, py3str_as_py2str=False)\n--\n\n"
                       "Reads one object from io, which needs no more than read(n), and leaves io right behind it.\n"
                       "A read() that returns fewer bytes than it was asked for is the end of the input.\n\n"
                       "Otherwise as loads(); what read() raises passes through.");

static PyObject *
module_load(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *io; /* borrowed */
    xcpy_load_opts opts;
    if (take_args(module, "load", "io", args, nargs, kwnames, &io, &opts) < 0) {
        return NULL;
    }
    PyObject *result = NULL; /* owned */
    xc_buf buf = {0};
    size_t got;
    if (read_some(io, 1, &buf, &got) < 0) {
        goto done;
    }
    if (got == 1 && xc_buf_head(&buf)[0] == XC_FORMAT_VERSION) {
        if (read_some(io, 1, &buf, &got) < 0 || (got == 1 && read_opcodes(io, &buf) < 0)) {
            goto done;
        }
    }
    result = load_versioned(&opts, xc_buf_head(&buf), xc_buf_size(&buf));
done:
    xc_buf_fini(&buf);
    return result;
}

PyMethodDef xcpy_load_methods[] = {
    {"loads", (PyCFunction)(void (*)(void))module_loads, METH_FASTCALL | METH_KEYWORDS, loads_doc},
    {"load", (PyCFunction)(void (*)(void))module_load, METH_FASTCALL | METH_KEYWORDS, load_doc},
    {NULL, NULL, 0, NULL},
};
