/*
 * The type Gateway, as far as it is mechanism: a link, the process behind it, and what Python code uses of them. Policy
 * (specs, sources, groups, the texts of errors) is in its subclass in execnet_c/near/gateway.py.
 */
#include "callbacks.h"
#include "channel.h"
#include "dump.h"
#include "error.h"
#include "flow.h"
#include "gateway_end.h"
#include "interrupt.h"
#include "io.h"
#include "item.h"
#include "methods.h"
#include "program.h"
#include "relay.h"
#include "rings.h"
#include "sockets.h"
#include "soon.h"
#include "stderr.h"
#include "tasks.h"
#include "warn.h"
#include "xc_exit_policy.h"

#include <stddef.h>
#include <unistd.h>

int
xcpy_check_usable(GatewayObject *gateway)
{
    xcpy_clear_left(gateway->state);
    if (gateway->link == NULL) {
        PyErr_SetString(PyExc_OSError, "the gateway was not started: make one with makegateway()");
        return -1;
    }
    if (xc_link_forked(gateway->link)) {
        PyErr_SetString(PyExc_OSError,
                        "the gateway belongs to the parent process: a forked child cannot use it, but can "
                        "make gateways of its own");
        return -1;
    }
    return 0;
}

/* --- life ----------------------------------------------------------------------------------------------------- */

static PyObject *
Gateway_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    xcpy_state *state = xcpy_state_of(type);
    if (state == NULL) {
        return NULL;
    }
    GatewayObject *self = (GatewayObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->region = (xc_region){.fd = -1};
    self->lent = XC_LENT_NOTHING;
    self->callbacks = PyDict_New();
    if (self->callbacks == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Gateway_traverse(GatewayObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dict);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->parking);
    return 0;
}

static int
Gateway_clear(GatewayObject *self)
{
    Py_CLEAR(self->dict);
    if (self->callbacks != NULL) {
        PyDict_Clear(self->callbacks);
    }
    return 0;
}

static void
Gateway_dealloc(GatewayObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (self->link != NULL) {
        /* Not at a worker: it ends with its link, or because something failed, which a goodbye would hide. */
        if (self->launch != NULL && !xc_link_forked(self->link)) {
            xc_link_goodbye(self->link);
        }
        xc_link_release(self->link);
    }
    xc_launch_release(self->launch);
    xc_region_close(&self->region);
    xc_lent_close(&self->lent);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->parking);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- starting ------------------------------------------------------------------------------------------------- */

static xc_link_opts
link_opts(xcpy_state *state, bool worker)
{
    return (xc_link_opts){
        .worker = worker,
        .marked = !worker,
        .orphan_error = xcpy_orphan_error,
        .drop_space = xcpy_drop_space_later,
        .arg = state->left,
    };
}

bool
xcpy_may_start(GatewayObject *self, xc_link_opts *opts)
{
    if (self->link != NULL) {
        PyErr_SetString(PyExc_OSError, "the gateway was started before");
        return false;
    }
    *opts = link_opts(self->state, false);
    return true;
}

PyDoc_STRVAR(
    start_doc,
    "_start($self, argv, hello, /)\n--\n\n"
    "Start `argv` on pipes and send it `hello`, unless that is None. Returns once it has exec'd. The far end is to\n"
    "write MARKER before its first frame: up to 64 KiB that come before are passed over.\n"
    "Raises OSError: no such program, no fds.");

