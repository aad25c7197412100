/*
 * asyncio: the methods of Channel that return what is to be awaited. They are in Python, in execnet_c/common/aio.py.
 */
#include "aio.h"

/* Calls that function with the channel and these arguments. New reference or NULL. */
static PyObject *
call(ChannelObject *self, const char *function, PyObject *args, PyObject *kwargs)
{
    PyObject *py_module = PyImport_ImportModule("execnet_c.common.aio");
    PyObject *py_function = py_module == NULL ? NULL : PyObject_GetAttrString(py_module, function);
    PyObject *py_bound = py_function == NULL ? NULL : PyMethod_New(py_function, (PyObject *)self);
    PyObject *result = py_bound == NULL ? NULL : PyObject_Call(py_bound, args, kwargs);
    Py_XDECREF(py_bound);
    Py_XDECREF(py_function);
    Py_XDECREF(py_module);
    return result;
}

PyDoc_STRVAR(
    areceive_doc,
    "areceive($self, /, timeout=None)\n--\n\n"
    "As receive(), to be awaited in asyncio: the event loop watches for the item, without a thread. A call that\n"
    "is cancelled has taken none. Several may wait for one channel, also in several loops.");

static PyObject *
Channel_areceive(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    return call(self, "areceive", args, kwargs);
}

PyDoc_STRVAR(
    asend_doc,
    "asend($self, /, item)\n--\n\n"
    "As send(), to be awaited in asyncio: where it has to wait, for a limit or for room in the connection, the\n"
    "event loop goes on, without a thread. The item is read until this returns. A call that is cancelled has\n"
    "sent nothing, one that has returned the whole item.");

static PyObject *
Channel_asend(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    return call(self, "asend", args, kwargs);
}

PyObject *
xcpy_channel_anext(ChannelObject *self)
{
    PyObject *args = PyTuple_New(0);
    PyObject *result = args == NULL ? NULL : call(self, "anext", args, NULL);
    Py_XDECREF(args);
    return result;
}

PyMethodDef xcpy_aio_methods[] = {
    {"areceive", (PyCFunction)(void (*)(void))Channel_areceive, METH_VARARGS | METH_KEYWORDS, areceive_doc},
    {"asend", (PyCFunction)(void (*)(void))Channel_asend, METH_VARARGS | METH_KEYWORDS, asend_doc},
    {NULL, NULL, 0, NULL},
};
