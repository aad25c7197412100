/*
 * What is sent goes out at once as far as the connection takes it; the writer keeps a copy of the rest, which the pump
 * or the next sender writes. So it stays in its order among all that the gateway sends.
 *
 * Who may wait elsewhere gives an fd: then nothing is sent beyond the channel's limit, nor while much waits to be
 * written. A Sending then has the encoded item and its place in the line of those who wait for credit, and is told by
 * that fd when to try again. It is on the heap because others look at what is in it.
 */
#include "soon.h"

#include "flow.h"
#include "io.h"
#include "xc_trace.h"

typedef struct {
    PyObject_HEAD GatewayObject *gateway; /* owned */
    ChannelObject *channel;               /* owned; NULL: it is no item of one */
    xc_code code;
    uint32_t id;
    xcpy_dumped frame;             /* owned */
    int fd;                        /* negative: it waits for nothing */
    unsigned long long number;     /* written to `fd` when to try again */
    xc_claim claim;                /* its place in the line for credit */
    xc_wait wait;                  /* for credit */
    xc_registration *registration; /* owned; waits for credit. NULL: it does not */
    xc_room room;                  /* waits for room in the connection */
    bool done;                     /* it was sent, or never will be */
} SendingObject;

/* --- one try -------------------------------------------------------------------------------------------------------
 */

static int
send_counted(SendingObject *self, uint64_t size, bool *sent)
{
    GatewayObject *gateway = self->gateway;
    struct iovec few[XCPY_STACK_PARTS], *parts;
    xc_err err = {.code = XC_OK};
    xc_status rc;
    int n = 0, result = 0;
    *sent = false;
    parts = xcpy_parts_of(&self->frame, few, &n);
    if (parts == NULL) {
        return -1;
    }
    if (size > XC_MAX_PAYLOAD) {
        xc_long_frame message = {.code = (uint8_t)self->code, .chan = self->id, .size = size};
        result = xcpy_send_message(gateway, &message, parts + 1, n, sent);
    }
    else {
        xc_writer *writer = xc_link_writer(gateway->link);
        xc_sending sending = {.parts = parts + 1, .n = n};
        xc_frame_pack(parts[1].iov_base, self->code, self->id, (uint32_t)size);
        if (size <= XCPY_SMALL_FRAME) {
            rc = xc_writer_send_soon(writer, &sending, &err);
        }
        else {
            Py_BEGIN_ALLOW_THREADS
                rc = xc_writer_send_soon(writer, &sending, &err);
            Py_END_ALLOW_THREADS
        }
        *sent = rc == XC_OK;
        if (*sent && xc_tracing()) {
            xc_trace_frame("sent", (uint8_t)self->code, self->id, size);
        }
        result = *sent ? 0 : xcpy_raise_unsent(gateway, &err);
    }
    if (parts != few) {
        PyMem_Free(parts);
    }
    return result;
}

/* No wait is begun any more. The caller has locked it. */
static void
end_wait(SendingObject *self)
{
    if (!xc_link_forked(self->gateway->link)) {
        if (self->registration != NULL) {
            xc_link_end_registration(self->gateway->link, self->registration);
        }
        xc_writer_forget_room(xc_link_writer(self->gateway->link), &self->room);
    }
    self->registration = NULL;
}

/* It leaves the line. The caller has locked it. */
static void
end(SendingObject *self)
{
    end_wait(self);
    if (self->channel != NULL && !xc_link_forked(self->gateway->link)) {
        (void)xc_link_unclaim(self->gateway->link, self->channel->chan, &self->claim);
    }
    self->done = true;
}

