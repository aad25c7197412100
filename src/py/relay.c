/*
 * Gateways through other gateways, as far as they are mechanism: both ends of a relay (see ../core/start/xc_relay.h).
 * Policy is in execnet_c/near/via.py.
 */
#include "relay.h"

#include "channel.h"
#include "dump.h"
#include "error.h"
#include "io.h"
#include "program.h"
#include "xc_relay.h"
#include "xc_trace.h"

PyDoc_STRVAR(start_over_doc,
             "_start_over($self, stream, /)\n--\n\n"
             "Be connected through `stream`, a channel of another gateway that carries the bytes of a far end: see\n"
             "_relay(). The far end is to write MARKER before its first frame.");

static PyObject *
Gateway_start_over(GatewayObject *self, PyObject *args)
{
    ChannelObject *stream;
    xc_status rc;
    xc_link_opts opts;
    xc_err err;
    if (!PyArg_ParseTuple(args, "O!:_start_over", self->state->ChannelType, &stream) ||
        xcpy_check_usable(stream->gateway) < 0) {
        return NULL;
    }
    if (!xcpy_may_start(self, &opts)) {
        return NULL;
    }
    rc = xc_relay_link(stream->gateway->link, stream->chan, &opts, &self->link, &err);
    if (rc != XC_OK) {
        return xcpy_raise(self->state, &err);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(relay_doc,
             "_relay($self, stream, control, argv, /)\n--\n\n"
             "Start `argv` with the channel `stream` as its standard input and output, and return its process id. An\n"
             "int that comes on the channel `control` is a signal for it. When it has ended, (status or None, end of\n"
             "its stderr) goes out there, and that channel is closed. Raises OSError: no such program, no fds.");

static PyObject *
Gateway_relay(GatewayObject *self, PyObject *args)
{
    ChannelObject *stream, *control;
    PyObject *py_argv;
    PyObject *type = self->state->ChannelType;
    xc_err err;
    if (!PyArg_ParseTuple(args, "O!O!O:_relay", type, &stream, type, &control, &py_argv) ||
        xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (stream->gateway != self || control->gateway != self) {
        PyErr_SetString(PyExc_ValueError, "the channels must be this gateway's");
        return NULL;
    }
    xc_program *program = xcpy_make_program(py_argv);
    if (program == NULL) {
        return NULL;
    }
    pid_t pid = 0;
    xc_status rc;
    Py_BEGIN_ALLOW_THREADS
        rc = xc_relay_process(self->link, stream->chan, control->chan, program, &pid, &err);
    Py_END_ALLOW_THREADS
    xc_program_free(program);
    return rc == XC_OK ? PyLong_FromLong(pid) : xcpy_raise(self->state, &err);
}

PyDoc_STRVAR(post_doc,
             "_post($self, code, id, item, /)\n--\n\n"
             "Have a frame of that code sent soon whose payload is the encoding of `item`. Never blocks, and\n"
             "does nothing when the connection has ended.");

static PyObject *
Gateway_post(GatewayObject *self, PyObject *args)
{
    static const unsigned char room[XC_HEADER_SIZE];
    int code;
    long id;
    PyObject *item, *result = NULL;
    xcpy_dumped frame = {.n_pins = 0};
    if (!PyArg_ParseTuple(args, "ilO:_post", &code, &id, &item) || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (xc_buf_add(&frame.buf, room, sizeof room) != XC_OK) {
        PyErr_NoMemory();
        goto done;
    }
    if (xcpy_dump(self->state, item, 0, &frame) < 0) {
        goto done;
    }
    size_t size = xcpy_dumped_size(&frame);
    if (size - XC_HEADER_SIZE > XC_MAX_PAYLOAD) {
        PyErr_SetString(self->state->DumpError, "the item is too large for a message");
        goto done;
    }
    unsigned char *head = frame.buf.data + frame.buf.start;
    xc_frame_pack(head, (xc_code)code, (uint32_t)id, (uint32_t)(size - XC_HEADER_SIZE));
    if (code == XC_DATA) {
        xc_link_sent(self->link, (uint32_t)id, size - XC_HEADER_SIZE + XC_ITEM_COST);
    }
    xc_status rc = xc_writer_post(xc_link_writer(self->link), head, size);
    if (rc == XC_NOMEM) {
        PyErr_NoMemory();
        goto done;
    }
    if (rc == XC_OK && xc_tracing()) {
        xc_trace_frame("sent", (uint8_t)code, (uint32_t)id, size - XC_HEADER_SIZE);
    }
    result = Py_NewRef(Py_None);
done:
    xcpy_dumped_fini(&frame);
    return result;
}

PyMethodDef xcpy_relay_methods[] = {
    {"_post", (PyCFunction)Gateway_post, METH_VARARGS, post_doc},
    {"_start_over", (PyCFunction)Gateway_start_over, METH_VARARGS, start_over_doc},
    {"_relay", (PyCFunction)Gateway_relay, METH_VARARGS, relay_doc},
    {NULL, NULL, 0, NULL},
};
