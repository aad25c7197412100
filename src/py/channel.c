/*
 * The type Channel: one conversation with the far end, over a channel of the link. It is open, as execnet's is:
 * programs subclass it, patch its methods and set attributes on its instances.
 */
#include <stddef.h>
#include <string.h>

#include "args.h"
#include "error.h"
#include "io.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"
#include "xc_pages.h"

/* What comes so soon is waited for without releasing the GIL: see SMALL_FRAME in io.c. */
#define LOOK_NS (3 * INT64_C(1000))

#define END_TEXT "channel %d has ended, nothing had been sent (a task sends by channel.send())"

/* --- items ---------------------------------------------------------------------------------------------------- */

/* What make_channel needs: the channels of an item or a task exist since it arrived, and may have been closed since. */
struct source {
    GatewayObject *gateway;
    const xc_msg *msg;
    size_t next; /* the payload is loaded in the order in which it was scanned */
};

static PyObject *
make_channel(void *arg, uint32_t id)
{
    struct source *source = arg;
    GatewayObject *gateway = source->gateway;
    xc_chan *chan = xc_link_carried(gateway->link, source->msg, source->next++, id);
    if (chan == NULL) {
        PyErr_SetString(gateway->state->LoadError, "a channel in a message that is neither an item nor a task");
        return NULL;
    }
    return xcpy_channel_of(gateway, chan);
}

/* A large bytes object that was read by the pump: copied in steps, giving back what is copied, so that at no time
 * there are two of it. */
static PyObject *
load_large_bytes(unsigned char *data, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes == NULL) {
        return NULL;
    }
    char *into = PyBytes_AS_STRING(bytes);
    Py_BEGIN_ALLOW_THREADS
        xc_pages_move(into, data, size);
    Py_END_ALLOW_THREADS
    return bytes;
}

PyObject *
xcpy_load_item(GatewayObject *gateway, xc_msg *msg)
{
    PyObject *result = NULL;
    if (msg->lost) {
        PyErr_Format(PyExc_MemoryError, "an item of %zu bytes arrived, and there was no memory for it", msg->size);
    }
    else if (msg->crowded) {
        PyErr_Format(gateway->state->LoadError,
                     "the item carries channels; with those in items that were not received "
                     "yet they would be more than %d",
                     XC_CARRIED_MAX);
    }
    else if (msg->space != NULL) {
        /* The last byte of the payload, STOP, was read to where the object's closing 0 belongs. */
        if (msg->data[msg->size - 1] == XC_OP_STOP) {
            msg->data[msg->size - 1] = 0;
            result = msg->space;
            msg->space = NULL;
        }
        else {
            PyErr_Format(gateway->state->LoadError, "no STOP behind a bytes object of %zu bytes", msg->size - 1);
        }
    }
    else if (msg->size >= XC_BIG && msg->data[0] == XC_OP_BYTES && xc_get_u32(msg->data + 1) == msg->size - 6 &&
             msg->data[msg->size - 1] == XC_OP_STOP) {
        result = load_large_bytes(msg->data + 5, msg->size - 6);
    }
    else {
        struct source source = {gateway, msg, 0};
        xcpy_load_opts opts = {
            .state = gateway->state,
            .strconfig = {.py2str_as_py3str = (msg->coerce & XC_PY2STR_AS_PY3STR) != 0,
                          .py3str_as_py2str = (msg->coerce & XC_PY3STR_AS_PY2STR) != 0},
            .make_channel = make_channel,
            .arg = &source,
        };
        result = xcpy_load(&opts, msg->data, msg->size, 0);
    }
    if (msg->space != NULL) {
        Py_DECREF((PyObject *)msg->space);
        msg->space = NULL;
    }
    xc_link_free_msg(gateway->link, msg);
    return result;
}

PyObject *
xcpy_remote_error(GatewayObject *gateway, xc_msg *msg)
{
    return xcpy_remote_error_of(gateway->state, xcpy_load_item(gateway, msg));
}

/* --- life ----------------------------------------------------------------------------------------------------- */

/* The object of that channel, borrowed, unless it is just being freed. */
static PyObject *
living_object(const xc_chan *chan)
{
    PyObject *object = chan->object;
    return object != NULL && Py_REFCNT(object) > 0 ? object : NULL;
}

