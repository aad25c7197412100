/*
 * The tagger module's state: every Python object that its C code keeps for itself.
 */
#ifndef XTPY_STATE_H
#define XTPY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "xc_base.h"
#include "xt_text.h"

/* Between these, nobody else changes the object: see src/py/compat.h. A block, not to be left by return or goto. */
#ifdef Py_GIL_DISABLED
#define XTPY_LOCK(object) Py_BEGIN_CRITICAL_SECTION(object)
#define XTPY_UNLOCK()     Py_END_CRITICAL_SECTION()
#else
#define XTPY_LOCK(object)                                                                                              \
    {                                                                                                                  \
        (void)(object)
#define XTPY_UNLOCK() }
#endif

/* For PySequence_Fast_ITEMS and the like: a list or tuple of what is in `sequence`, new reference; NULL with TypeError
 * if it is none. Without the GIL it is a copy of a list, which other threads may change. */
static inline PyObject *
xtpy_items(PyObject *sequence, const char *what_is_wrong)
{
#ifdef Py_GIL_DISABLED
    if (PyList_Check(sequence)) {
        return PyList_AsTuple(sequence);
    }
#endif
    return PySequence_Fast(sequence, what_is_wrong);
}

/* The same of a dict, for PyDict_Next. */
static inline PyObject *
xtpy_pairs(PyObject *dict)
{
#ifdef Py_GIL_DISABLED
    return PyDict_Copy(dict);
#else
    return Py_NewRef(dict);
#endif
}

#define XTPY_STATE_FIELDS(X)                                                                                           \
    X(ModelType)                                                                                                       \
    X(PipeType)                                                                                                        \
    X(DocType)                                                                                                         \
    X(lower) /* the name of str's method */

typedef struct xtpy_state {
#define XTPY_STATE_DECLARE(name) PyObject *name;
    XTPY_STATE_FIELDS(XTPY_STATE_DECLARE)
#undef XTPY_STATE_DECLARE
} xtpy_state;

/* Raises the exception for an error of an xt_ function. Returns NULL. */
void *xtpy_raise(const xc_err *err);

/* A str as bytes, lone surrogates included; for ASCII the str's own memory. *kept is what the span borrows from, owned
 * by the caller. -1 with an exception; if it is no str, a TypeError that names `what`. */
int xtpy_span(PyObject *text, const char *what, xt_span *span, PyObject **kept);
/* The other way round. */
PyObject *xtpy_text(xt_span span);

int xtpy_model_setup(PyObject *module, xtpy_state *state);
int xtpy_pipe_setup(PyObject *module, xtpy_state *state);
int xtpy_doc_setup(PyObject *module, xtpy_state *state);

#endif
