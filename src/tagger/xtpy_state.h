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

/* The exception for what a function of xt_ said; always NULL. */
void *xtpy_raise(const xc_err *err);

/*
 * A str as bytes: lone surrogates included, of nothing but the str's own memory where it is ASCII. *kept is what the
 * span borrows from: owned by the caller. -1 with an exception, a TypeError naming `what` if it is no str.
 */
int xtpy_span(PyObject *text, const char *what, xt_span *span, PyObject **kept);
/* And back. */
PyObject *xtpy_text(xt_span span);

int xtpy_model_setup(PyObject *module, xtpy_state *state);
int xtpy_pipe_setup(PyObject *module, xtpy_state *state);
int xtpy_doc_setup(PyObject *module, xtpy_state *state);

#endif
