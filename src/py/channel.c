/*
 * The type Channel: items to and from the far end, over one channel of the link. Programs subclass it, replace its
 * methods and set attributes on its instances, as with execnet's.
 */
#include "aio.h"
#include "args.h"
#include "callbacks.h"
#include "error.h"
#include "flow.h"
#include "interrupt.h"
#include "io.h"
#include "methods.h"
#include "receive.h"
#include "soon.h"

#include <stddef.h>

/* --- life ----------------------------------------------------------------------------------------------------- */

static bool
keep(void *object)
{
    return xcpy_keep(object);
}

/* The object of the channel; a new one of `type` if there is none: then *made. Takes one count of `chan`. New reference
 * or NULL. */
static PyObject *
object_of(PyTypeObject *type, GatewayObject *gateway, xc_chan *chan, bool *made)
{
    PyObject *object = xc_link_object(gateway->link, chan, NULL, keep);
    ChannelObject *self = object == NULL ? (ChannelObject *)type->tp_alloc(type, 0) : NULL;
    *made = false;
    if (self == NULL) {
        xc_link_drop_chan(gateway->link, chan);
        return object;
    }
    self->state = gateway->state;
    self->gateway = (GatewayObject *)Py_NewRef((PyObject *)gateway);
    self->chan = chan;
    xcpy_may_be_kept((PyObject *)self);
    object = xc_link_object(gateway->link, chan, self, keep);
    *made = object == (PyObject *)self;
    if (!*made) { /* the garbage collector, or another thread, has run just now and made one */
        Py_DECREF(self);
    }
    return object;
}

PyObject *
xcpy_channel_of(GatewayObject *gateway, xc_chan *chan)
{
    bool made;
    return object_of((PyTypeObject *)gateway->state->ChannelType, gateway, chan, &made);
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
    bool made;
    PyObject *object = object_of(type, (GatewayObject *)gateway, chan, &made);
    if (object != NULL && !made) {
        Py_DECREF(object);
        return PyErr_Format(PyExc_ValueError, "the gateway has a channel with id %u already", id);
    }
    return object;
}

static int
Channel_traverse(ChannelObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dict);
    Py_VISIT(self->gateway);
    return 0;
}

/* Does not clear the gateway: deallocation needs its link, and it is enough to break the cycle at another place. */
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
    /* First, because code called below may receive an item that carries the channel, and make a new object for it. */
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

PyDoc_STRVAR(
    send_doc,
    "send($self, /, item, *, timeout=None)\n--\n\n"
    "Send `item` to the other side, by value.\n\n"
    "None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset and channels, nested as\n"
    "you like. Returns when it is handed to the system; the far end need not have received it. Where the\n"
    "channel has a limit (see set_limit) it first waits for room, `timeout` seconds at most (None: as long as\n"
    "it takes).\n"
    "When a signal handler raises meanwhile, an item whose sending has begun is still delivered, once and\n"
    "whole; one that waited behind another thread's is not sent.\n"
    "Raises DumpError (what cannot be sent, and where in the item it sits), TimeoutError when there was no\n"
    "room, and OSError when the channel or the connection is closed (GatewayDied says how the far end ended).");

