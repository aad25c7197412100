/*
 * Bytes of execnet's serializer -> Python object.
 *
 * A stack machine without recursion. An entry of its stack is not always an object: a small int stays a number until an
 * object is needed (most are list indices, for which that is never), and a list is hidden from the garbage collector,
 * so from all Python code, until it is complete. Sequences of plain items go into their list or dict without the stack
 * (fill_list, fill_dict), which takes 0.75 of the time for numbers. Any other item is left to the stack machine, which
 * also makes the error texts.
 *
 * Invariants. No operand is read, and nothing is allocated for it, before it is known to lie within the input. All
 * lists together have no more slots than the input can fill, so memory stays within a small multiple of the input (the
 * worst are an empty dict or set, with some 65 or 45 bytes of memory for each byte of input). Python code never sees a
 * list with an empty slot. An entry knows how deeply its object is nested, and a key whose hashing would recurse too
 * deeply is refused.
 */
#include "load_rare.h"
#include "load_stack.h"
#include "load_str.h"
#include "pickled.h"
#include "xc_base.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

#include <string.h>

enum {
    LIST_ITEM_MIN = 7, /* bytes that fill one slot of a list: INT, i4, a value, SETITEM */
};

/* ---- None, True, False, numbers ---- */

static inline xcpy_cursor
load_singleton(xcpy_loader *L, xcpy_cursor p, PyObject *obj)
{
    return push(L, p, Py_NewRef(obj), OBJECT);
}

static inline xcpy_cursor
load_int(xcpy_loader *L, xcpy_cursor p)
{
    if (!has_bytes(L, p, 4)) {
        return xcpy_load_truncated(L);
    }
    return push_number(L, p + 4, (int32_t)xc_get_u32(p));
}

static inline xcpy_cursor
load_float(xcpy_loader *L, xcpy_cursor p)
{
    if (!has_bytes(L, p, 8)) {
        return xcpy_load_truncated(L);
    }
    return push(L, p + 8, PyFloat_FromDouble(get_double(p)), OBJECT);
}

/* ---- bytes and str ---- */