static PyObject *
new_channel(PyTypeObject *type, GatewayObject *gateway, xc_chan *chan)
{
    ChannelObject *self = (ChannelObject *)type->tp_alloc(type, 0);
    PyObject *other = living_object(chan); /* what the collector called just now may have made one */
    if (self == NULL || other != NULL) {
        Py_XINCREF(other);
        xc_link_drop_chan(gateway->link, chan);
        Py_XDECREF(self);
        return other;
    }
    self->state = gateway->state;
    self->gateway = (GatewayObject *)Py_NewRef((PyObject *)gateway);
    self->chan = chan;
    xc_link_set_object(gateway->link, chan, self);
    return (PyObject *)self;
}

PyObject *
xcpy_channel_of(GatewayObject *gateway, xc_chan *chan)
{
    PyObject *object = living_object(chan);
    if (object != NULL) {
        Py_INCREF(object);
        xc_link_drop_chan(gateway->link, chan);
        return object;
    }
    return new_channel((PyTypeObject *)gateway->state->ChannelType, gateway, chan);
}

static PyObject *
Channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gateway", "id", NULL};
    xcpy_state *state = xcpy_state_of(type);
    PyObject *gateway;
    unsigned int id;
    xc_err err;
    xc_chan *chan;
    if (state == NULL) {
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!I:Channel", names, state->GatewayType, &gateway, &id)) {
        return NULL;
    }
    if (xcpy_check_usable((GatewayObject *)gateway) < 0) {
        return NULL;
    }
    if (xc_link_chan(((GatewayObject *)gateway)->link, id, &chan, &err) != XC_OK) {
        return xcpy_raise(state, &err);
    }
    if (living_object(chan) != NULL) {
        xc_link_drop_chan(((GatewayObject *)gateway)->link, chan);
        PyErr_Format(PyExc_ValueError, "the gateway has a channel with id %u already", id);
        return NULL;
    }
    return new_channel(type, (GatewayObject *)gateway, chan);
}

static int
Channel_traverse(ChannelObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dict);
    Py_VISIT(self->gateway);
    return 0;
}

/* The gateway is not cleared: deallocation still needs its link, and breaking the cycle anywhere else suffices. */
static int
Channel_clear(ChannelObject *self)
{
    Py_CLEAR(self->dict);
    return 0;
}

static void
Channel_dealloc(ChannelObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* First: what is called below may receive an item that carries the channel, and make another object for it. */
    if (self->chan != NULL && !xc_link_forked(self->gateway->link)) {
        xc_link_drop_object(self->gateway->link, self->chan, self);
    }
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Py_CLEAR(self->dict);
    Py_CLEAR(self->gateway);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
Channel_repr(ChannelObject *self)
{
    bool closed = xc_link_forked(self->gateway->link) || xc_link_chan_state(self->gateway->link, self->chan).closed;
    return PyUnicode_FromFormat("<Channel id=%i %s>", (int)self->chan->id, closed ? "closed" : "open");
}

/* --- sending and closing -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(send_doc,
             "send($self, /, item)\n--\n\n"
             "Send `item` to the other side, by value.\n\n"
             "None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset and channels, nested as\n"
             "you like. Returns when it is handed to the system; the far end need not have received it.\n"
             "When a signal handler raises meanwhile, an item whose sending has begun is still delivered, once and\n"
             "whole; one that waited behind another thread's is not sent.\n"
             "Raises DumpError (what cannot be sent, and where in the item it sits), and OSError when the channel\n"
             "or the connection is closed (GatewayDied says how the far end ended).");

static PyObject *
Channel_send(ChannelObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"item"};
    PyObject *item;
    if (xcpy_args("send", names, 1, 1, args, nargs, kwnames, &item) < 0) {
        return NULL;
    }
    if (xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    if (atomic_load_explicit(&self->chan->closed, memory_order_relaxed)) { /* no mutex: short items pay for each */
        return PyErr_Format(PyExc_OSError, "cannot send to %R", self);
    }
    if (xcpy_send(self->gateway, XC_DATA, self->chan->id, item) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc,
             "close($self, /, error=None)\n--\n\n"
             "Close the channel for both sides; with `error`, the other side's next receive() or waitclose()\n"
             "raises RemoteError with it. What was sent before is still received there. Closing a closed channel\n"
             "does nothing. Raises OSError for the channel of a task inside that task: it is closed by its end.");

