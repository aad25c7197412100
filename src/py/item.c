/*
 * From a message that has arrived to the Python object in it.
 */
#include "item.h"

#include "channel.h"
#include "error.h"
#include "load.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"
#include "xc_pages.h"

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