/* 1: it may be sent, and is counted. 0: it is told when to try again. -1. */
static int
get_room(SendingObject *self, uint64_t cost)
{
    xc_link *link = self->gateway->link;
    while (self->fd >= 0) {
        self->room = (xc_room){.fd = self->fd, .number = self->number};
        if (xc_writer_notify_room(xc_link_writer(link), &self->room)) {
            return 0;
        }
        if (self->channel == NULL || xcpy_count_sent(self->channel->chan, cost) ||
            xc_link_claim(link, self->channel->chan, &self->claim)) {
            return 1;
        }
        self->registration = xc_link_begin_registration(link, &self->wait, self->fd, self->number);
        if (self->registration == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (!xc_registration_over(link, self->registration)) {
            return 0;
        }
        end_wait(self);
    }
    if (self->channel != NULL && !xcpy_count_sent(self->channel->chan, cost)) {
        xc_link_sent_to(link, self->channel->chan, cost);
    }
    return 1;
}

/* 1: it is sent. 0: it is told when to try again. -1: it is not, and never will be. The caller has locked it. */
static int
try_again(SendingObject *self)
{
    uint64_t size = xcpy_dumped_size(&self->frame) - XC_HEADER_SIZE, cost = size + XC_ITEM_COST;
    bool sent = false;
    int result;
    if (self->done) {
        return 1;
    }
    end_wait(self);
    if (xcpy_check_usable(self->gateway) < 0) {
        self->done = true;
        return -1;
    }
    if (self->channel != NULL && atomic_load(&self->channel->chan->closed)) {
        PyErr_Format(PyExc_OSError, "cannot send to %R", self->channel);
        result = -1;
    }
    else {
        result = get_room(self, cost);
    }
    if (result == 1) {
        result = send_counted(self, size, &sent) < 0 ? -1 : 1;
        if (self->channel != NULL && !sent) {
            xc_link_unsent(self->gateway->link, self->channel->chan, cost);
        }
        if (sent) {
            xcpy_tell_limits(self->gateway, &self->frame);
        }
    }
    if (result != 0) {
        end(self);
    }
    return result;
}

/* --- the type ------------------------------------------------------------------------------------------------------
 */

static int
Sending_traverse(SendingObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->gateway);
    Py_VISIT(self->channel);
    return 0;
}

static int
Sending_clear(SendingObject *self)
{
    XCPY_LOCK(self);
    end(self);
    XCPY_UNLOCK();
    Py_CLEAR(self->channel);
    return 0;
}