static PyObject *
Gateway_start(GatewayObject *self, PyObject *args)
{
    PyObject *py_argv, *hello;
    xc_link_opts opts;
    xc_err err;
    if (!PyArg_ParseTuple(args, "OO:_start", &py_argv, &hello)) {
        return NULL;
    }
    if (!xcpy_may_start(self, &opts)) {
        return NULL;
    }
    xc_program *program = xcpy_make_program(py_argv);
    if (program == NULL) {
        return NULL;
    }
    xc_status rc;
    opts.region = self->region.map != NULL ? &self->region : NULL;
    Py_BEGIN_ALLOW_THREADS
        rc = xc_launch_start(program, &opts, self->listens, &self->lent, &self->launch, &self->link, &err);
    Py_END_ALLOW_THREADS
    xc_program_free(program);
    if (rc != XC_OK) {
        return xcpy_raise(self->state, &err);
    }
    if (hello != Py_None && xcpy_send(self, XC_HELLO, 0, hello) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(serve_doc,
             "_serve($self, fd_in, fd_out, fd_memory=-1, /)\n--\n\n"
             "Be the far end over these fds, which are taken: tasks are accepted, and the process ends with the\n"
             "connection. `fd_memory`: what the other side's _share() made. Raises DataFormatError where that is no\n"
             "such memory, OSError where it cannot be mapped.");

static PyObject *
Gateway_serve(GatewayObject *self, PyObject *args)
{
    int in, out, memory = -1;
    xc_err err;
    if (!PyArg_ParseTuple(args, "ii|i:_serve", &in, &out, &memory)) {
        return NULL;
    }
    xc_link_opts opts = link_opts(self->state, true);
    self->is_worker = true;
    if (memory >= 0) {
        if (xc_region_attach(memory, &self->region, &err) != XC_OK) {
            close(in);
            close(out);
            return xcpy_raise(self->state, &err);
        }
        opts.region = &self->region;
    }
    self->link = xc_link_new(&opts, in, out, &err);
    if (self->link == NULL) {
        return xcpy_raise(self->state, &err);
    }
    xc_link_hold(self->link); /* never released: the link ends this process, even if only threads are left in it */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(hello_doc,
             "_hello($self, timeout, /)\n--\n\n"
             "The next hello of the far end; None if none comes any more (the connection has ended), or none has come\n"
             "for `timeout` seconds. Four may wait to be taken, a fifth ends the connection.");

static PyObject *
Gateway_hello(GatewayObject *self, PyObject *timeout)
{
    xc_wait wait = {.kind = XC_WAIT_HELLO};
    if (xcpy_begin_wait(self, timeout, &wait) < 0) {
        return NULL;
    }
    for (int64_t until = wait.until;; wait.until = until) {
        int waited = xcpy_wait(self, &wait);
        if (waited < 0) {
            return NULL;
        }
        xc_link_state state;
        xc_link_get_state(self->link, &state); /* before the check for a hello: after the end none comes */
        xc_msg *msg = xc_link_take_hello(self->link);
        if (msg != NULL) {
            return xcpy_load_item(self, msg, NULL);
        }
        if (waited == 1 || state.fin) {
            Py_RETURN_NONE;
        } /* else another thread took it */
    }
}

/* --- channels and frames -------------------------------------------------------------------------------------- */

PyDoc_STRVAR(newchannel_doc,
             "newchannel($self, /)\n--\n\n"
             "A new channel, independent of any task: send it through another channel to have somebody at its\n"
             "other end. Raises OSError when the connection has ended.");

static PyObject *
Gateway_newchannel(GatewayObject *self, PyObject *unused)
{
    xc_chan *chan;
    xc_err err;
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    xc_status rc = xc_link_new_chan(self->link, &chan, &err);
    if (rc == XC_CLOSED) {
        return xcpy_raise_ended(self, true);
    }
    if (rc != XC_OK) {
        return xcpy_raise(self->state, &err);
    }
    return xcpy_channel_of(self, chan);
}

PyDoc_STRVAR(send_doc, "_send($self, code, id, item=NO_PAYLOAD, /)\n--\n\n"
                       "Send a frame of that code whose payload is the encoding of `item`. Raises as Channel.send.");

static PyObject *
Gateway_send(GatewayObject *self, PyObject *args)
{
    int code;
    long id;
    PyObject *item = NULL;
    if (!PyArg_ParseTuple(args, "il|O:_send", &code, &id, &item) || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (xcpy_send(self, (xc_code)code, (uint32_t)id, item) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(write_doc, "_write($self, data, /)\n--\n\n"
                        "Send these bytes as they are, in their turn among the frames: whole, or after an interrupt\n"
                        "by whoever writes next. Raises as Channel.send.");

static PyObject *
Gateway_write(GatewayObject *self, PyObject *data)
{
    Py_buffer view;
    if (xcpy_check_usable(self) < 0 || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int sent = xcpy_send_raw(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (sent < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Gateway_set_coerce(GatewayObject *self, PyObject *arg)
{
    long bits = PyLong_AsLong(arg);
    if ((bits == -1 && PyErr_Occurred()) || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    xc_link_set_coerce(self->link, NULL, (int)bits & 7);
    Py_RETURN_NONE;
}

/* --- what a worker says of itself --------------------------------------------------------------------------- */

PyDoc_STRVAR(set_facts_doc, "_set_facts($self, facts, /)\n--\n\n"
                            "Answer a status request that has a payload with this dict, and the current directory of\n"
                            "that moment as its `cwd`.");

static PyObject *
Gateway_set_facts(GatewayObject *self, PyObject *facts)
{
    xcpy_dumped dumped = {.n_pins = 0};
    xc_status rc = XC_OK;
    xc_err err;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (!PyDict_CheckExact(facts)) {
        return PyErr_Format(PyExc_TypeError, "facts must be a dict, not %.200s", Py_TYPE(facts)->tp_name);
    }
    int made = xcpy_dump(self->state, facts, 0, &dumped);
    if (made == 0) {
        rc = xc_link_set_facts(self->link, xc_buf_head(&dumped.buf), xc_buf_size(&dumped.buf), &err);
    }
    xcpy_dumped_fini(&dumped);
    if (made < 0) {
        return NULL;
    }
    if (rc != XC_OK) {
        return xcpy_raise(self->state, &err);
    }
    Py_RETURN_NONE;
}

static PyObject *
Gateway_wait_idle(GatewayObject *self, PyObject *timeout)
{
    PyObject *idle = xcpy_wait_for(self, XC_WAIT_IDLE, timeout);
    if (idle == Py_True) {
        xcpy_have_threads_end();
    }
    return idle;
}

/* --- the execution model (at a worker) ------------------------------------------------------------------------ */

static PyObject *
Gateway_get_model(GatewayObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(xc_model_name(self->link == NULL ? XC_MODEL_THREAD : xc_link_model(self->link)));
}

static int
Gateway_set_model(GatewayObject *self, PyObject *name, void *unused)
{
    (void)unused;
    if (name == NULL || !PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "an execution model is named by a str");
        return -1;
    }
    if (xcpy_check_usable(self) < 0) {
        return -1;
    }
    for (xc_model model = 0; model < XC_MODELS; model++) {
        if (PyUnicode_CompareWithASCIIString(name, xc_model_name(model)) == 0) {
            xc_link_set_model(self->link, model);
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "unknown execmodel %R", name);
    return -1;
}

/* --- the type ------------------------------------------------------------------------------------------------- */

static PyObject *
Gateway_get_broke(GatewayObject *self, void *unused)
{
    (void)unused;
    if (self->link == NULL || xc_link_forked(self->link)) {
        Py_RETURN_FALSE;
    }
    xc_link_state state;
    xc_link_get_state(self->link, &state);
    return PyBool_FromLong(xc_exit_policy_is_ours(&state.ended_by));
}

static int
Gateway_set_words(GatewayObject *self, PyObject *fd, void *unused)
{
    (void)unused;
    if (fd == NULL) {
        PyErr_SetString(PyExc_TypeError, "it cannot be deleted");
        return -1;
    }
    int number = PyObject_AsFileDescriptor(fd);
    if (number < 0 || xcpy_check_usable(self) < 0) {
        return -1;
    }
    xc_link_set_words(self->link, number);
    return 0;
}

static PyGetSetDef Gateway_getset[] = {
    {"_words", NULL, (setter)Gateway_set_words, "The fd on which it says why, if that is not to be stderr.", NULL},
    {"_broke", (getter)Gateway_get_broke, NULL, "Whether the connection has ended for a fault of this side.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_model", (getter)Gateway_get_model, (setter)Gateway_set_model,
     "The name of the execution model. With \"main_thread_only\" tasks are for the main thread alone and are refused\n"
     "when they wait too long for it. To be set before the first _next_task().",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Gateway_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(GatewayObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(GatewayObject, weakrefs), READONLY, NULL},
    {"_pickles", T_BOOL, offsetof(GatewayObject, pickles), 0,
     "Whether items that cannot be sent otherwise are pickled, and pickles of the far end are loaded."},
    {"_parking", T_OBJECT, offsetof(GatewayObject, parking), 0,
     "None, or how greenlets wait: see execnet_c/models/greenlets.py, and src/py/park.c for what it is asked."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef Gateway_methods[] = {
    {"_start", (PyCFunction)Gateway_start, METH_VARARGS, start_doc},
    {"_serve", (PyCFunction)Gateway_serve, METH_VARARGS, serve_doc},
    {"_hello", (PyCFunction)Gateway_hello, METH_O, hello_doc},
    {"newchannel", (PyCFunction)Gateway_newchannel, METH_NOARGS, newchannel_doc},
    {"_send", (PyCFunction)Gateway_send, METH_VARARGS, send_doc},
    {"_write", (PyCFunction)Gateway_write, METH_O, write_doc},
    {"_set_coerce", (PyCFunction)Gateway_set_coerce, METH_O, NULL},
    {"_set_facts", (PyCFunction)Gateway_set_facts, METH_O, set_facts_doc},
    {"_wait_idle", (PyCFunction)Gateway_wait_idle, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Gateway_slots[] = {
    {Py_tp_doc, "Gateway()\n--\n\nThe mechanism of a gateway: a connection and the process at its other end."},
    {Py_tp_new, Gateway_new},
    {Py_tp_dealloc, Gateway_dealloc},
    {Py_tp_traverse, Gateway_traverse},
    {Py_tp_clear, Gateway_clear},
    {Py_tp_methods, Gateway_methods},
    {Py_tp_members, Gateway_members},
    {Py_tp_getset, Gateway_getset},
    {0, NULL},
};

static PyType_Spec Gateway_spec = {
    .name = "execnet_c._core.Gateway",
    .basicsize = sizeof(GatewayObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = Gateway_slots,
};

int
xcpy_gateway_setup(PyObject *module, xcpy_state *state)
{
    state->GatewayType = PyType_FromModuleAndSpec(module, &Gateway_spec, NULL);
    if (state->GatewayType == NULL || PyModule_AddObjectRef(module, "Gateway", state->GatewayType) < 0) {
        return -1;
    }
    PyMethodDef *const more[] = {xcpy_callback_methods,    xcpy_end_methods,    xcpy_relay_methods,
                                 xcpy_ring_methods,        xcpy_socket_methods, xcpy_stderr_methods,
                                 xcpy_task_methods,        xcpy_flow_methods,   xcpy_interrupting_methods,
                                 xcpy_gateway_soon_methods};
    int added = 0;
    for (size_t i = 0; added == 0 && i < sizeof more / sizeof *more; i++) {
        added = xcpy_add_methods(state->GatewayType, more[i]);
    }
    return added;
}
