/* Makes a program that can be started from a command line in Python objects. */
#include "program.h"

/* The strings of `args` as bytes objects. New reference to a list, or NULL. */
static PyObject *
encode_args(PyObject *args)
{
    PyObject *seq = PySequence_Fast(args, "argv must be a sequence of str or bytes");
    if (seq == NULL) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PySequence_Fast_GET_SIZE(seq); i++) {
        PyObject *bytes = NULL;
        if (!PyUnicode_FSConverter(PySequence_Fast_GET_ITEM(seq, i), &bytes) || PyList_Append(list, bytes) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(bytes);
    }
    Py_DECREF(seq);
    return list;
}

xc_program *
xcpy_make_program(PyObject *args)
{
    PyObject *list = encode_args(args);
    if (list == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyList_GET_SIZE(list);
    xc_program *program = NULL;
    char **argv = PyMem_New(char *, n + 1);
    if (argv == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (n == 0) {
        PyErr_SetString(PyExc_ValueError, "argv is empty");
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        argv[i] = PyBytes_AS_STRING(PyList_GET_ITEM(list, i));
    }
    argv[n] = NULL;
    program = xc_program_new(argv);
    if (program == NULL) {
        PyErr_NoMemory();
    }
done:
    PyMem_Free(argv);
    Py_DECREF(list);
    return program;
}
