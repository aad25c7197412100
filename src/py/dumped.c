/*
 * How an encoding is given away: as pieces for writev(2), or as one bytes object. And the module functions dumps() and
 * dump().
 */
#include "args.h"
#include "dump.h"
#include "xc_opcodes.h"

#include <string.h>

int
xcpy_dumped_pin(xcpy_dumped *out, PyObject *obj, const void *ptr, size_t n)
{
    if (out->n_pins == out->cap_pins) {
        size_t cap = out->cap_pins > 0 ? out->cap_pins * 2 : 4;
        xcpy_pin *pins = xc_realloc(out->pins, cap * sizeof *pins);
        if (pins == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        out->pins = pins;
        out->cap_pins = cap;
    }
    out->pins[out->n_pins++] = (xcpy_pin){.at = xc_buf_size(&out->buf), .obj = Py_NewRef(obj), .ptr = ptr, .size = n};
    return 0;
}

void
xcpy_dumped_fini(xcpy_dumped *out)
{
    for (size_t i = 0; i < out->n_pins; i++) {
        Py_DECREF(out->pins[i].obj);
    }
    if (out->pins != NULL) {
        xc_free(out->pins);
    }
    if (out->channels.data != NULL) {
        xc_buf_fini(&out->channels);
    }
    xc_free(out->buf.data);
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

int
xcpy_dump_plain(xcpy_state *state, PyObject *obj, int how, xcpy_dumped *out)
{
    PyObject *helpers = PyImport_ImportModule("execnet_c.common.plain");
    PyObject *plain = helpers == NULL ? NULL : PyObject_CallMethod(helpers, "plain", "(O)", obj);
    int result = plain == NULL ? -1 : xcpy_dump(state, plain, how, out);
    Py_XDECREF(plain);
    Py_XDECREF(helpers);
    return result;
}

static PyObject *
dump_versioned(xcpy_state *state, PyObject *obj, PyObject *py_strict)
{
    int strict = PyObject_IsTrue(py_strict);
    if (strict < 0) {
        return NULL;
    }
    static const unsigned char version = XC_FORMAT_VERSION;
    PyObject *result = NULL; /* owned */
    xcpy_dumped out = {0};
    if (xc_buf_add(&out.buf, &version, 1) != XC_OK) {
        PyErr_NoMemory();
    }
    else if ((strict ? xcpy_dump : xcpy_dump_plain)(state, obj, XCPY_PIN, &out) == 0) {
        result = join(&out);
    }
    xcpy_dumped_fini(&out);
    return result;
}

PyDoc_STRVAR(dumps_doc, "dumps($module, /, obj, *, strict=True)\n--\n\n"
                        "The bytes that encode obj; loads() makes an equal object of them.\n\n"
                        "obj is None, a bool, int, float, complex, str, bytes, Channel, or a list, tuple, dict, set\n"
                        "or frozenset of these, of exactly these types and at most 2000 deep. Anything else, a str\n"
                        "with surrogates, and an int of more digits than sys.get_int_max_str_digits() raise a\n"
                        "DumpError that says what it was and where it sat. With strict=False, an enum is encoded\n"
                        "as its value, and an instance of a subclass of str, int, float, list, tuple, dict, set or\n"
                        "frozenset as one of that.");

static PyObject *
module_dumps(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"obj", "strict"};
    PyObject *given[2] = {NULL, Py_True}; /* borrowed */
    if (xcpy_args("dumps", names, nargs > 1 ? 1 : 2, 1, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    return dump_versioned(PyModule_GetState(module), given[0], given[1]);
}

PyDoc_STRVAR(dump_doc,
             "dump($module, /, byteio, obj, *, strict=True)\n--\n\n"
             "Passes dumps(obj, strict=strict) to byteio.write(), in one call; what write() returns is not looked at.\n"
             "If obj cannot be encoded, a DumpError is raised as by dumps(), and nothing was written.");

static PyObject *
module_dump(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"byteio", "obj", "strict"};
    PyObject *given[3] = {NULL, NULL, Py_True}; /* borrowed */
    if (xcpy_args("dump", names, nargs > 2 ? 2 : 3, 2, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    PyObject *bytes = dump_versioned(PyModule_GetState(module), given[1], given[2]);
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
