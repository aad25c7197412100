/*
 * Callbacks: items that are passed to a function instead of being received.
 *
 * Order, as in execnet: one callback of a gateway runs at a time, and nothing that arrived after its item is handed out
 * before it has returned. The link keeps later frames in its backlog; the thread with the dispatcher role works it off.
 * That is the gateway's callback thread (started with the first callback), or the thread inside setcallback() while it
 * hands out what is already queued. gateway->callbacks has the Python objects for this. Who takes an entry out of it,
 * of all that want to, is the one who calls the callback for the last time.
 */
#include "callbacks.h"

#include "dump.h"
#include "error.h"
#include "io.h"
#include "item.h"
#include "park.h"

static PyObject *
key_of(xc_chan *chan)
{
    return PyLong_FromUnsignedLong(chan->id);
}

/* The (callback, endmarker) of a channel, new reference; NULL without an exception: there is none. */
static PyObject *
find_entry(GatewayObject *gateway, xc_chan *chan)
{
    PyObject *key = key_of(chan);
    PyObject *entry = key == NULL ? NULL : xcpy_dict_get(gateway->callbacks, key);
    PyErr_Clear();
    Py_XDECREF(key);
    return entry;
}

/* The same, and takes it out. */
static PyObject *
take_entry(GatewayObject *gateway, xc_chan *chan)
{
    PyObject *key = key_of(chan);
    PyObject *entry = key == NULL ? NULL : xcpy_dict_pop(gateway->callbacks, key);
    PyErr_Clear();
    Py_XDECREF(key);
    return entry;
}

