/*
 * The strings that the decoder makes, if its cache does not have them.
 */
#include "load_str.h"

static inline bool
is_ascii(xcpy_cursor p, size_t n)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t word, seen = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, p + i, 8);
        seen |= word;
    }
    for (; i < n; i++) {
        seen |= p[i];
    }
    return (seen & high) == 0;
}

PyObject *
xcpy_make_str(xcpy_loader *L, xcpy_cursor p, size_t n)
{
    if (n > 1 && is_ascii(p, n)) {
        PyObject *s = PyUnicode_New((Py_ssize_t)n, 127);
        if (s != NULL) {
            memcpy(PyUnicode_DATA(s), p, n);
        }
        return s;
    }
    PyObject *s = PyUnicode_DecodeUTF8((const char *)p, (Py_ssize_t)n, NULL);
    if (s == NULL) {
        (void)xcpy_load_fail_from(L, "bad UTF-8");
    }
    return s;
}

PyObject *
xcpy_make_cached_str(xcpy_loader *L, xcpy_cursor p, uint32_t n, PyObject **place)
{
    L->missed += L->missed < XCPY_MISSED_MAX;
    PyObject *s = xcpy_make_str(L, p, n);
    if (s != NULL && PyUnicode_IS_ASCII(s)) {
        PyObject *before = *place;
        *place = Py_NewRef(s);
        Py_XDECREF(before);
    }
    return s;
}

#ifdef Py_GIL_DISABLED

int
xcpy_take_strings(xcpy_loader *L)
{
    L->strings = xc_pool_take(&L->opts->state->strings);
    if (L->strings == NULL) {
        L->strings = PyMem_Calloc(XCPY_STRINGS, sizeof *L->strings);
    }
    if (L->strings == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static void
free_strings(PyObject **strings)
{
    for (size_t i = 0; i < XCPY_STRINGS; i++) {
        Py_XDECREF(strings[i]);
    }
    PyMem_Free(strings);
}

void
xcpy_give_back_strings(xcpy_loader *L)
{
    if (L->strings != NULL && !xc_pool_give(&L->opts->state->strings, L->strings)) {
        free_strings(L->strings);
    }
}

void
xcpy_free_strings(xcpy_state *state)
{
    for (PyObject **strings; (strings = xc_pool_take(&state->strings)) != NULL;) {
        free_strings(strings);
    }
}

#endif
