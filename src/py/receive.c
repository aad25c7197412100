/*
 * Receiving: the methods of Channel that wait for what the other side sends, and how they tell that nothing more
 * comes.
 */
#include "receive.h"

#include "args.h"
#include "callbacks.h"
#include "error.h"
#include "gateway_end.h"
#include "io.h"
#include "item.h"
#include "park.h"

/* An item that comes within this time is awaited with the GIL held: see XCPY_SMALL_FRAME in io.h. */
#define SPIN_NS (3 * INT64_C(1000))

#define NO_ITEM_TEXT      "no item after %R seconds"
#define NO_CLOSE_TEXT     "Timeout after %R seconds"
#define HAS_CALLBACK_TEXT "cannot receive(), channel has receiver callback"
#define NO_FD_TEXT        "fd must not be negative"
#define END_TEXT          "channel %d has ended, nothing had been sent (a task sends by channel.send())"

/* The error to raise if nothing more comes. NULL without an exception: the channel was closed in order. */
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

/* Raises that error, if there is one, and returns -1; 0: the channel was closed in order. */
static int
raise_remote_error(ChannelObject *self)
{
    xcpy_raise_object(remote_error(self));
    return PyErr_Occurred() ? -1 : 0;
}

/* Raises the end of the channel, marked as such: it is no failure if it ends a task. Returns NULL. */
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

/* A wait without a timeout inside a callback would never end, because nothing arrives before that has returned: -1 with
 * OSError. */
static int
refuse_endless_wait(GatewayObject *gateway, const xc_wait *wait, const char *method)
{
    if (wait->until != XC_FOREVER || !xcpy_has_role(gateway) || xc_link_ready(gateway->link, wait)) {
        return 0;
    }
    PyErr_Format(PyExc_OSError,
                 "%s() without a timeout inside a callback of the same gateway would wait for ever: nothing arrives "
                 "until the callback has returned",
                 method);
    return -1;
}

/* Waits until wait->until for the condition of `method`. 0; -1 with an exception: if the time has passed, a
 * TimeoutError with the text `late`, in which %R becomes `timeout`. */
static int
wait_for(ChannelObject *self, xc_wait *wait, PyObject *timeout, const char *method, const char *late)
{
    GatewayObject *gateway = self->gateway;
    int waited = refuse_endless_wait(gateway, wait, method) < 0 ? -1 : xcpy_wait(gateway, wait);
    if (waited > 0) {
        PyErr_Format(self->state->TimeoutError, late, timeout);
    }
    return waited == 0 ? 0 : -1;
}

/* The beginning of a method with the one argument `timeout`: parses it by `format`, and sets wait->until. 0 or -1. */
static int
begin_wait(ChannelObject *self, PyObject *args, PyObject *kwargs, const char *format, PyObject **timeout, xc_wait *wait)
{
    static char *names[] = {"timeout", NULL};
    *timeout = Py_None;
    return PyArg_ParseTupleAndKeywords(args, kwargs, format, names, timeout)
               ? xcpy_begin_wait(self->gateway, *timeout, wait)
               : -1;
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
            PyErr_SetString(PyExc_OSError, HAS_CALLBACK_TEXT);
            return NULL;
        }
        xc_status rc = soon ? xc_link_take_soon(gateway->link, self->chan, SPIN_NS, &msg)
                            : xc_link_take_item(gateway->link, self->chan, &msg);
        if (rc == XC_OK) {
            atomic_store_explicit(&self->used, true, memory_order_relaxed);
            return xcpy_load_item(gateway, msg, self->chan);
        }
        if (rc == XC_CLOSED) {
            return raise_remote_error(self) == 0 ? raise_end(self) : NULL;
        }
        wait.until = until;
        if (wait_for(self, &wait, timeout, "receive", NO_ITEM_TEXT) < 0) {
            return NULL;
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
    PyObject *timeout;
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = self->chan};
    if (begin_wait(self, args, kwargs, "|O:_await_item", &timeout, &wait) < 0) {
        return NULL;
    }
    if (self->has_callback) {
        Py_RETURN_FALSE;
    }
    if (wait_for(self, &wait, timeout, "receive", NO_ITEM_TEXT) < 0) {
        return NULL;
    }
    return PyBool_FromLong(xc_link_chan_state(self->gateway->link, self->chan).item);
}

PyDoc_STRVAR(notify_doc,
             "_notify($self, fd, number, /)\n--\n\n"
             "A wait without a thread: the 8 bytes of `number` are written to `fd`, which must not block, once\n"
             "receive() would return at once. Returns an object whose `over` is true from then on; if it is true at\n"
             "once, nothing need be written. The wait ends with that object. It never takes an item.");

static PyObject *
Channel_notify(ChannelObject *self, PyObject *args)
{
    const xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = self->chan};
    PyObject *py_number;
    int fd;
    if (!PyArg_ParseTuple(args, "iO!:_notify", &fd, &PyLong_Type, &py_number) || xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(py_number);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (fd < 0 || self->has_callback) {
        PyErr_SetString(PyExc_OSError, fd < 0 ? NO_FD_TEXT : HAS_CALLBACK_TEXT);
        return NULL;
    }
    return xcpy_notify(self->gateway, (PyObject *)self, &wait, fd, number);
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
    PyObject *timeout;
    xc_wait wait = {.kind = XC_WAIT_CLOSE, .chan = self->chan};
    if (begin_wait(self, args, kwargs, "|O:waitclose", &timeout, &wait) < 0 ||
        wait_for(self, &wait, timeout, "waitclose", NO_CLOSE_TEXT) < 0 || raise_remote_error(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Iteration ends when the channel was closed in order, which is an EOFError. A subclass of that means another end, and
 * is passed on to the caller: an incomplete result must not look complete. */
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
    {"_notify", (PyCFunction)Channel_notify, METH_VARARGS, notify_doc},
    {"waitclose", (PyCFunction)(void (*)(void))Channel_waitclose, METH_VARARGS | METH_KEYWORDS, waitclose_doc},
    {"next", (PyCFunction)Channel_next_method, METH_NOARGS,
     "next($self, /)\n--\n\nAs the built-in next() on the channel."},
    {"_getremoteerror", (PyCFunction)Channel_getremoteerror, METH_NOARGS, "_getremoteerror($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};
