/*
 * The exception classes, and how an error of the core becomes one of them.
 *
 * The classes are made with PyErr_NewExceptionWithDoc, so they are like those of a class statement: they can be
 * subclassed, pickled and given attributes.
 */
#include "error.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "methods.h"

/* The text of a RemoteError for a KeyboardInterrupt in the other process; warn() does not print it. */
#define INTERRUPT_TEXT "keyboard-interrupted"

PyDoc_STRVAR(data_format_error_doc, "An object cannot be serialized, or what arrived is not well formed.");
PyDoc_STRVAR(dump_error_doc, "An object cannot be serialized. The text names its type and where it sits.");
PyDoc_STRVAR(load_error_doc, "What was to be loaded is not well formed. The text names the offset.");
PyDoc_STRVAR(truncated_error_doc, "What was to be loaded ends too early.");
PyDoc_STRVAR(remote_error_doc,
             "RemoteError(formatted)\n--\n\n"
             "Code at the other side failed. str() of this exception, and its attribute `formatted`, is\n"
             "the traceback from there.\n\n"
             "remote_type, remote_message: the name of the exception's class there (with its module, if\n"
             "the traceback shows it) and str() of the exception; None if the other side has not said.");
PyDoc_STRVAR(timeout_error_doc, "The time given for an operation is over.");
PyDoc_STRVAR(gateway_died_doc, "The far end is gone. The text says how it ended.");

PyDoc_STRVAR(remote_error_warn_doc, "warn($self, /)\n--\n\n"
                                    "Writes to sys.stderr that nobody handled this error.");