static xcpy_cursor
load_bytes(xcpy_loader *L, xcpy_cursor p)
{
    uint32_t n;
    p = take_text(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    return push(L, p + n, PyBytes_FromStringAndSize((const char *)p, n), OBJECT);
}

static xcpy_cursor
load_latin1(xcpy_loader *L, xcpy_cursor p)
{
    uint32_t n;
    p = take_text(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    return push(L, p + n, PyUnicode_DecodeLatin1((const char *)p, n, NULL), OBJECT);
}

static inline xcpy_cursor
load_str(xcpy_loader *L, xcpy_cursor p)
{
    uint32_t n;
    p = take_text(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    return push(L, p + n, xcpy_load_str(L, p, n), OBJECT);
}

static xcpy_cursor
load_py3str(xcpy_loader *L, xcpy_cursor p)
{
    return L->opts->strconfig.py3str_as_py2str ? load_bytes(L, p) : load_str(L, p);
}

static xcpy_cursor
load_py2str(xcpy_loader *L, xcpy_cursor p)
{
    return L->opts->strconfig.py2str_as_py3str ? load_latin1(L, p) : load_bytes(L, p);
}

/* ---- tuples ---- */

static inline xcpy_cursor
load_tuple(xcpy_loader *L, xcpy_cursor p)
{
    uint32_t n, tag = 0, tracked = 0;
    p = take_members(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    PyObject *tuple = PyTuple_New(n);
    if (tuple == NULL) {
        return NULL;
    }
    xcpy_entry *from = L->top - n;
    for (uint32_t i = 0; i < n; i++) {
        if (complete_entry(&from[i]) < 0) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, i, from[i].u.obj);
        from[i].u.obj = NULL; /* so that a failure below does not drop it twice */
        tracked |= from[i].tag;
        tag = from[i].tag > tag ? from[i].tag : tag;
    }
    L->top = from;
    tag = depth_around(tag) | (tracked & TRACKED);
    if (too_deep(tag)) {
        Py_DECREF(tuple);
        return xcpy_load_fail(L, "nested too deeply");
    }
    if (!(tag & TRACKED) && n > 0) {
        PyObject_GC_UnTrack(tuple); /* the collector would do the same at its first visit */
    }
    return push(L, p, tuple, tag);
}

/* ---- lists and dicts ---- */

static inline bool
is_str(const xcpy_loader *L, xcpy_cursor p)
{
    return *p == XC_OP_STR && !L->opts->strconfig.py3str_as_py2str;
}

/* A str at `p` with at least `more` bytes behind it: returns the position behind the str, *n is its length. Returns `p`
 * for anything else, or if it is incomplete. */
static inline xcpy_cursor
pass_str(const xcpy_loader *L, xcpy_cursor p, size_t more, uint32_t *n)
{
    if (!has_bytes(L, p, 5 + more) || !is_str(L, p)) {
        return p;
    }
    *n = xc_get_u32(p + 1);
    return *n <= INT32_MAX && has_bytes(L, p, 5 + *n + more) ? p + 5 + *n : p;
}

/* A value without parts that SETITEM follows: returns the position behind SETITEM, and *value is owned. Returns `p` for
 * anything else, or if it is incomplete; NULL with an exception. p < L->end. */
static inline xcpy_cursor
take_plain_value(xcpy_loader *L, xcpy_cursor p, PyObject **value)
{
    size_t size = 1;
    uint32_t n = 0;
    if (*p == XC_OP_INT) {
        size = 5;
    }
    else if (*p == XC_OP_FLOAT) {
        size = 9;
    }
    else if (is_str(L, p)) {
        size = (size_t)(pass_str(L, p, 1, &n) - p);
        if (size == 0) {
            return p;
        }
    }
    else if (*p != XC_OP_NONE && *p != XC_OP_TRUE && *p != XC_OP_FALSE) {
        return p;
    }
    if (!has_bytes(L, p, size + 1) || p[size] != XC_OP_SETITEM) {
        return p;
    }
    L->op = p;
    switch ((xc_op)*p) {
    case XC_OP_INT:
        *value = PyLong_FromLong((int32_t)xc_get_u32(p + 1));
        break;
    case XC_OP_FLOAT:
        *value = PyFloat_FromDouble(get_double(p + 1));
        break;
    case XC_OP_STR:
        *value = xcpy_load_str(L, p + 5, n);
        break;
    case XC_OP_NONE:
        *value = Py_NewRef(Py_None);
        break;
    default:
        *value = Py_NewRef(*p == XC_OP_TRUE ? Py_True : Py_False);
    }
    return *value != NULL ? p + size + 1 : NULL;
}

/* Like take_plain_value, for a tuple of two str, such as a word and its tag. */
static inline xcpy_cursor
take_pair(xcpy_loader *L, xcpy_cursor p, PyObject **value)
{
    static const unsigned char tail[] = {XC_OP_TUPLE, 0, 0, 0, 2, XC_OP_SETITEM};
    uint32_t n[2];
    xcpy_cursor second = pass_str(L, p, 5, &n[0]);
    xcpy_cursor behind = second == p ? p : pass_str(L, second, sizeof tail, &n[1]);
    if (second == p || behind == second || memcmp(behind, tail, sizeof tail) != 0) {
        return p;
    }
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        return NULL;
    }
    xcpy_cursor from[] = {p, second};
    for (int i = 0; i < 2; i++) {
        L->op = from[i];
        PyObject *str = xcpy_load_str(L, from[i] + 5, n[i]);
        if (str == NULL) {
            Py_DECREF(pair);
            return NULL;
        }
        PyTuple_SET_ITEM(pair, i, str);
    }
    PyObject_GC_UnTrack(pair); /* as load_tuple() does */
    *value = pair;
    return behind + sizeof tail;
}

/* The tag of a list that has a pair in it, and nothing deeper. */
enum { AROUND_PAIR = LIST | TRACKED | 2 * DEPTH_1 };

/* Puts the items at `p` into the list at the top of the stack, as long as they are plain and their slots are empty. */
static inline xcpy_cursor
fill_list(xcpy_loader *L, xcpy_cursor p)
{
    xcpy_entry *target = L->top - 1;
    PyObject *list = target->u.obj;
    while (has_bytes(L, p, 6) && *p == XC_OP_INT) {
        PyObject *value;
        uint32_t index = xc_get_u32(p + 1);
        if (index >= (size_t)PyList_GET_SIZE(list) || PyList_GET_ITEM(list, index) != NULL) {
            break;
        }
        xcpy_cursor behind = take_plain_value(L, p + 5, &value);
        if (behind == p + 5) {
            behind = take_pair(L, p + 5, &value);
            target->tag = target->tag < AROUND_PAIR && behind != p + 5 ? AROUND_PAIR : target->tag;
        }
        if (behind == NULL) {
            return NULL;
        }
        if (behind == p + 5) {
            return push_number(L, behind, (int32_t)index);
        }
        PyList_SET_ITEM(list, index, value);
        target->n_set++;
        p = behind;
    }
    return p;
}

/* Puts the items at `p` into the dict at the top of the stack, as long as keys are str and values plain. */
static inline xcpy_cursor
fill_dict(xcpy_loader *L, xcpy_cursor p)
{
    PyObject *dict = L->top[-1].u.obj;
    uint32_t n;
    for (xcpy_cursor behind = pass_str(L, p, 1, &n); behind != p; behind = pass_str(L, p, 1, &n)) {
        PyObject *value;
        L->op = p;
        PyObject *key = xcpy_load_str(L, p + 5, n);
        if (key == NULL) {
            return NULL;
        }
        p = behind;
        behind = take_plain_value(L, p, &value);
        if (behind == p) {
            return push(L, p, key, OBJECT);
        }
        int rc = behind == NULL ? -1 : PyDict_SetItem(dict, key, value);
        Py_DECREF(key);
        if (behind != NULL) {
            Py_DECREF(value);
        }
        if (rc < 0) {
            return NULL;
        }
        p = behind;
    }
    return p;
}

static xcpy_cursor
load_newlist(xcpy_loader *L, xcpy_cursor p)
{
    uint32_t n;
    p = take_length(L, p, &n);
    if (p == NULL) {
        return NULL;
    }
    L->claimed += n;
    if (n > (size_t)(L->end - p) / LIST_ITEM_MIN || L->claimed > (size_t)(L->end - L->data) / LIST_ITEM_MIN) {
        return xcpy_load_fail_end(L, "too early to fill the list that begins");
    }
    PyObject *list = PyList_New(n);
    if (list == NULL) {
        return NULL;
    }
    PyObject_GC_UnTrack(list); /* until complete_entry() */
    p = push(L, p, list, LIST | DEPTH_1 | TRACKED);
    return p != NULL ? fill_list(L, p) : NULL;
}

static xcpy_cursor
load_newdict(xcpy_loader *L, xcpy_cursor p)
{
    p = push(L, p, PyDict_New(), DEPTH_1 | TRACKED);
    return p != NULL ? fill_dict(L, p) : NULL;
}

/* 0: *index is the slot of the key in a list of `size`. As in execnet, all that Python allows: also -1 and True. */
static int
take_index(xcpy_loader *L, const xcpy_entry *key, Py_ssize_t size, Py_ssize_t *index)
{
    if ((key->tag & KIND) == NUMBER) {
        *index = key->u.number;
    }
    else if ((key->tag & KIND) == OBJECT && PyLong_Check(key->u.obj)) {
        *index = PyLong_AsSsize_t(key->u.obj);
        if (*index == -1 && PyErr_Occurred()) {
            (void)xcpy_load_fail_from(L, "bad list index");
            return -1;
        }
        Py_DECREF(key->u.obj);
        L->top[-2] = (xcpy_entry){.u.number = 0, .tag = NUMBER}; /* so that it is not dropped twice */
    }
    else {
        (void)xcpy_load_fail(L, "list index is not an int");
        return -1;
    }
    if (*index < 0) {
        *index += size;
    }
    if (*index < 0 || *index >= size) {
        (void)xcpy_load_fail(L, "list index out of range");
        return -1;
    }
    return 0;
}

static inline xcpy_cursor
set_list_item(xcpy_loader *L, xcpy_cursor p, xcpy_entry *target)
{
    PyObject *list = target->u.obj;
    xcpy_entry *value = target + 2;
    Py_ssize_t index;
    if (take_index(L, target + 1, PyList_GET_SIZE(list), &index) < 0 || complete_entry(value) < 0) {
        return NULL;
    }
    uint32_t tag = depth_around(value->tag);
    if (tag > target->tag) {
        target->tag = (tag & ~(uint32_t)(DEPTH_1 - 1)) | LIST | TRACKED;
        if (too_deep(tag)) {
            return xcpy_load_fail(L, "nested too deeply");
        }
    }
    PyObject *before = PyList_GET_ITEM(list, index);
    PyList_SET_ITEM(list, index, value->u.obj);
    L->top = target + 1;
    if (before == NULL) {
        target->n_set++;
    }
    else {
        Py_DECREF(before);
    }
    return fill_list(L, p);
}

static xcpy_cursor
set_dict_item(xcpy_loader *L, xcpy_cursor p, xcpy_entry *target)
{
    xcpy_entry *key = target + 1, *value = target + 2;
    if (complete_entry(key) < 0 || complete_entry(value) < 0) {
        return NULL;
    }
    if (!hashable_depth(key)) {
        return xcpy_load_fail(L, "dict key nested too deeply");
    }
    if (PyDict_SetItem(target->u.obj, key->u.obj, value->u.obj) < 0) {
        return xcpy_load_fail_from(L, "bad dict key");
    }
    uint32_t deeper = key->tag > value->tag ? key->tag : value->tag;
    uint32_t tag = depth_around(deeper) | TRACKED;
    if (tag > target->tag) {
        target->tag = tag;
        if (too_deep(tag)) {
            return xcpy_load_fail(L, "nested too deeply");
        }
    }
    drop_entries(L, target + 1);
    return fill_dict(L, p);
}

static inline xcpy_cursor
load_setitem(xcpy_loader *L, xcpy_cursor p)
{
    if (L->top - L->stack < 3) {
        return xcpy_load_fail(L, "not enough items for setitem");
    }
    xcpy_entry *target = L->top - 3;
    if ((target->tag & KIND) == LIST) {
        return set_list_item(L, p, target);
    }
    if ((target->tag & KIND) == OBJECT && PyDict_CheckExact(target->u.obj)) {
        return set_dict_item(L, p, target);
    }
    return xcpy_load_fail(L, "setitem on what is neither a list nor a dict");
}

/* ---- the whole ---- */

static inline xcpy_cursor
load_one(xcpy_loader *L, xcpy_cursor p)
{
    switch ((xc_op)*L->op) {
    case XC_OP_TUPLE:
        return load_tuple(L, p);
    case XC_OP_BYTES:
        return load_bytes(L, p);
    case XC_OP_CHANNEL:
        return xcpy_load_channel(L, p);
    case XC_OP_FALSE:
        return load_singleton(L, p, Py_False);
    case XC_OP_FLOAT:
        return load_float(L, p);
    case XC_OP_FROZENSET:
        return xcpy_load_set(L, p, true);
    case XC_OP_INT:
    case XC_OP_LONG:
        return load_int(L, p);
    case XC_OP_LONGINT:
    case XC_OP_LONGLONG:
        return xcpy_load_longint(L, p);
    case XC_OP_NEWDICT:
        return load_newdict(L, p);
    case XC_OP_NEWLIST:
        return load_newlist(L, p);
    case XC_OP_NONE:
        return load_singleton(L, p, Py_None);
    case XC_OP_PY2STR:
        return load_py2str(L, p);
    case XC_OP_STR:
        return load_py3str(L, p);
    case XC_OP_SET:
        return xcpy_load_set(L, p, false);
    case XC_OP_SETITEM:
        return load_setitem(L, p);
    case XC_OP_TRUE:
        return load_singleton(L, p, Py_True);
    case XC_OP_UNICODE:
        return load_str(L, p);
    case XC_OP_COMPLEX:
        return xcpy_load_complex(L, p);
    case XC_OP_HUGE_BYTES:
        return xcpy_load_huge(L, p, true);
    case XC_OP_HUGE_STR:
        return xcpy_load_huge(L, p, L->opts->strconfig.py3str_as_py2str);
    case XC_OP_PICKLE:
        return xcpy_load_pickle(L, p);
    case XC_OP_STOP:
        break; /* handled by run() */
    }
    return xcpy_load_fail_opcode(L);
}

static PyObject *
load_stop(xcpy_loader *L)
{
    if (L->top - L->stack != 1) {
        (void)xcpy_load_fail(L, "STOP without exactly one object");
        return NULL;
    }
    if (complete_entry(L->stack) < 0) {
        return NULL;
    }
    L->top = L->stack;
    return L->stack->u.obj;
}

static PyObject *
run(xcpy_loader *L)
{
    xcpy_cursor p = L->data;
    while (p < L->end) {
        L->op = p;
        if (*p == XC_OP_STOP) {
            return load_stop(L);
        }
        p = load_one(L, p + 1);
        if (p == NULL) {
            return NULL;
        }
    }
    L->op = L->end;
    (void)xcpy_load_fail_end(L, "without STOP");
    return NULL;
}

PyObject *
xcpy_load(const xcpy_load_opts *opts, const unsigned char *data, size_t size, size_t base)
{
    xcpy_loader L;
    L.opts = opts;
    L.data = data;
    L.end = data + size;
    L.base = base;
    L.claimed = 0;
    L.stack = L.top = L.first;
    L.limit = L.first + FIRST_ENTRIES;
    L.missed = 0;
    L.passed_by = 0;
#ifdef Py_GIL_DISABLED
    L.strings = NULL;
#else
    L.strings = opts->state->strings;
#endif
    PyObject *result = run(&L);
#ifdef Py_GIL_DISABLED
    xcpy_give_back_strings(&L);
#endif
    drop_entries(&L, L.stack);
    if (L.stack != L.first) {
        xc_free(L.stack);
    }
    return result;
}
