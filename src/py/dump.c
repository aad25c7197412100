/*
 * Python object -> bytes of execnet's serializer.
 *
 * There is no recursion: containers that are being written are on a stack of frames. So depth needs no C stack, and the
 * frames tell the path to an object that cannot be sent ("[3]['key']").
 *
 * Invariants. Code that writes calls room() first, which leaves SLACK bytes more than it was asked for. What is written
 * between two items (a SETITEM, the index of the next) goes into that slack without another call. A frame owns its
 * container. Writing a large int, a set or a channel can run Python code, which may change a container in any frame,
 * and without the GIL so can other threads, whenever its critical section is given up: a changed size ends the dump, so
 * a stale item is never read. Inside the critical section, between the look at the size and the last use of a borrowed
 * item, nothing is called that could give it up.
 */
#include "dump_buf.h"
#include "xc_opcodes.h"

/* ---- memory ---- */

int
xcpy_dump_grow(xcpy_dumper *d, size_t n)
{
    leave_buf(d);
    if (n > PY_SSIZE_T_MAX - SLACK || xc_buf_room(&d->out->buf, n + SLACK) != XC_OK) {
        PyErr_NoMemory();
        return -1;
    }
    use_buf(d);
    return 0;
}

/* ---- frames ---- */

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

/* Compares the size of the topmost frame's container with that when its dump began. */
static inline int
check_size(xcpy_dumper *d, Py_ssize_t size, Py_ssize_t before)
{
    if (size == before) {
        return 0;
    }
    d->depth--; /* so that the path names the container, not an item of it */
    int rc = xcpy_dump_fail_text(d, "container changed its size while it was dumped");
    d->depth++;
    return rc;
}

/* ---- plain kinds ---- */

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

/* Writes an object of a plain kind, with one call of room() and without running Python code. */
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

/* ---- tuple, list, dict, set ---- */

static int
end_tuple(xcpy_dumper *d, Py_ssize_t size)
{
    if (room(d, 5) < 0) {
        return FAILED;
    }
    put_op_i4(d, XC_OP_TUPLE, (uint32_t)size);
    return WROTE;
}

/* Most tuples have plain items only, and need no frame. */
static int
dump_tuple(xcpy_dumper *d, PyObject *obj)
{
    Py_ssize_t size = PyTuple_GET_SIZE(obj);
    if (size > MAX_I4) {
        return xcpy_dump_fail_text(d, "tuple is too long");
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
        return xcpy_dump_fail_text(d, "list is too long");
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
        return xcpy_dump_fail_text(d, "set is too long");
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

/* Writes what put_plain did not. The caller keeps `obj` alive. Never inlined, so that put() can be, in each loop
 * below. */
__attribute__((noinline)) static int
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
    if (type == &PySet_Type || type == &PyFrozenSet_Type) {
        return dump_set(d, obj);
    }
    return xcpy_dump_value(d, obj);
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

/* Each of these goes on with the topmost frame, whose container is locked, until it has pushed an item of it (PUSHED)
 * or all of it is written (WROTE). */

static int
go_on_list(xcpy_dumper *d, xcpy_frame *f)
{
    Py_ssize_t i = f->next;
    /* The item that was pushed is complete now. Many frames may end at one place, so each calls room(). */
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
    return WROTE;
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
    return end_tuple(d, f->size);
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
            return WROTE;
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
        f->next++;
        int rc = put(d, f->key);
        if (rc != WROTE) {
            return rc;
        }
    }
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return FAILED;
    }
    PyErr_Clear(); /* the iterator has seen another size */
    if (check_size(d, f->next, f->size) < 0) {
        return FAILED;
    }
    return end_set(d, f->obj, f->size);
}

static int
go_on(xcpy_dumper *d)
{
    xcpy_frame *f = &d->frames[d->depth - 1];
    PyObject *container = f->obj; /* its frame may move */
    int rc = FAILED;
    switch (f->place) {
    case IN_LIST:
        XCPY_LOCK(container);
        rc = go_on_list(d, f);
        XCPY_UNLOCK();
        break;
    case IN_TUPLE:
        rc = go_on_tuple(d, f);
        break;
    case IN_DICT_KEY:
    case IN_DICT:
        XCPY_LOCK(container);
        rc = go_on_dict(d, f);
        XCPY_UNLOCK();
        break;
    case IN_SET: /* its iterator locks it for each member */
        rc = go_on_set(d, f);
        break;
    }
    return rc == WROTE ? pop(d) : rc;
}

/* ---- the whole ---- */

int
xcpy_dump(xcpy_state *state, PyObject *obj, int how, xcpy_dumped *out)
{
    xcpy_dumper d;
    d.out = out;
    d.state = state;
    d.frames = d.first;
    d.depth = 0;
    d.cap = FIRST_FRAMES;
    d.how = how;
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
