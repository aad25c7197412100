#include "trace.h"

#include "error.h"
#include "xc_trace.h"

static PyObject *
trace_to(PyObject *module, PyObject *fd)
{
    xc_err err;
    long number = PyLong_AsLong(fd);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (xc_trace_to(number > INT_MAX ? INT_MAX : number < 0 ? -1 : (int)number, &err) != XC_OK) {
        return xcpy_raise(PyModule_GetState(module), &err);
    }
    Py_RETURN_NONE;
}

static PyObject *
trace(PyObject *module, PyObject *text)
{
    (void)module;
    if (!PyUnicode_Check(text)) {
        return PyErr_Format(PyExc_TypeError, "text must be a str, not %.200s", Py_TYPE(text)->tp_name);
    }
    if (xc_tracing()) {
        PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "replace");
        if (bytes == NULL) {
            return NULL;
        }
        xc_trace("%s", PyBytes_AS_STRING(bytes));
        Py_DECREF(bytes);
    }
    Py_RETURN_NONE;
}

PyMethodDef xcpy_trace_methods[] = {
    {"_trace_to", trace_to, METH_O,
     "_trace_to($module, fd, /)\n--\n\nWrite a line to `fd` for each frame, process and end of a connection. -1: no "
     "more."},
    {"_trace", trace, METH_O, "_trace($module, text, /)\n--\n\nWrite this line, too, if lines are wanted."},
    {NULL, NULL, 0, NULL},
};
