#include "interrupt.h"

#include "channel.h"
#include "io.h"

#define NO_TASK_TEXT "%R belongs to no task started here"

PyDoc_STRVAR(
    interrupt_doc,
    "interrupt($self, /, kill_after=None)\n--\n\n"
    "Raise KeyboardInterrupt in the task of this channel at the far end, and in nothing else. Does not wait. A task\n"
    "that has not begun ends with it without having run; nothing happens to one that has ended. A task that does\n"
    "not catch it ends with a RemoteError. Calls within half a second count as one. It ends a wait of the main\n"
    "thread over there, but one of another thread only when that comes back to Python code.\n\n"
    "kill_after: seconds after which the far end is ended if the task has not: its process is killed, or the\n"
    "connection to it is ended. Then the channel raises a GatewayDied that says so. None: never.\n"
    "Raises ValueError for a channel that is no task's, NotImplementedError for a far end that cannot do this, and\n"
    "OSError when this side has said goodbye.");

static PyObject *
Channel_interrupt(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kill_after", NULL};
    PyObject *py_seconds = Py_None; /* borrowed */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:interrupt", names, &py_seconds) ||
        xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    if (!self->starts_task) {
        return PyErr_Format(PyExc_ValueError, NO_TASK_TEXT, self);
    }
    PyObject *py_module = PyImport_ImportModule("execnet_c.models.interrupting");
    PyObject *result =
        py_module == NULL ? NULL : PyObject_CallMethod(py_module, "interrupt", "OO", (PyObject *)self, py_seconds);
    Py_XDECREF(py_module);
    return result;
}

PyMethodDef xcpy_interrupt_methods[] = {
    {"interrupt", (PyCFunction)(void (*)(void))Channel_interrupt, METH_VARARGS | METH_KEYWORDS, interrupt_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(wait_closed_doc,
             "_wait_closed($self, channel, timeout, /)\n--\n\n"
             "As channel.waitclose(), but it raises nothing of how the channel ended. False: `timeout` seconds have\n"
             "passed.");

static PyObject *
Gateway_wait_closed(GatewayObject *self, PyObject *args)
{
    PyObject *py_channel, *py_timeout; /* both borrowed */
    if (!PyArg_ParseTuple(args, "O!O:_wait_closed", self->state->ChannelType, &py_channel, &py_timeout)) {
        return NULL;
    }
    xc_wait wait = {.kind = XC_WAIT_CLOSE, .chan = ((ChannelObject *)py_channel)->chan};
    int waited = xcpy_begin_wait(self, py_timeout, &wait) < 0 ? -1 : xcpy_wait(self, &wait);
    return waited < 0 ? NULL : PyBool_FromLong(waited == 0);
}

/* --- at a worker ------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(take_interrupt_doc,
             "_take_interrupt($self, channel, /)\n--\n\n"
             "Whether the channel's task is to be interrupted. From now on it counts as interrupted.");

static PyObject *
Gateway_take_interrupt(GatewayObject *self, PyObject *args)
{
    PyObject *channel; /* borrowed */
    if (!PyArg_ParseTuple(args, "O!:_take_interrupt", self->state->ChannelType, &channel)) {
        return NULL;
    }
    bool ours = self->link != NULL && !xc_link_forked(self->link);
    return PyBool_FromLong(ours && xc_link_take_interrupt(self->link, ((ChannelObject *)channel)->chan));
}

PyDoc_STRVAR(mark_doc, "_mark($self, channel, /)\n--\n\n"
                       "Have the channel's task interrupted, as the far end's interrupt() does.");

static PyObject *
Gateway_mark(GatewayObject *self, PyObject *args)
{
    PyObject *channel; /* borrowed */
    if (!PyArg_ParseTuple(args, "O!:_mark", self->state->ChannelType, &channel) || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (xc_link_interrupt(self->link, ((ChannelObject *)channel)->chan) != XC_OK) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(raise_in_doc,
             "_raise_in($self, ident, kind, /)\n--\n\n"
             "Raise an exception of that type in that thread, between two steps of its Python code. None:\n"
             "the one that has not come yet does not come.");

static PyObject *
Gateway_raise_in(GatewayObject *self, PyObject *args)
{
    unsigned long ident;
    PyObject *py_kind; /* borrowed */
    (void)self;
    if (!PyArg_ParseTuple(args, "kO:_raise_in", &ident, &py_kind)) {
        return NULL;
    }
    (void)PyThreadState_SetAsyncExc(ident, py_kind == Py_None ? NULL : py_kind);
    Py_RETURN_NONE;
}

PyMethodDef xcpy_interrupting_methods[] = {
    {"_wait_closed", (PyCFunction)Gateway_wait_closed, METH_VARARGS, wait_closed_doc},
    {"_mark", (PyCFunction)Gateway_mark, METH_VARARGS, mark_doc},
    {"_take_interrupt", (PyCFunction)Gateway_take_interrupt, METH_VARARGS, take_interrupt_doc},
    {"_raise_in", (PyCFunction)Gateway_raise_in, METH_VARARGS, raise_in_doc},
    {NULL, NULL, 0, NULL},
};
