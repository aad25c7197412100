/*
 * From a message that has arrived to the Python object in it.
 */
#include "item.h"

#include "channel.h"
#include "error.h"
#include "load.h"
#include "xc_opcodes.h"
#include "xc_pages.h"

/* For make_channel: the message holds the channels that it carries; they may have been closed meanwhile. */
struct source {
    GatewayObject *gateway;
    const xc_msg *msg;
    size_t next; /* the next of msg->carried: loading meets ids in the order of the scan */
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

/* A large bytes object that the pump has read: copies it in steps and gives back what is copied, so that it is never in
 * memory twice. */
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
    size_t head;
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
        /* The payload's last byte, STOP, was read to where the bytes object needs its closing 0. */
        if (msg->data[msg->size - 1] == XC_OP_STOP) {
            msg->data[msg->size - 1] = 0;
            result = msg->space;
            msg->space = NULL;
        }
        else {
            PyErr_Format(gateway->state->LoadError, "no STOP behind a bytes object of %zu bytes", msg->size - 1);
        }
    }
    else if (msg->size >= XC_BIG && (head = xc_scan_bytes(msg->data, msg->size)) > 0) {
        result = load_large_bytes(msg->data + head, msg->size - head - 1);
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
