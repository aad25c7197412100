/*
 * From a message that has arrived to the Python object in it.
 */
#include "item.h"

#include "channel.h"
#include "error.h"
#include "load.h"
#include "pickled.h"
#include "xc_opcodes.h"
#include "xc_pages.h"
#include "xc_pickle.h"

/* For make_channel: the message holds the channels that it carries; they may have been closed meanwhile. */
struct source {
    GatewayObject *gateway;
    xc_msg *msg;
    size_t next;      /* the next of msg->carried: loading meets ids in the order of the scan */
    PyObject *memory; /* owned or NULL: the message's memory, see own() */
    bool moved;       /* it owns that */
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

/* For a pickle: its buffers will be parts of this memory. */
static PyObject *
own(void *arg, bool aligned)
{
    struct source *source = arg;
    xcpy_state *state = source->gateway->state;
    xc_msg *msg = source->msg;
    unsigned char *data = msg->data;
    bool moves = !aligned || (uintptr_t)data % XC_PICKLE_ALIGN == 0;
    void *block = moves ? msg : xc_alloc(msg->size + XC_PICKLE_ALIGN);
    if (block == NULL) {
        return PyErr_NoMemory();
    }
    if (!moves) {
        data = (unsigned char *)block + (xc_pickle_align((uintptr_t)block) - (uintptr_t)block);
        memcpy(data, msg->data, msg->size);
    }
    source->memory = xcpy_memory(state, block, data, msg->size);
    source->moved = moves && source->memory != NULL;
    if (source->memory == NULL && !moves) {
        xc_free(block);
    }
    Py_XINCREF(source->memory);
    return source->memory;
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

/* Whether a signal handler has raised within code of the program's that a pickle has called. */
static bool
was_interrupted(const struct source *source)
{
    return source->memory != NULL && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception);
}

/* The message goes back to its channel: a copy, because what was made of its memory may still be there. Without memory
 * for that the item is lost. */
static void
put_back(const struct source *source, xc_chan *chan)
{
    xc_msg *msg = source->msg, *copy = xc_msg_new(msg->code, msg->chan, msg->size);
    if (copy != NULL) {
        memcpy(copy->data, msg->data, msg->size);
        xc_link_put_back(source->gateway->link, chan, msg, copy);
    }
}

/* The end of a load: who frees the message's memory. */
static void
let_go(const struct source *source)
{
    if (source->moved) {
        xc_link_strip_msg(source->gateway->link, source->msg);
    }
    else {
        xc_link_free_msg(source->gateway->link, source->msg);
    }
    Py_XDECREF(source->memory);
}

PyObject *
xcpy_load_item(GatewayObject *gateway, xc_msg *msg, xc_chan *chan)
{
    struct source source = {gateway, msg, 0, NULL, false};
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
        xcpy_load_opts opts = {
            .state = gateway->state,
            .strconfig = {.py2str_as_py3str = (msg->coerce & XC_PY2STR_AS_PY3STR) != 0,
                          .py3str_as_py2str = (msg->coerce & XC_PY3STR_AS_PY2STR) != 0},
            .make_channel = make_channel,
            .own = gateway->is_worker || gateway->pickles ? own : NULL,
            .arg = &source,
        };
        result = xcpy_load(&opts, msg->data, msg->size, 0);
        if (result == NULL && chan != NULL && was_interrupted(&source)) {
            put_back(&source, chan);
        }
    }
    if (msg->space != NULL) {
        Py_DECREF((PyObject *)msg->space);
        msg->space = NULL;
    }
    let_go(&source);
    return result;
}

PyObject *
xcpy_remote_error(GatewayObject *gateway, xc_msg *msg)
{
    return xcpy_remote_error_of(gateway->state, xcpy_load_item(gateway, msg, NULL));
}