static int
call(PyObject *callback, PyObject *item)
{
    PyObject *result = PyObject_CallOneArg(callback, item);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Removes the callback, then calls it for the last time. */
void
xcpy_end_callback(GatewayObject *gateway, xc_chan *chan)
{
    PyObject *entry = take_entry(gateway, chan);
    if (entry == NULL) {
        return;
    }
    PyObject *callback = PyTuple_GET_ITEM(entry, 0), *endmarker = PyTuple_GET_ITEM(entry, 1);
    if (endmarker != gateway->state->no_endmarker && call(callback, endmarker) < 0) {
        PyErr_WriteUnraisable(callback);
    }
    Py_DECREF(entry);
    xc_link_end_callback(gateway->link, chan);
}

PyObject *
xcpy_tell_error(void)
{
    PyObject *exc = xcpy_take_cause();
    PyObject *errors = PyImport_ImportModule("execnet_c.common.errors");
    PyObject *told = errors == NULL ? NULL : PyObject_CallMethod(errors, "told", "O", exc);
    if (told == NULL) {
        PyErr_Clear();
        told = PyUnicode_FromFormat("%s: more could not be told", Py_TYPE(exc)->tp_name);
    }
    PyErr_Clear();
    Py_XDECREF(errors);
    Py_XDECREF(exc);
    return told;
}

/* A message like that with which the far end would have closed the channel. If there is no memory, one with an empty
 * payload, which counts as an error text that cannot be read. */
static xc_msg *
error_message(GatewayObject *gateway, xc_chan *chan, PyObject *told)
{
    xcpy_dumped dumped = {.n_pins = 0};
    xc_msg *msg = NULL;
    if (told != NULL && xcpy_dump(gateway->state, told, 0, &dumped) == 0) {
        msg = xc_msg_new(XC_CLOSE_ERROR, chan->id, xc_buf_size(&dumped.buf));
    }
    if (msg != NULL) {
        memcpy(msg->data, xc_buf_head(&dumped.buf), msg->size);
    }
    else {
        msg = xc_msg_new(XC_CLOSE_ERROR, chan->id, 0);
    }
    PyErr_Clear();
    xcpy_dumped_fini(&dumped);
    return msg;
}

/* The callback has raised: closes the channel, and tells both sides why. */
static void
fail_callback(GatewayObject *gateway, xc_chan *chan)
{
    PyObject *told = xcpy_tell_error();
    bool tell;
    if (told == NULL || xcpy_send(gateway, XC_CLOSE_ERROR, chan->id, told) < 0) {
        PyErr_Clear();
        /* There is no memory, or the far end is gone. This side still learns the error, below. */
        xc_link_post_error(gateway->link, chan->id, "a callback has failed: more could not be told");
    }
    xcpy_end_callback(gateway, chan);
    (void)xc_link_close_chan(gateway->link, chan, &tell, error_message(gateway, chan, told));
    Py_XDECREF(told);
}

/* --- the role ------------------------------------------------------------------------------------------------- */

/* The dispatcher role belongs to a thread. On a thread that greenlets share, only one of them has it: `role_greenlet`,
 * which is set as long as such a thread has the role, and used by who has it. */

/* 1: the caller has the role, to be given back by leave_role(gateway, *before). 0: somebody else has it. -1: an
 * exception. */
static int
enter_role(GatewayObject *gateway, PyObject **before)
{
    PyObject *who = xcpy_who(gateway);
    if (who == NULL) {
        return -1;
    }
    bool entered = xc_link_dispatch_enter(gateway->link) == XC_OK;
    if (entered && gateway->role_greenlet != NULL && gateway->role_greenlet != who) {
        xc_link_dispatch_leave(gateway->link);
        entered = false;
    }
    if (!entered) {
        Py_DECREF(who);
        return 0;
    }
    *before = gateway->role_greenlet;
    gateway->role_greenlet = who;
    if (who == Py_None) {
        gateway->role_greenlet = NULL;
        Py_DECREF(who);
    }
    return 1;
}

static void
leave_role(GatewayObject *gateway, PyObject *before)
{
    PyObject *who = gateway->role_greenlet;
    gateway->role_greenlet = before;
    xc_link_dispatch_leave(gateway->link);
    Py_XDECREF(who);
}

bool
xcpy_has_role(GatewayObject *gateway)
{
    if (!xc_link_dispatching(gateway->link)) {
        return false;
    }
    PyObject *who = gateway->role_greenlet == NULL ? NULL : xcpy_who(gateway);
    bool mine = gateway->role_greenlet == who;
    PyErr_Clear();
    Py_XDECREF(who);
    return mine;
}

/* A message that needs Python takes effect. */
static void
dispatch(GatewayObject *gateway, xc_msg *msg, xc_chan *chan)
{
    if (msg->code == XC_DATA) {
        uint64_t cost = xc_msg_cost(msg);
        PyObject *entry = find_entry(gateway, chan);
        PyObject *item = xcpy_load_item(gateway, msg, NULL);
        if (item == NULL || (entry != NULL && call(PyTuple_GET_ITEM(entry, 0), item) < 0)) {
            fail_callback(gateway, chan);
        }
        Py_XDECREF(item);
        Py_XDECREF(entry);
        xc_link_called(gateway->link, chan, cost);
    }
    else if (chan != NULL) {
        xcpy_end_callback(gateway, chan);
        xc_link_settle(gateway->link, msg);
        xc_link_drop_chan(gateway->link, chan);
    }
    else {
        xc_chan *next;
        while ((next = xc_link_any_callback(gateway->link)) != NULL) {
            xcpy_end_callback(gateway, next);
            xc_link_end_callback(gateway->link, next); /* needed if there was no memory to find its entry */
            xc_link_drop_chan(gateway->link, next);
        }
        xc_link_settle(gateway->link, msg);
    }
}

/* The main loop of a gateway's callback thread. */
static PyObject *
run_callbacks(GatewayObject *self, PyObject *unused)
{
    xc_wait wait = {.kind = XC_WAIT_BACKLOG};
    xc_link_state state;
    (void)unused;
    do {
        xc_msg *msg;
        xc_chan *chan;
        PyObject *before;
        wait.until = XC_FOREVER;
        int entered = xcpy_wait(self, &wait) < 0 ? -1 : enter_role(self, &before);
        if (entered < 0) {
            return NULL;
        }
        if (entered == 0) {
            state.fin = false;
            continue;
        }
        while ((msg = xc_link_backlog_next(self->link, &chan)) != NULL) {
            dispatch(self, msg, chan);
        }
        leave_role(self, before);
        xc_link_get_state(self->link, &state);
    } while (!state.fin);
    Py_RETURN_NONE;
}

PyMethodDef xcpy_callback_methods[] = {
    {"_run_callbacks", (PyCFunction)run_callbacks, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
start_dispatcher(GatewayObject *gateway)
{
    if (gateway->dispatcher) {
        return 0;
    }
    PyObject *target = PyObject_GetAttrString((PyObject *)gateway, "_run_callbacks");
    int started = target == NULL ? -1 : xcpy_start_beside(gateway, target);
    Py_XDECREF(target);
    gateway->dispatcher = started == 0;
    return started;
}

/* From now on the link keeps items for the callback. 1: done; or another thread has closed the channel meanwhile, and
 * called the callback for the last time. 0: nothing more will come. -1: an exception. */
static int
install(ChannelObject *channel, PyObject *entry)
{
    GatewayObject *gateway = channel->gateway;
    PyObject *key = key_of(channel->chan);
    int result = -1;
    if (key != NULL && start_dispatcher(gateway) == 0 && PyDict_SetItem(gateway->callbacks, key, entry) == 0) {
        PyObject *back =
            xc_link_set_callback(gateway->link, channel->chan) ? NULL : xcpy_dict_pop(gateway->callbacks, key);
        result = back == NULL;
        Py_XDECREF(back);
    }
    Py_XDECREF(key);
    return result;
}

/* Hands out what is queued, then installs the callback. The caller has the dispatcher role. */
static int
hand_out(ChannelObject *channel, PyObject *entry)
{
    GatewayObject *gateway = channel->gateway;
    PyObject *callback = PyTuple_GET_ITEM(entry, 0), *endmarker = PyTuple_GET_ITEM(entry, 1);
    for (;;) {
        xc_msg *msg;
        int installed = 0;
        xc_status rc = xc_link_take_to_call(gateway->link, channel->chan, &msg);
        if (rc == XC_OK) {
            uint64_t cost = xc_msg_cost(msg);
            PyObject *item = xcpy_load_item(gateway, msg, channel->chan);
            int called = item == NULL ? -1 : call(callback, item);
            Py_XDECREF(item);
            xc_link_taken(gateway->link, channel->chan, 1, cost);
            if (called < 0) {
                return -1;
            }
            continue;
        }
        if (rc == XC_AGAIN && (installed = install(channel, entry)) != 0) {
            channel->has_callback = installed > 0;
            return installed > 0 ? 0 : -1;
        }
        if (rc == XC_CLOSED) {
            return endmarker == gateway->state->no_endmarker ? 0 : call(callback, endmarker);
        }
    }
}

int
xcpy_set_callback(ChannelObject *channel, PyObject *callback, PyObject *endmarker)
{
    GatewayObject *gateway = channel->gateway;
    PyObject *entry = NULL, *before;
    int result = -1, entered;
    while ((entered = enter_role(gateway, &before)) == 0) {
        xc_wait wait = {.kind = XC_WAIT_DISPATCH, .until = XC_FOREVER};
        if (xcpy_wait(gateway, &wait) < 0) {
            return -1;
        }
    }
    if (entered < 0) {
        return -1;
    }
    if (channel->has_callback) {
        PyErr_Format(PyExc_OSError, "%R has callback already registered", channel);
    }
    else if ((entry = PyTuple_Pack(2, callback, endmarker)) != NULL) {
        channel->has_callback = true;
        result = hand_out(channel, entry);
    }
    Py_XDECREF(entry);
    leave_role(gateway, before);
    return result;
}