static inline PyObject *
send_as(ChannelObject *self, const char *method, bool pickled, PyObject *const *args, Py_ssize_t nargs,
        PyObject *kwnames)
{
    static const char *const names[] = {"item", "timeout"};
    PyObject *given[] = {nargs > 0 ? args[0] : NULL, Py_None}; /* borrowed: item, timeout */
    int64_t until = XC_FOREVER;
    int at_most = nargs > 1 ? 1 : 2; /* the timeout only by its name: execnet refuses a second argument */
    bool plain = nargs == 1 && kwnames == NULL;
    if ((!plain && xcpy_args(method, names, at_most, 1, args, nargs, kwnames, given) < 0) ||
        xcpy_check_usable(self->gateway) < 0 || (given[1] != Py_None && xcpy_deadline(given[1], false, &until) < 0)) {
        return NULL;
    }
    if (atomic_load_explicit(&self->chan->closed, memory_order_relaxed)) { /* no mutex, which takes time */
        return PyErr_Format(PyExc_OSError, "cannot send to %R", self);
    }
    if (xcpy_send_item(self, given[0], pickled, given[1], until) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Channel_send(ChannelObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return send_as(self, "send", false, args, nargs, kwnames);
}

PyDoc_STRVAR(
    send_pickled_doc,
    "send_pickled($self, /, item, *, timeout=None)\n--\n\n"
    "As send(), for any object that pickle takes: an array, a dataclass, an enum, an exception. Its buffers\n"
    "(protocol 5) are not copied on the way: the other side's object has them where they arrived, writable if they\n"
    "were so here, and at addresses that are multiples of 64. Channels may be in it.\n"
    "A worker loads pickles of the process that started it. That process loads those of the worker only if the\n"
    "gateway's spec has payload=pickle; else its receive() raises LoadError, and nothing of the pickle has run.\n"
    "Raises DumpError for what cannot be pickled, and for a far end of another version; else as send().");

static PyObject *
Channel_send_pickled(ChannelObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return send_as(self, "send_pickled", true, args, nargs, kwnames);
}

PyDoc_STRVAR(close_doc,
             "close($self, /, error=None)\n--\n\n"
             "Close the channel for both sides; with `error`, the other side's next receive() or waitclose()\n"
             "raises RemoteError with it. What was sent before is still received there. Closing a closed channel\n"
             "does nothing. Raises OSError for the channel of a task inside that task: it is closed by its end.");

/* A text can be sent in any case: characters that UTF-8 does not have are escaped. */
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
        PyErr_Clear(); /* the connection has ended: the exception that left the block says more */
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
             "reconfigure($self, /, py2str_as_py3str=True, py3str_as_py2str=False, *, strict=True)\n--\n\n"
             "Set the string coercion of this channel at both ends: what a Python 2 str arrives as (str, or bytes if\n"
             "false), and whether a str arrives as bytes. With strict=False, enums are sent as their values, and\n"
             "instances of subclasses of str, int, float, list, tuple, dict, set and frozenset as those.");

static PyObject *
Channel_reconfigure(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"py2str_as_py3str", "py3str_as_py2str", "strict", NULL};
    int py2 = 1, py3 = 0, strict = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pp$p:reconfigure", names, &py2, &py3, &strict) ||
        xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    PyObject *config =
        Py_BuildValue(strict ? "(OO)" : "(OOO)", py2 ? Py_True : Py_False, py3 ? Py_True : Py_False, Py_True);
    if (config == NULL) {
        return NULL;
    }
    xc_link_set_coerce(self->gateway->link, self->chan, py2 | py3 << 1 | (strict ? 0 : XC_NOT_STRICT));
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
    PyObject *mode = NULL, *proxyclose = Py_False;                  /* both borrowed from the arguments */
    PyObject *py_default = NULL, *py_module = NULL, *result = NULL; /* all owned */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:makefile", names, &mode, &proxyclose)) {
        return NULL;
    }
    if (mode == NULL && (mode = py_default = PyUnicode_FromString("w")) == NULL) {
        goto done;
    }
    py_module = PyImport_ImportModule("execnet_c.common.channelfile");
    if (py_module == NULL) {
        goto done;
    }
    result = PyObject_CallMethod(py_module, "make", "OOO", (PyObject *)self, mode, proxyclose);
done:
    Py_XDECREF(py_module);
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
    {"_starts_task", T_BOOL, offsetof(ChannelObject, starts_task), 0, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(ChannelObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ChannelObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef Channel_methods[] = {
    {"send", (PyCFunction)(void (*)(void))Channel_send, METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"send_pickled", (PyCFunction)(void (*)(void))Channel_send_pickled, METH_FASTCALL | METH_KEYWORDS,
     send_pickled_doc},
    {"close", (PyCFunction)(void (*)(void))Channel_close, METH_VARARGS | METH_KEYWORDS, close_doc},
    {"__enter__", (PyCFunction)Channel_enter, METH_NOARGS, enter_doc},
    {"__exit__", (PyCFunction)Channel_exit, METH_VARARGS, exit_doc},
    {"setcallback", (PyCFunction)(void (*)(void))Channel_setcallback, METH_VARARGS | METH_KEYWORDS, setcallback_doc},
    {"reconfigure", (PyCFunction)(void (*)(void))Channel_reconfigure, METH_VARARGS | METH_KEYWORDS, reconfigure_doc},
    {"makefile", (PyCFunction)(void (*)(void))Channel_makefile, METH_VARARGS | METH_KEYWORDS, makefile_doc},
    {"isclosed", (PyCFunction)Channel_isclosed, METH_NOARGS,
     "isclosed($self, /)\n--\n\nTrue if the channel is closed. It may still hold items to receive."},
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
    {Py_tp_iternext, xcpy_channel_next},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, xcpy_channel_anext},
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
        xcpy_add_methods(state->ChannelType, xcpy_receive_methods) < 0 ||
        xcpy_add_methods(state->ChannelType, xcpy_limit_methods) < 0 ||
        xcpy_add_methods(state->ChannelType, xcpy_soon_methods) < 0 ||
        xcpy_add_methods(state->ChannelType, xcpy_aio_methods) < 0 ||
        xcpy_add_methods(state->ChannelType, xcpy_interrupt_methods) < 0 ||
        PyObject_SetAttrString(state->ChannelType, "RemoteError", state->RemoteError) < 0 ||
        PyObject_SetAttrString(state->ChannelType, "TimeoutError", state->TimeoutError) < 0) {
        return -1;
    }
    return 0;
}
