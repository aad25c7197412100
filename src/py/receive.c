/*
 * Receiving: the methods of Channel that wait for what the other side sends, and how they say that nothing more comes.
 */
#include "receive.h"

#include "args.h"
#include "callbacks.h"
#include "error.h"
#include "gateway_end.h"
#include "io.h"
#include "item.h"

/* What comes so soon is waited for without releasing the GIL: see SMALL_FRAME in io.c. */
#define SPIN_NS (3 * INT64_C(1000))

#define NO_ITEM_TEXT  "no item after %R seconds"
#define NO_CLOSE_TEXT "Timeout after %R seconds"
#define END_TEXT      "channel %d has ended, nothing had been sent (a task sends by channel.send())"

/* The error to raise where nothing more comes, or NULL with no exception set: an orderly end. */
static PyObject *
remote_error(ChannelObject *self)
{
    GatewayObject *gateway = self->gateway;
    xc_msg *msg = xc_link_take_error(gateway->link, self->chan);
    if (msg != NULL) {
        return xcpy_remote_error(gateway, msg);
    }
    if (!xc_link_chan_state(gateway->link, self->chan).cut) {
        return NULL;
    }
    (void)xcpy_raise_ended(gateway, false);
    return xcpy_take_cause();
}

static PyObject *
Channel_getremoteerror(ChannelObject *self, PyObject *unused)
{
    (void)unused;
    if (xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    PyObject *error = remote_error(self);
    if (error == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return error;
}

/* Raises that error, if there is one: -1; 0 after an orderly end. */
static int
raise_remote_error(ChannelObject *self)
{
    PyObject *error = remote_error(self);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Raises the end of the channel, marked as that: a task may let it through. Returns NULL. */
static PyObject *
raise_end(ChannelObject *self)
{
    PyObject *py_error = NULL, *py_of = PyLong_FromVoidPtr(self->gateway); /* both owned */
    if (self->used) {
        py_error = PyObject_CallNoArgs(PyExc_EOFError);
    }
    else {
        PyObject *py_text = PyUnicode_FromFormat(END_TEXT, (int)self->chan->id);
        py_error = py_text == NULL ? NULL : PyObject_CallOneArg(PyExc_EOFError, py_text);
        Py_XDECREF(py_text);
    }
    if (py_error != NULL && py_of != NULL && PyObject_SetAttrString(py_error, "_end_of", py_of) == 0) {
        PyErr_SetObject(PyExc_EOFError, py_error);
    }
    Py_XDECREF(py_of);
    Py_XDECREF(py_error);
    return NULL;
}

/* A wait without end inside a callback, before which nothing arrives: -1 with OSError. */
static int
refuse_endless_wait(GatewayObject *gateway, int64_t until, const char *method)
{
    if (until != XC_FOREVER || !xcpy_has_role(gateway)) {
        return 0;
    }
    PyErr_Format(PyExc_OSError,
                 "%s() without a timeout inside a callback of the same gateway would wait for ever: nothing arrives "
                 "until the callback has returned",
                 method);
    return -1;
}

/* Waits until wait->until for what `method` is to wait for. 0; -1 with an exception: TimeoutError(late, with `timeout`
 * in it) where that has passed. */
static int
wait_for(ChannelObject *self, xc_wait *wait, PyObject *timeout, const char *method, const char *late)
{
    GatewayObject *gateway = self->gateway;
    if (!xc_link_ready(gateway->link, wait) && refuse_endless_wait(gateway, wait->until, method) < 0) {
        return -1;
    }
    int waited = xcpy_wait(gateway, wait);
    if (waited > 0) {
        PyErr_Format(self->state->TimeoutError, late, timeout);
    }
    return waited == 0 ? 0 : -1;
}

static PyObject *
receive(ChannelObject *self, PyObject *timeout)
{
    GatewayObject *gateway = self->gateway;
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = self->chan, .can_give = true};
    int64_t until = XC_FOREVER;
    if (xcpy_check_usable(gateway) < 0 || (timeout != Py_None && xcpy_deadline(timeout, false, &until) < 0)) {
        return NULL;
    }
    for (bool soon = true;; soon = false) {
        xc_msg *msg;
        if (self->has_callback) {
            PyErr_SetString(PyExc_OSError, "cannot receive(), channel has receiver callback");
            return NULL;
        }
        xc_status rc = soon ? xc_link_take_soon(gateway->link, self->chan, SPIN_NS, &msg)
                            : xc_link_take_item(gateway->link, self->chan, &msg);
        if (rc == XC_OK) {
            self->used = true;
            return xcpy_load_item(gateway, msg);
        }
        if (rc == XC_CLOSED) {
            return raise_remote_error(self) == 0 ? raise_end(self) : NULL;
        }
        if (refuse_endless_wait(gateway, until, "receive") < 0) {
            return NULL;
        }
        wait.until = until;
        int waited = xcpy_wait(gateway, &wait);
        if (waited < 0) {
            return NULL;
        }
        if (waited > 0) {
            return PyErr_Format(gateway->state->TimeoutError, NO_ITEM_TEXT, timeout);
        }
    }
}

PyDoc_STRVAR(
    receive_doc,
    "receive($self, /, timeout=None)\n--\n\n"
    "The next item that the other side sent; waits for it.\n\n"
    "timeout: seconds, None to wait for ever. Raises TimeoutError when they have passed; RemoteError with the\n"
    "far end's traceback when its code failed; EOFError when the channel was closed and nothing is left to\n"
    "receive; GatewayDied, an EOFError, when the far end is gone (it says how); LoadError for an item that is\n"
    "not well formed; OSError on a channel with a callback.");

static PyObject *
Channel_receive(ChannelObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"timeout"};
    PyObject *timeout = Py_None;
    if ((nargs != 0 || kwnames != NULL) && xcpy_args("receive", names, 1, 0, args, nargs, kwnames, &timeout) < 0) {
        return NULL;
    }
    return receive(self, timeout);
}

PyDoc_STRVAR(await_item_doc,
             "_await_item($self, /, timeout=None)\n--\n\n"
             "Wait until there is an item to receive (true), or until none can come (false): the channel\n"
             "is closed or has a callback. Takes none. Raises TimeoutError.");

static PyObject *
Channel_await_item(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    GatewayObject *gateway = self->gateway;
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = self->chan};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:_await_item", names, &timeout)) {
        return NULL;
    }
    if (xcpy_begin_wait(gateway, timeout, &wait) < 0) {
        return NULL;
    }
    if (self->has_callback) {
        Py_RETURN_FALSE;
    }
    if (wait_for(self, &wait, timeout, "receive", NO_ITEM_TEXT) < 0) {
        return NULL;
    }
    return PyBool_FromLong(xc_link_chan_state(gateway->link, self->chan).item);
}

