/*
 * The text about an object that cannot be dumped: its type, its place in the structure, " at [3]['key'][0]", and what
 * to send instead.
 *
 * Invariant: the text stays short, whatever keys a program uses. A long key is cut before repr() is called, and of a
 * long path only the two ends are shown.
 */
#include "dumper.h"
#include "error.h"

#include <string.h>

enum {
    PATH_ENDS = 12, /* steps that are shown at each end of a long path */
    KEY_SHOWN = 40, /* characters or bytes of a key that are shown */
};

/* A key as it is shown in a path. */
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
        PyErr_Clear(); /* an int with more digits than the limit */
    }
    return PyUnicode_FromFormat("[<%s>]", Py_TYPE(key)->tp_name);
}

static PyObject *
show_step(const xcpy_frame *f)
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

/* The place where we are: "" at the root, else " at [3]['key']". */
static PyObject *
show_path(xcpy_dumper *d)
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

int
xcpy_dump_fail(xcpy_dumper *d, PyObject *text, PyObject *cause)
{
    if (text != NULL) {
        PyUnicode_AppendAndDel(&text, show_path(d));
    }
    xcpy_raise_from(d->state->DumpError, text, cause);
    return FAILED;
}

/* If the type of an object has this attribute, that makes something of it that can be sent. The first match counts. */
static const char *const ways[][2] = {
    {"_member_map_", ".value"},
    {"casefold", "str()"},
    {"decode", "bytes()"},
    {"toreadonly", "bytes()"},
    {"tolist", ".tolist()"},
    {"from_bytes", "int()"},
    {"isoformat", ".isoformat()"},
    {"total_seconds", ".total_seconds()"},
    {"to_dict", ".to_dict()"},
    {"setdefault", "dict()"},
    {"__dataclass_fields__", "dataclasses.asdict()"},
    {"__fspath__", "str()"},
    {"as_integer_ratio", "str()"},
    {"with_traceback", "str()"},
    {"__iter__", "list()"},
};

/* Looks only into the type and its bases, so that no Python code runs. */
static PyObject *
show_way(PyTypeObject *type)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(ways); i++) {
        PyObject *name = PyUnicode_InternFromString(ways[i][0]);
        if (name == NULL) {
            return NULL;
        }
        bool has = _PyType_Lookup(type, name) != NULL;
        Py_DECREF(name);
        if (has) {
            return PyUnicode_FromFormat("; send %s or pickle.dumps() of it", ways[i][1]);
        }
    }
    return PyUnicode_FromString("; send pickle.dumps() of it");
}

/* execnet goes by the name of a type: another type with one of these names would have been written as the known
 * type. */
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

int
xcpy_dump_fail_type(xcpy_dumper *d, PyObject *obj)
{
    PyObject *text = PyUnicode_FromFormat("can't serialize %R", (PyObject *)Py_TYPE(obj));
    if (text != NULL && has_known_name(Py_TYPE(obj))) {
        PyUnicode_AppendAndDel(&text, PyUnicode_FromString(" (it shares no more than its name with the known type)"));
    }
    if (text != NULL) {
        PyUnicode_AppendAndDel(&text, show_path(d));
    }
    if (text != NULL) {
        PyUnicode_AppendAndDel(&text, show_way(Py_TYPE(obj)));
    }
    xcpy_raise_from(d->state->DumpError, text, NULL);
    return FAILED;
}

int
xcpy_dump_fail_text(xcpy_dumper *d, const char *text)
{
    return xcpy_dump_fail(d, PyUnicode_FromString(text), NULL);
}