static void
Sending_dealloc(SendingObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    end(self);
    xcpy_dumped_fini(&self->frame);
    Py_XDECREF(self->channel);
    Py_DECREF(self->gateway);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(again_doc, "again($self, /)\n--\n\n"
                        "Try once more. True: it is sent. False: the number will be written again. Raises as send().");

static PyObject *
Sending_again(SendingObject *self, PyObject *unused)
{
    int result;
    (void)unused;
    XCPY_LOCK(self);
    result = try_again(self);
    XCPY_UNLOCK();
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *
Sending_get_over(SendingObject *self, void *unused)
{
    bool over;
    (void)unused;
    if (xc_link_forked(self->gateway->link)) {
        Py_RETURN_TRUE;
    }
    XCPY_LOCK(self);
    over = self->registration != NULL ? xc_registration_over(self->gateway->link, self->registration)
                                      : xc_writer_room_over(xc_link_writer(self->gateway->link), &self->room);
    XCPY_UNLOCK();
    return PyBool_FromLong(over);
}

static PyMethodDef Sending_methods[] = {
    {"again", (PyCFunction)Sending_again, METH_NOARGS, again_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Sending_getset[] = {
    {"over", (getter)Sending_get_over, NULL, "It is time to try again, or it is sent.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Sending_slots[] = {
    {Py_tp_doc, "An item that is not sent yet. Made by _send_soon(). If it is dropped, the item is not sent."},
    {Py_tp_dealloc, Sending_dealloc},
    {Py_tp_traverse, Sending_traverse},
    {Py_tp_clear, Sending_clear},
    {Py_tp_methods, Sending_methods},
    {Py_tp_getset, Sending_getset},
    {0, NULL},
};

static PyType_Spec Sending_spec = {
    .name = "execnet_c._core.Sending",
    .basicsize = sizeof(SendingObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = Sending_slots,
};

int
xcpy_sending_setup(PyObject *module, xcpy_state *state)
{
    state->SendingType = PyType_FromModuleAndSpec(module, &Sending_spec, NULL);
    return state->SendingType == NULL ? -1 : 0;
}

/* --- methods ---------------------------------------------------------------------------------------------------------
 */

/* None if it is sent, else the Sending; or NULL. */
static PyObject *
send_soon(GatewayObject *gateway, ChannelObject *channel, xc_code code, uint32_t id, PyObject *item, int fd,
          unsigned long long number)
{
    PyTypeObject *type = (PyTypeObject *)gateway->state->SendingType;
    if (xcpy_check_usable(gateway) < 0) {
        return NULL;
    }
    SendingObject *self = (SendingObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->gateway = (GatewayObject *)Py_NewRef((PyObject *)gateway);
    self->channel = (ChannelObject *)Py_XNewRef((PyObject *)channel);
    self->code = code;
    self->id = id;
    self->fd = fd;
    self->number = number;
    int result = -1;
    if (xcpy_encode(gateway, channel, code, item, false, &self->frame) == 0) {
        self->claim = (xc_claim){.cost = xcpy_dumped_size(&self->frame) - XC_HEADER_SIZE + XC_ITEM_COST, .owner = self};
        if (channel != NULL) {
            self->wait = (xc_wait){.kind = XC_WAIT_CREDIT, .chan = channel->chan, .claim = &self->claim};
        }
        result = try_again(self);
    }
    if (result == 0) {
        return (PyObject *)self;
    }
    Py_DECREF(self);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(
    send_soon_doc,
    "_send_soon($self, item, fd=-1, number=0, /)\n--\n\n"
    "As send(), but it never waits, except for an item of 2 GiB or more. What the connection does not take now\n"
    "is copied, and goes out later, in its turn; the channel's limit is not looked at. So the caller is to have\n"
    "a bound.\n\n"
    "With `fd`, which must not block, the item is only sent within the limit, and while not much waits to be\n"
    "written. Returns None if it is sent. Else an object, as the item was now: when to try again the 8 bytes of\n"
    "`number` are written to `fd`, and its `over` is true. Then again() sends it, and is true, or it waits again.\n"
    "It stands in the line with those who wait in send(); when it is dropped nothing is sent.");

static PyObject *
Channel_send_soon(ChannelObject *self, PyObject *args)
{
    PyObject *item;
    int fd = -1;
    unsigned long long number = 0;
    if (!PyArg_ParseTuple(args, "O|iK:_send_soon", &item, &fd, &number)) {
        return NULL;
    }
    return send_soon(self->gateway, self, XC_DATA, self->chan->id, item, fd, number);
}

PyDoc_STRVAR(gateway_send_soon_doc, "_send_soon($self, code, id, item, fd=-1, number=0, /)\n--\n\n"
                                    "The same for a frame of that code, which is no item of a channel.");

static PyObject *
Gateway_send_soon(GatewayObject *self, PyObject *args)
{
    int code, fd = -1;
    long id;
    PyObject *item;
    unsigned long long number = 0;
    if (!PyArg_ParseTuple(args, "ilO|iK:_send_soon", &code, &id, &item, &fd, &number)) {
        return NULL;
    }
    return send_soon(self, NULL, (xc_code)code, (uint32_t)id, item, fd, number);
}

PyMethodDef xcpy_soon_methods[] = {
    {"_send_soon", (PyCFunction)Channel_send_soon, METH_VARARGS, send_soon_doc},
    {NULL, NULL, 0, NULL},
};

PyMethodDef xcpy_gateway_soon_methods[] = {
    {"_send_soon", (PyCFunction)Gateway_send_soon, METH_VARARGS, gateway_send_soon_doc},
    {NULL, NULL, 0, NULL},
};
