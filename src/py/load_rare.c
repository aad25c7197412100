/*
 * What the decoder needs less often: ints of more than 32 bits, complex, sets, channels, bytes and str
 * of 2 GiB and more; and a larger stack.
 */
#include "load_rare.h"

#include "load_stack.h"
#include "load_str.h"
#include "xc_base.h"

/* ---- the stack ---- */

int
xcpy_more_stack(xcpy_loader *L)
{
    size_t used = (size_t)(L->top - L->stack);
    size_t cap = (size_t)(L->limit - L->stack) * 2;
    xcpy_entry *stack =
        L->stack == L->first ? xc_alloc(cap * sizeof *stack) : xc_realloc(L->stack, cap * sizeof *stack);
    if (stack == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (L->stack == L->first) {
        memcpy(stack, L->first, used * sizeof *stack);
    }
    L->stack = stack;
    L->top = stack + used;
    L->limit = stack + cap;
    return 0;
}

void
xcpy_fill_gaps(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (PyList_GET_ITEM(list, i) == NULL) {
            PyList_SET_ITEM(list, i, Py_NewRef(Py_None));
        }
    }
}

/* ---- numbers ---- */

/* As Python's int(bytes), which also allows blanks and underscores, and so does execnet. */
static PyObject *
parse_int(xcpy_cursor digits, uint32_t n)
{
    char *text = xc_alloc((size_t)n + 1), *end = NULL;
    if (text == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(text, digits, n);
    text[n] = '\0';
    PyObject *value = PyLong_FromString(text, &end, 10);
    if (value != NULL && end != text + n) {
        Py_CLEAR(value);
        PyErr_SetString(PyExc_ValueError, "invalid literal for int() with base 10");
    }
    xc_free(text);
    return value;
}

xcpy_cursor
xcpy_load_longint(xcpy_loader *L, xcpy_cursor p)
{
    uint32_t n;
    p = take_text(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    PyObject *value = parse_int(p, n);
    if (value == NULL) {
        return xcpy_load_fail_from(L, "bad int");
    }
    return push(L, p + n, value, OBJECT);
}

xcpy_cursor
xcpy_load_complex(xcpy_loader *L, xcpy_cursor p)
{
    if (!has_bytes(L, p, 16)) {
        return xcpy_load_truncated(L);
    }
    return push(L, p + 16, PyComplex_FromDoubles(get_double(p), get_double(p + 8)), OBJECT);
}

/* ---- sets ---- */

xcpy_cursor
xcpy_load_set(xcpy_loader *L, xcpy_cursor p, bool frozen)
{
    uint32_t n, tag = 0;
    p = take_members(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    PyObject *set = frozen ? PyFrozenSet_New(NULL) : PySet_New(NULL);
    if (set == NULL) {
        return NULL;
    }
    xcpy_entry *from = L->top - n;
    for (xcpy_entry *e = from; e < L->top; e++) {
        if (complete_entry(e) < 0) {
            Py_DECREF(set);
            return NULL;
        }
        if (!hashable_depth(e)) {
            Py_DECREF(set);
            return xcpy_load_fail(L, "set member nested too deeply");
        }
        if (PySet_Add(set, e->u.obj) < 0) {
            Py_DECREF(set);
            return xcpy_load_fail_from(L, "bad set member");
        }
        tag = e->tag > tag ? e->tag : tag;
    }
    drop_entries(L, from);
    return push(L, p, set, depth_around(tag) | TRACKED);
}

/* ---- channels ---- */

xcpy_cursor
xcpy_load_channel(xcpy_loader *L, xcpy_cursor p)
{
    if (!has_bytes(L, p, 4)) {
        return xcpy_load_truncated(L);
    }
    if (L->opts->make_channel == NULL) {
        return xcpy_load_fail(L, "a channel, where none can be");
    }
    return push(L, p + 4, L->opts->make_channel(L->opts->arg, xc_get_u32(p)), TRACKED);
}

/* ---- what is huge ---- */

xcpy_cursor
xcpy_load_huge(xcpy_loader *L, xcpy_cursor p, bool bytes)
{
    if (L->opts->make_channel == NULL) {
        return xcpy_load_fail_opcode(L); /* only messages have it */
    }
    uint64_t n = has_bytes(L, p, 8) ? xc_get_u64(p) : UINT64_MAX;
    if (n > (size_t)(L->end - p) || !has_bytes(L, p + 8, (size_t)n)) {
        return xcpy_load_truncated(L);
    }
    p += 8;
    PyObject *obj = bytes ? PyBytes_FromStringAndSize((const char *)p, (Py_ssize_t)n) : xcpy_make_str(L, p, (size_t)n);
    return push(L, p + n, obj, OBJECT);
}
