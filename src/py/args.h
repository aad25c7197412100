/*
 * Arguments of a METH_FASTCALL | METH_KEYWORDS function, for the few for which PyArg_ParseTupleAndKeywords takes longer
 * than the work itself (dumps or loads of a small object takes about 100 ns).
 */
#ifndef XCPY_ARGS_H
#define XCPY_ARGS_H

#include "compat.h"

/* Puts the arguments into out[0..n) by names[0..n). The first `required` must be given; others that are not given stay
 * as the caller has set them. References are borrowed. 0, or -1 with TypeError. */
static inline int
xcpy_args(const char *function, const char *const *names, Py_ssize_t n, Py_ssize_t required, PyObject *const *args,
          Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    if (nargs > n) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", function, n, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        out[i] = args[i];
    }
    Py_ssize_t n_kw = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    Py_ssize_t given = nargs;
    uint64_t by_name = 0;
    for (Py_ssize_t k = 0; k < n_kw; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = 0;
        while (i < n && PyUnicode_CompareWithASCIIString(name, names[i]) != 0) {
            i++;
        }
        if (i == n) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function, name);
            return -1;
        }
        if (i < nargs) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", function, name);
            return -1;
        }
        out[i] = args[nargs + k];
        by_name |= UINT64_C(1) << i;
    }
    for (Py_ssize_t i = given; i < required; i++) {
        if (!(by_name >> i & 1)) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", function, names[i]);
            return -1;
        }
    }
    return 0;
}

#endif