static PyObject *
RemoteError_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"formatted", NULL};
    PyObject *formatted;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:RemoteError", names, &formatted)) {
        return NULL;
    }
    /* `args` is set again for a call by keyword, because pickle makes a copy from it. */
    PyObject *own = PyTuple_Pack(1, formatted);
    if (own == NULL) {
        return NULL;
    }
    int rc = PyObject_SetAttrString(self, "args", own);
    Py_DECREF(own);
    if (rc < 0 || PyObject_SetAttrString(self, "formatted", formatted) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* What the far end has not told is taken from the text. */
static PyObject *
RemoteError_getattr(PyObject *self, PyObject *name)
{
    PyObject *result = NULL, *formatted = NULL, *errors = NULL, *said = NULL; /* owned */
    if (!PyUnicode_Check(name) || (PyUnicode_CompareWithASCIIString(name, "remote_type") != 0 &&
                                   PyUnicode_CompareWithASCIIString(name, "remote_message") != 0)) {
        return PyErr_Format(PyExc_AttributeError, "'%.100s' object has no attribute %R", Py_TYPE(self)->tp_name, name);
    }
    formatted = PyObject_GetAttrString(self, "formatted");
    errors = formatted == NULL ? NULL : PyImport_ImportModule("execnet_c.common.errors");
    said = errors == NULL ? NULL : PyObject_CallMethod(errors, "said_by", "O", formatted);
    if (said == NULL || !PyTuple_Check(said) || PyTuple_GET_SIZE(said) != 2) {
        goto done;
    }
    if (PyObject_SetAttrString(self, "remote_type", PyTuple_GET_ITEM(said, 0)) == 0 &&
        PyObject_SetAttrString(self, "remote_message", PyTuple_GET_ITEM(said, 1)) == 0) {
        result = PyObject_GenericGetAttr(self, name);
    }
done:
    Py_XDECREF(said);
    Py_XDECREF(errors);
    Py_XDECREF(formatted);
    return result;
}

static PyObject *
RemoteError_str(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyObject_GetAttrString(self, "formatted");
}

static PyObject *
RemoteError_repr(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = NULL, *name = NULL, *formatted = NULL; /* owned */
    name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    formatted = PyObject_GetAttrString(self, "formatted");
    if (name == NULL || formatted == NULL) {
        goto done;
    }
    result = PyUnicode_FromFormat("%S: %S", name, formatted);
done:
    Py_XDECREF(name);
    Py_XDECREF(formatted);
    return result;
}

/* sys.stderr, new reference; NULL without an exception: there is none. PySys_GetObject lends it, and another thread may
 * replace it. */
static PyObject *
stderr_now(void)
{
    PyObject *sys = PyImport_ImportModule("sys");
    PyObject *file = sys == NULL ? NULL : PyObject_GetAttrString(sys, "stderr");
    PyErr_Clear();
    Py_XDECREF(sys);
    return file;
}

static PyObject *
RemoteError_warn(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = NULL, *formatted = NULL, *text = NULL, *written = NULL; /* owned */
    PyObject *file = stderr_now();                                             /* owned */
    formatted = PyObject_GetAttrString(self, "formatted");
    if (formatted == NULL) {
        goto done;
    }
    bool interrupted = PyUnicode_Check(formatted) && PyUnicode_CompareWithASCIIString(formatted, INTERRUPT_TEXT) == 0;
    if (!interrupted && file != NULL && file != Py_None) {
        text = PyUnicode_FromFormat("[%ld] Warning: unhandled %R\n", (long)getpid(), self);
        if (text == NULL) {
            goto done;
        }
        written = PyObject_CallMethod(file, "write", "O", text);
        if (written == NULL) {
            goto done;
        }
    }
    result = Py_NewRef(Py_None);
done:
    Py_XDECREF(file);
    Py_XDECREF(formatted);
    Py_XDECREF(text);
    Py_XDECREF(written);
    return result;
}

static PyMethodDef remote_error_methods[] = {
    {"__init__", (PyCFunction)(void (*)(void))RemoteError_init, METH_VARARGS | METH_KEYWORDS,
     "__init__($self, /, formatted)\n--\n\n"},
    {"__getattr__", RemoteError_getattr, METH_O, NULL},
    {"__str__", RemoteError_str, METH_NOARGS, NULL},
    {"__repr__", RemoteError_repr, METH_NOARGS, NULL},
    {"warn", RemoteError_warn, METH_NOARGS, remote_error_warn_doc},
    {NULL, NULL, 0, NULL},
};

/* Makes a class, keeps it in *slot and makes it an attribute of `module`. `second` may be NULL. */
static int
add_class(PyObject *module, const char *full_name, const char *doc, PyObject *first, PyObject *second, PyObject **slot)
{
    PyObject *bases = second != NULL ? PyTuple_Pack(2, first, second) : PyTuple_Pack(1, first);
    if (bases == NULL) {
        return -1;
    }
    *slot = PyErr_NewExceptionWithDoc(full_name, doc, bases, NULL);
    Py_DECREF(bases);
    if (*slot == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, strchr(full_name, '.') + 1, *slot);
}

int
xcpy_error_setup(PyObject *module, xcpy_state *state)
{
    if (add_class(module, "execnet_c.DataFormatError", data_format_error_doc, PyExc_Exception, NULL,
                  &state->DataFormatError) < 0 ||
        add_class(module, "execnet_c.DumpError", dump_error_doc, state->DataFormatError, NULL, &state->DumpError) < 0 ||
        add_class(module, "execnet_c.LoadError", load_error_doc, state->DataFormatError, NULL, &state->LoadError) < 0 ||
        add_class(module, "execnet_c.TruncatedError", truncated_error_doc, state->LoadError, PyExc_EOFError,
                  &state->TruncatedError) < 0 ||
        add_class(module, "execnet_c.RemoteError", remote_error_doc, PyExc_Exception, NULL, &state->RemoteError) < 0 ||
        add_class(module, "execnet_c.TimeoutError", timeout_error_doc, PyExc_OSError, NULL, &state->TimeoutError) < 0 ||
        /* OSError comes first: only its constructor makes an errno of the first of two arguments. */
        add_class(module, "execnet_c.GatewayDied", gateway_died_doc, PyExc_OSError, PyExc_EOFError,
                  &state->GatewayDied) < 0) {
        return -1;
    }
    return xcpy_add_methods(state->RemoteError, remote_error_methods);
}

PyObject *
xcpy_remote_error_of(xcpy_state *state, PyObject *item)
{
    static const char *const names[] = {"remote_type", "remote_message"};
    bool has_words = item != NULL && PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 3;
    PyObject *text = has_words ? PyTuple_GET_ITEM(item, 0) : item; /* borrowed from `item` */
    PyObject *error = NULL;
    if (text != NULL && PyUnicode_Check(text)) {
        error = PyObject_CallOneArg(state->RemoteError, text);
        for (int i = 0; error != NULL && has_words && i < 2; i++) {
            PyObject *word = PyTuple_GET_ITEM(item, i + 1);
            if (PyObject_SetAttrString(error, names[i], PyUnicode_Check(word) ? word : Py_None) < 0) {
                Py_CLEAR(error);
            }
        }
    }
    else {
        PyErr_Clear();
        error = PyObject_CallFunction(state->RemoteError, "s",
                                      "the far end closed the channel with an error text that cannot be read");
    }
    Py_XDECREF(item);
    return error;
}

PyObject *
xcpy_take_cause(void)
{
    PyObject *type, *cause, *traceback;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback != NULL && cause != NULL) {
        PyException_SetTraceback(cause, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return cause;
}

void
xcpy_raise_object(PyObject *error)
{
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

void
xcpy_raise_from(PyObject *type, PyObject *text, PyObject *cause)
{
    PyObject *error = text != NULL ? PyObject_CallOneArg(type, text) : NULL;
    Py_XDECREF(text);
    if (error == NULL) {
        Py_XDECREF(cause);
        return;
    }
    if (cause != NULL) {
        PyException_SetContext(error, Py_NewRef(cause));
        PyException_SetCause(error, cause);
    }
    PyErr_SetObject(type, error);
    Py_DECREF(error);
}

static PyObject *
raise_os_error(int number, const char *reason, const xc_err *err)
{
    const char *join = err->detail[0] != '\0' ? ": " : "";
    PyObject *text =
        PyUnicode_FromFormat("%s%s%s%s%s", err->step, err->step[0] != '\0' ? ": " : "", reason, join, err->detail);
    if (text == NULL) {
        return NULL;
    }
    /* With two arguments OSError makes a fitting subclass: BrokenPipeError, FileNotFoundError. */
    xcpy_raise_object(PyObject_CallFunction(PyExc_OSError, "iO", number, text));
    Py_DECREF(text);
    return NULL;
}

PyObject *
xcpy_raise(xcpy_state *state, const xc_err *err)
{
    const char *step = err->step != NULL ? err->step : "";
    const char *join = step[0] != '\0' && err->detail[0] != '\0' ? ": " : "";
    PyObject *type = NULL; /* borrowed */
    switch (err->code) {
    case XC_SYS:
        return raise_os_error(err->sys_errno, strerror(err->sys_errno), err);
    case XC_INTR:
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
        return raise_os_error(EINTR, strerror(EINTR), err);
    case XC_NOMEM:
        return PyErr_NoMemory();
    case XC_TIMEOUT:
        type = state->TimeoutError;
        break;
    case XC_BAD:
    case XC_LIMIT:
        type = state->DataFormatError;
        break;
    case XC_EOF:
    case XC_SILENT:
    case XC_CLOSED:
        type = PyExc_EOFError;
        break;
    case XC_FORKED:
        type = PyExc_OSError;
        break;
    case XC_OK:
    case XC_AGAIN:
    case XC_SPACE:
        return PyErr_Format(PyExc_SystemError, "%s is no error (%s)", xc_status_name(err->code), step);
    }
    return PyErr_Format(type, "%s%s%s", step, join, err->detail);
}