/* A text is sent in any case: with escapes for what is no Unicode. */
static int
tell_end(ChannelObject *self, PyObject *error)
{
    if (error == Py_None) {
        return xcpy_send(self->gateway, XC_CLOSE, self->chan->id, NULL);
    }
    PyObject *py_bytes = NULL, *py_text = NULL; /* owned */
    if (PyUnicode_Check(error)) {
        py_bytes = PyUnicode_AsEncodedString(error, "utf-8", "backslashreplace");
        py_text = py_bytes == NULL ? NULL : PyUnicode_FromEncodedObject(py_bytes, "utf-8", NULL);
    }
    else {
        py_text = Py_NewRef(error);
    }
    int sent = py_text == NULL ? -1 : xcpy_send(self->gateway, XC_CLOSE_ERROR, self->chan->id, py_text);
    Py_XDECREF(py_bytes);
    Py_XDECREF(py_text);
    return sent;
}

static PyObject *
Channel_close(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"error", NULL};
    PyObject *error = Py_None;
    bool tell;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:close", names, &error)) {
        return NULL;
    }
    if (self->executing) {
        PyErr_SetString(PyExc_OSError, "cannot explicitly close channel within remote_exec");
        return NULL;
    }
    if (xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    xc_chan_state before = xc_link_chan_state(self->gateway->link, self->chan);
    if (before.closed) {
        Py_RETURN_NONE;
    }
    /* The far end is told first, as in execnet: an error that cannot be sent leaves the channel open. */
    if (before.may_tell && tell_end(self, error) < 0) {
        return NULL;
    }
    (void)xc_link_close_chan(self->gateway->link, self->chan, &tell, NULL);
    xcpy_end_callback(self->gateway, self->chan);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nThe channel itself.");

static PyObject *
Channel_enter(ChannelObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef((PyObject *)self);
}

PyDoc_STRVAR(exit_doc, "__exit__($self, type, value, traceback, /)\n--\n\n"
                       "Close the channel; with the traceback, as close(error) does, when the block was left by an\n"
                       "exception. The channel of a task, inside that task, is left to the task's end.");

static PyObject *
Channel_exit(ChannelObject *self, PyObject *args)
{
    PyObject *type, *value, *traceback; /* all borrowed */
    if (!PyArg_UnpackTuple(args, "__exit__", 3, 3, &type, &value, &traceback)) {
        return NULL;
    }
    if (self->executing) {
        Py_RETURN_NONE;
    }
    if (type == Py_None) {
        return PyObject_CallMethod((PyObject *)self, "close", NULL);
    }
    PyErr_Restore(Py_NewRef(type), Py_NewRef(value), traceback == Py_None ? NULL : Py_NewRef(traceback));
    PyObject *told = xcpy_tell_error();
    if (told == NULL) {
        return NULL;
    }
    PyObject *closed = PyObject_CallMethod((PyObject *)self, "close", "(O)", told);
    Py_DECREF(told);
    if (closed == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear(); /* the connection has ended: what the block was left by says more */
        Py_RETURN_NONE;
    }
    return closed;
}

static PyObject *
Channel_isclosed(ChannelObject *self, PyObject *unused)
{
    (void)unused;
    if (xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    return PyBool_FromLong(xc_link_chan_state(self->gateway->link, self->chan).closed);
}

/* --- receiving ------------------------------------------------------------------------------------------------ */

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
        xc_status rc = soon ? xc_link_take_soon(gateway->link, self->chan, LOOK_NS, &msg)
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
            return PyErr_Format(gateway->state->TimeoutError, "no item after %R seconds", timeout);
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
    if (xcpy_check_usable(gateway) < 0 || xcpy_deadline(timeout, true, &wait.until) < 0) {
        return NULL;
    }
    if (self->has_callback) {
        Py_RETURN_FALSE;
    }
    if (!xc_link_ready(gateway->link, &wait) && refuse_endless_wait(gateway, wait.until, "receive") < 0) {
        return NULL;
    }
    int waited = xcpy_wait(gateway, &wait);
    if (waited < 0) {
        return NULL;
    }
    if (waited > 0) {
        return PyErr_Format(self->state->TimeoutError, "no item after %R seconds", timeout);
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
    if (xcpy_check_usable(self->gateway) < 0 || xcpy_deadline(timeout, true, &wait.until) < 0) {
        return NULL;
    }
    if (!xc_link_ready(self->gateway->link, &wait) && refuse_endless_wait(self->gateway, wait.until, "waitclose") < 0) {
        return NULL;
    }
    int waited = xcpy_wait(self->gateway, &wait);
    if (waited < 0) {
        return NULL;
    }
    if (waited > 0) {
        return PyErr_Format(self->state->TimeoutError, "Timeout after %R seconds", timeout);
    }
    if (raise_remote_error(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The end of iteration is the orderly end of the channel, an EOFError. Its subclasses say that it was none, and go on
 * to the caller: half of the results must not pass for all of them. */
static PyObject *
Channel_next(ChannelObject *self)
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
    PyObject *item = Channel_next(self);
    if (item == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return item;
}

/* --- callbacks, coercion -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(
    setcallback_doc,
    "setcallback($self, /, callback, endmarker=...)\n--\n\n"
    "Have `callback(item)` called for each item instead of receiving it: at once, in this thread, for items that\n"
    "are here already; then in a thread of the gateway's, in the order of arrival. Nothing that arrived after an\n"
    "item is handed out by any channel of the gateway before the callback has returned. With `endmarker`,\n"
    "callback(endmarker) comes last, when the channel is closed or the far end is gone. A callback that raises\n"
    "closes its channel with the traceback. Raises OSError when there is a callback already.");

static PyObject *
Channel_setcallback(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"callback", "endmarker", NULL};
    PyObject *callback, *endmarker = self->state->no_endmarker;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:setcallback", names, &callback, &endmarker)) {
        return NULL;
    }
    if (!PyCallable_Check(callback)) {
        return PyErr_Format(PyExc_TypeError, "callback must be callable, not %.200s", Py_TYPE(callback)->tp_name);
    }
    if (xcpy_check_usable(self->gateway) < 0 || xcpy_set_callback(self, callback, endmarker) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(reconfigure_doc,
             "reconfigure($self, /, py2str_as_py3str=True, py3str_as_py2str=False)\n--\n\n"
             "Set the string coercion of this channel at both ends: what a Python 2 str arrives as (str, or bytes if\n"
             "false), and whether a str arrives as bytes.");

static PyObject *
Channel_reconfigure(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"py2str_as_py3str", "py3str_as_py2str", NULL};
    int py2 = 1, py3 = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pp:reconfigure", names, &py2, &py3) ||
        xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    PyObject *config = Py_BuildValue("(OO)", py2 ? Py_True : Py_False, py3 ? Py_True : Py_False);
    if (config == NULL) {
        return NULL;
    }
    xc_link_set_coerce(self->gateway->link, self->chan, py2 | py3 << 1);
    int sent = xcpy_send(self->gateway, XC_RECONFIGURE, self->chan->id, config);
    Py_DECREF(config);
    if (sent < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- as a file ---------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(makefile_doc,
             "makefile($self, /, mode='w', proxyclose=False)\n--\n\n"
             "The channel as a file: with mode 'w' each write() is sent as an item, with 'r' the items are read one\n"
             "behind the other. Closing the file closes the channel if `proxyclose` says so. Raises ValueError for\n"
             "another mode.");

static PyObject *
Channel_makefile(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"mode", "proxyclose", NULL};
    PyObject *mode = NULL, *proxyclose = Py_False;                /* both borrowed from the arguments */
    PyObject *py_default = NULL, *py_room = NULL, *result = NULL; /* all owned */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:makefile", names, &mode, &proxyclose)) {
        return NULL;
    }
    if (mode == NULL && (mode = py_default = PyUnicode_FromString("w")) == NULL) {
        goto done;
    }
    py_room = PyImport_ImportModule("execnet_c.common.channelfile");
    if (py_room == NULL) {
        goto done;
    }
    result = PyObject_CallMethod(py_room, "make", "OOO", (PyObject *)self, mode, proxyclose);
done:
    Py_XDECREF(py_room);
    Py_XDECREF(py_default);
    return result;
}

/* --- the type ------------------------------------------------------------------------------------------------- */

static PyObject *
Channel_get_id(ChannelObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong((int32_t)self->chan->id);
}

static PyGetSetDef Channel_getset[] = {
    {"id", (getter)Channel_get_id, NULL, "The channel's number: odd where the master made it, else even.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Channel_members[] = {
    {"gateway", T_OBJECT_EX, offsetof(ChannelObject, gateway), READONLY, "The gateway that the channel belongs to."},
    {"_executing", T_BOOL, offsetof(ChannelObject, executing), 0, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(ChannelObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ChannelObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef Channel_methods[] = {
    {"send", (PyCFunction)(void (*)(void))Channel_send, METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"receive", (PyCFunction)(void (*)(void))Channel_receive, METH_FASTCALL | METH_KEYWORDS, receive_doc},
    {"close", (PyCFunction)(void (*)(void))Channel_close, METH_VARARGS | METH_KEYWORDS, close_doc},
    {"__enter__", (PyCFunction)Channel_enter, METH_NOARGS, enter_doc},
    {"__exit__", (PyCFunction)Channel_exit, METH_VARARGS, exit_doc},
    {"_await_item", (PyCFunction)(void (*)(void))Channel_await_item, METH_VARARGS | METH_KEYWORDS, await_item_doc},
    {"waitclose", (PyCFunction)(void (*)(void))Channel_waitclose, METH_VARARGS | METH_KEYWORDS, waitclose_doc},
    {"setcallback", (PyCFunction)(void (*)(void))Channel_setcallback, METH_VARARGS | METH_KEYWORDS, setcallback_doc},
    {"reconfigure", (PyCFunction)(void (*)(void))Channel_reconfigure, METH_VARARGS | METH_KEYWORDS, reconfigure_doc},
    {"makefile", (PyCFunction)(void (*)(void))Channel_makefile, METH_VARARGS | METH_KEYWORDS, makefile_doc},
    {"isclosed", (PyCFunction)Channel_isclosed, METH_NOARGS,
     "isclosed($self, /)\n--\n\nTrue if the channel is closed. It may still hold items to receive."},
    {"next", (PyCFunction)Channel_next_method, METH_NOARGS,
     "next($self, /)\n--\n\nAs the built-in next() on the channel."},
    {"_getremoteerror", (PyCFunction)Channel_getremoteerror, METH_NOARGS, "_getremoteerror($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Channel_slots[] = {
    {Py_tp_doc,
     "Channel(gateway, id)\n--\n\nA conversation with code at the other side of a gateway; made by remote_exec() or "
     "newchannel()."},
    {Py_tp_new, Channel_new},
    {Py_tp_dealloc, Channel_dealloc},
    {Py_tp_traverse, Channel_traverse},
    {Py_tp_clear, Channel_clear},
    {Py_tp_repr, Channel_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Channel_next},
    {Py_tp_methods, Channel_methods},
    {Py_tp_members, Channel_members},
    {Py_tp_getset, Channel_getset},
    {0, NULL},
};

static PyType_Spec Channel_spec = {
    .name = "execnet_c._core.Channel",
    .basicsize = sizeof(ChannelObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Channel_slots,
};

int
xcpy_channel_setup(PyObject *module, xcpy_state *state)
{
    state->ChannelType = PyType_FromModuleAndSpec(module, &Channel_spec, NULL);
    if (state->ChannelType == NULL || PyModule_AddObjectRef(module, "Channel", state->ChannelType) < 0 ||
        PyObject_SetAttrString(state->ChannelType, "RemoteError", state->RemoteError) < 0 ||
        PyObject_SetAttrString(state->ChannelType, "TimeoutError", state->TimeoutError) < 0) {
        return -1;
    }
    return 0;
}
