/*
 * Exceptions about wrong input: what is wrong, and at which offset.
 */
#include "error.h"
#include "loader.h"

static size_t
offset(const xcpy_loader *L, xcpy_cursor p)
{
    return (size_t)(p - L->data) + L->base;
}

xcpy_cursor
xcpy_load_fail(xcpy_loader *L, const char *what)
{
    PyErr_Format(L->opts->state->LoadError, "%s at offset %zu", what, offset(L, L->op));
    return NULL;
}

xcpy_cursor
xcpy_load_fail_end(xcpy_loader *L, const char *how)
{
    PyErr_Format(L->opts->state->TruncatedError, "input ends at offset %zu, %s at offset %zu", offset(L, L->end), how,
                 offset(L, L->op));
    return NULL;
}

xcpy_cursor
xcpy_load_fail_from(xcpy_loader *L, const char *what)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception)) {
        return NULL;
    }
    PyObject *cause = xcpy_take_cause();
    PyObject *text = PyUnicode_FromFormat("%s at offset %zu: %S", what, offset(L, L->op), cause);
    xcpy_raise_from(L->opts->state->LoadError, text, cause);
    return NULL;
}

xcpy_cursor
xcpy_load_fail_opcode(xcpy_loader *L)
{
    PyObject *op = PyBytes_FromStringAndSize((const char *)L->op, 1);
    if (op != NULL) {
        PyErr_Format(L->opts->state->LoadError, "unknown opcode %R at offset %zu - wire protocol corruption?", op,
                     offset(L, L->op));
        Py_DECREF(op);
    }
    return NULL;
}

xcpy_cursor
xcpy_load_truncated(xcpy_loader *L)
{
    return xcpy_load_fail_end(L, "within what begins");
}