PyDoc_STRVAR(
    waitclose_doc,
    "waitclose($self, /, timeout=None)\n--\n\n"
    "Wait until the other side has closed the channel or sends nothing more to it. Items that came before may\n"
    "still be received. With a callback it returns after the last item and the endmarker were delivered.\n\n"
    "timeout: seconds, None to wait for ever. Raises TimeoutError when they have passed, RemoteError when the\n"
    "far end's code failed, EOFError (GatewayDied) when the far end is gone.");

static PyObject *
Channel_waitclose(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    xc_wait wait = {.kind = XC_WAIT_CLOSE, .chan = self->chan};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:waitclose", names, &timeout)) {
        return NULL;
    }
    if (xcpy_begin_wait(self->gateway, timeout, &wait) < 0 ||
        wait_for(self, &wait, timeout, "waitclose", NO_CLOSE_TEXT) < 0 || raise_remote_error(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The end of iteration is the orderly end of the channel, an EOFError. Its subclasses say that it was none, and go on
 * to the caller: half of the results must not pass for all of them. */
PyObject *
xcpy_channel_next(ChannelObject *self)
{
    PyObject *item = PyObject_CallMethod((PyObject *)self, "receive", NULL);
    if (item == NULL && PyErr_Occurred() == PyExc_EOFError) {
        PyErr_Clear();
    }
    return item;
}

static PyObject *
Channel_next_method(ChannelObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *item = xcpy_channel_next(self);
    if (item == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return item;
}

PyMethodDef xcpy_receive_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))Channel_receive, METH_FASTCALL | METH_KEYWORDS, receive_doc},
    {"_await_item", (PyCFunction)(void (*)(void))Channel_await_item, METH_VARARGS | METH_KEYWORDS, await_item_doc},
    {"waitclose", (PyCFunction)(void (*)(void))Channel_waitclose, METH_VARARGS | METH_KEYWORDS, waitclose_doc},
    {"next", (PyCFunction)Channel_next_method, METH_NOARGS,
     "next($self, /)\n--\n\nAs the built-in next() on the channel."},
    {"_getremoteerror", (PyCFunction)Channel_getremoteerror, METH_NOARGS, "_getremoteerror($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};
