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

/* The bytes objects of a list as C strings, borrowed; NULL-terminated. Free it with PyMem_Free. NULL with MemoryError.
 */
static char **
strings_of(PyObject *list)
{
    Py_ssize_t n = PyList_GET_SIZE(list);
    char **strings = PyMem_New(char *, n + 1);
    if (strings == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        strings[i] = PyBytes_AS_STRING(PyList_GET_ITEM(list, i));
    }
    strings[n] = NULL;
    return strings;
}

#ifdef Py_GIL_DISABLED

/* os.environ as a list of b"NAME=value"; NULL with an exception. Nothing keeps other threads from changing the C
 * library's own list while that is read. */
static PyObject *
environment(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *environ = os == NULL ? NULL : PyObject_GetAttrString(os, "environb");
    PyObject *data = environ == NULL ? NULL : PyObject_GetAttrString(environ, "_data");
    PyObject *copy = data == NULL ? NULL : PyDict_Copy(data);
    PyObject *list = copy == NULL ? NULL : PyList_New(0), *name, *value;
    for (Py_ssize_t at = 0; list != NULL && PyDict_Next(copy, &at, &name, &value);) {
        PyObject *text = PyBytes_FromFormat("%s=%s", PyBytes_AsString(name), PyBytes_AsString(value));
        if (text == NULL || PyList_Append(list, text) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(text);
    }
    Py_XDECREF(os);
    Py_XDECREF(environ);
    Py_XDECREF(data);
    Py_XDECREF(copy);
    return list;
}

static xc_program *
new_program(char *const argv[])
{
    PyObject *list = environment();
    char **env = list == NULL ? NULL : strings_of(list);
    xc_program *program = env == NULL ? NULL : xc_program_in(argv, env);
    PyMem_Free(env);
    Py_XDECREF(list);
    return program;
}

#else

static xc_program *
new_program(char *const argv[])
{
    return xc_program_new(argv);
}

#endif

xc_program *
xcpy_make_program(PyObject *args)
{
    PyObject *list = encode_args(args);
    if (list == NULL) {
        return NULL;
    }
    xc_program *program = NULL;
    char **argv = strings_of(list);
    if (argv != NULL && argv[0] == NULL) {
        PyErr_SetString(PyExc_ValueError, "argv is empty");
    }
    else if (argv != NULL) {
        program = new_program(argv);
        if (program == NULL && !PyErr_Occurred()) {
            PyErr_NoMemory();
        }
    }
    PyMem_Free(argv);
    Py_DECREF(list);
    return program;
}
