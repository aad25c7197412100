/*
 * The built-in compile() for a far end's tasks. compile() first checks whether it was given a syntax tree, and for that
 * makes the hundred types of the module ast: 2 ms for the first task of a process, whose interpreter starts in 15 ms.
 *
 * Invariant: everything except a plain text goes to the built-in function, so all errors are the interpreter's own.
 */
#include "compile.h"

#include <string.h>

static PyObject *
compile_builtin(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *builtins = PyImport_ImportModule("builtins");
    if (builtins == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    PyObject *function = PyObject_GetAttrString(builtins, "compile");
    if (function != NULL) {
        result = PyObject_Vectorcall(function, args, (size_t)nargs, NULL);
        Py_DECREF(function);
    }
    Py_DECREF(builtins);
    return result;
}

/* Whether the arguments are (source, file_name, "exec") with two str without a zero character. *text: the source,
 * borrowed from it. 1, 0; -1 with an exception. */
static int
is_plain(PyObject *const *args, Py_ssize_t nargs, const char **text)
{
    if (nargs != 3 || !PyUnicode_CheckExact(args[0]) || !PyUnicode_CheckExact(args[1]) ||
        !PyUnicode_CheckExact(args[2]) || PyUnicode_CompareWithASCIIString(args[2], "exec") != 0) {
        return 0;
    }
    Py_ssize_t nul = PyUnicode_FindChar(args[1], 0, 0, PyUnicode_GET_LENGTH(args[1]), 1);
    if (nul != -1) {
        return nul == -2 ? -1 : 0;
    }
    Py_ssize_t size;
    *text = PyUnicode_AsUTF8AndSize(args[0], &size);
    if (*text == NULL) {
        return -1;
    }
    return strlen(*text) == (size_t)size;
}

static PyObject *
compile_text(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    const char *text;
    int plain = is_plain(args, nargs, &text);
    if (plain <= 0) {
        return plain < 0 ? NULL : compile_builtin(args, nargs);
    }
    PyCompilerFlags flags = {.cf_flags = PyCF_SOURCE_IS_UTF8 | PyCF_IGNORE_COOKIE,
                             .cf_feature_version = PY_MINOR_VERSION};
    return Py_CompileStringObject(text, args[1], Py_file_input, &flags, -1);
}

PyDoc_STRVAR(compile_doc, "_compile($module, source, file_name, mode, /)\n--\n\n"
                          "The built-in compile() of these; faster at its first call for a str in mode \"exec\".");

PyMethodDef xcpy_compile_methods[] = {
    {"_compile", (PyCFunction)(void (*)(void))compile_text, METH_FASTCALL, compile_doc},
    {NULL, NULL, 0, NULL},
};
