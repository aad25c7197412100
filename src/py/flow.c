/*
 * A claim is on the heap, because greenlets share a stack and others look at the claims in a line: see park.c.
 */
#include "flow.h"

#include "io.h"
#include "park.h"

#include <stdlib.h>

#define NO_ROOM_TEXT "no room for the item after %R seconds"

/* --- sending ---------------------------------------------------------------------------------------------------- */

/* Waits until the claim is granted. 0 or -1. */
static int
await_credit(ChannelObject *channel, xc_claim *claim, PyObject *timeout, int64_t until)
{
    GatewayObject *gateway = channel->gateway;
    while (!xc_link_claim(gateway->link, channel->chan, claim)) {
        xc_wait wait = {.kind = XC_WAIT_CREDIT, .chan = channel->chan, .claim = claim, .until = until};
        int waited = xcpy_wait(gateway, &wait);
        if (waited == 1) {
            PyErr_Format(channel->state->TimeoutError, NO_ROOM_TEXT, timeout);
        }
        if (waited != 0 || xcpy_check_usable(gateway) < 0) {
            if (!xc_link_forked(gateway->link)) {
                (void)xc_link_unclaim(gateway->link, channel->chan, claim);
            }
            return -1;
        }
    }
    if (atomic_load(&channel->chan->closed)) {
        xc_link_unsent(gateway->link, channel->chan, claim->cost);
        PyErr_Format(PyExc_OSError, "cannot send to %R", channel);
        return -1;
    }
    return 0;
}

int
xcpy_claim(ChannelObject *channel, uint64_t cost, PyObject *timeout, int64_t until)
{
    PyObject *who = xcpy_who(channel->gateway);
    xc_claim *claim = who == NULL ? NULL : PyMem_New(xc_claim, 1);
    int result = -1;
    if (claim != NULL) {
        *claim = (xc_claim){.cost = cost, .owner = who != Py_None ? (const void *)who : xc_bell_mine()};
        result = await_credit(channel, claim, timeout, until);
        PyMem_Free(claim);
    }
    else if (who != NULL) {
        PyErr_NoMemory();
    }
    Py_XDECREF(who);
    return result;
}

/* --- limits ----------------------------------------------------------------------------------------------------- */

/* None: XC_NO_LIMIT. 0 or -1. */
static int
parse_limit(PyObject *arg, uint64_t *limit)
{
    *limit = XC_NO_LIMIT;
    if (arg == Py_None) {
        return 0;
    }
    if (!PyLong_Check(arg) || PyBool_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "limit must be an int of bytes or None, not %.200s", Py_TYPE(arg)->tp_name);
        return -1;
    }
    int overflow = 0;
    long long value = PyLong_AsLongLongAndOverflow(arg, &overflow);
    if (overflow < 0 || (overflow == 0 && value < 1)) {
        PyErr_Format(PyExc_ValueError, "limit must be at least 1 byte, not %R", arg);
        return -1;
    }
    if (overflow > 0 || value > PY_SSIZE_T_MAX) {
        PyErr_Format(PyExc_ValueError, "limit must be at most %zd bytes, not %R", PY_SSIZE_T_MAX, arg);
        return -1;
    }
    *limit = (uint64_t)value;
    return 0;
}

PyDoc_STRVAR(set_limit_doc,
             "set_limit($self, /, limit)\n--\n\n"
             "From now on the other side's send() waits while so many bytes of items were sent here and not received\n"
             "yet; each item counts 64 bytes more than its encoding. None: no limit. A larger item goes alone. May be\n"
             "called again at any time. Raises TypeError, ValueError, and OSError when the channel is closed.");

static PyObject *
Channel_set_limit(ChannelObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", NULL};
    GatewayObject *gateway = self->gateway;
    PyObject *arg;
    uint64_t limit;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:set_limit", names, &arg) || parse_limit(arg, &limit) < 0 ||
        xcpy_check_usable(gateway) < 0) {
        return NULL;
    }
    PyObject *takes = PyObject_CallMethod((PyObject *)gateway, "_takes_limits", NULL);
    int can = takes == NULL ? -1 : PyObject_IsTrue(takes);
    Py_XDECREF(takes);
    if (can < 0 || xcpy_check_usable(gateway) < 0) {
        return NULL;
    }
    if (can > 0 && xc_link_set_limit(gateway->link, self->chan, limit) != XC_OK) {
        return PyErr_Format(PyExc_OSError, "cannot set a limit of %R", self);
    }
    Py_RETURN_NONE;
}

PyMethodDef xcpy_limit_methods[] = {
    {"set_limit", (PyCFunction)(void (*)(void))Channel_set_limit, METH_VARARGS | METH_KEYWORDS, set_limit_doc},
    {NULL, NULL, 0, NULL},
};

/* Replaced by the Python subclass at a near end, where the far end may be of another version. */
static PyObject *
Gateway_takes_limits(GatewayObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(limit_doc, "_limit($self, limit, /)\n--\n\n"
                        "Channels that are made from now on, and those that have counted nothing yet, have this limit\n"
                        "in both directions. The other side does the same: nothing is sent. None: no limit.");

static PyObject *
Gateway_limit(GatewayObject *self, PyObject *arg)
{
    uint64_t limit;
    if (parse_limit(arg, &limit) < 0 || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    xc_link_set_limit_of_new(self->link, limit);
    Py_RETURN_NONE;
}

/* --- how it stands ------------------------------------------------------------------------------------------------ */

static PyObject *
seconds_or_none(int64_t ns)
{
    return ns < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble((double)ns / (double)XC_S);
}

static PyObject *
bytes_or_none(uint64_t n, bool known)
{
    return known ? PyLong_FromUnsignedLongLong(n) : Py_NewRef(Py_None);
}

static int
compare_ids(const void *one, const void *two)
{
    uint32_t a = ((const xc_flow *)one)->id, b = ((const xc_flow *)two)->id;
    return a < b ? -1 : a > b;
}

/* New reference to a list of tuples, or NULL. */
static PyObject *
list_of(const xc_flow *flow, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        const xc_flow *it = &flow[i];
        PyObject *tuple =
            Py_BuildValue("(iKKNNNNN)", (int)it->id, (unsigned long long)it->items, (unsigned long long)it->bytes,
                          bytes_or_none(it->limit_in, it->limit_in != XC_NO_LIMIT), seconds_or_none(it->peer_waits),
                          bytes_or_none(it->under_way, it->limit_out != XC_NO_LIMIT),
                          bytes_or_none(it->limit_out, it->limit_out != XC_NO_LIMIT), seconds_or_none(it->waits));
        if (tuple == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, tuple);
        }
    }
    return list;
}

PyDoc_STRVAR(
    stats_doc,
    "_stats($self, /)\n--\n\n"
    "What waits, as (channels, (items, bytes), to_write): what waits behind a callback, and the bytes that\n"
    "could not be written yet. For each channel that is open or has items, by id: (id, items and bytes that can\n"
    "be received, limit, seconds that the other side has been waiting to send; bytes that were sent and are not\n"
    "known to be received, limit, seconds that somebody here has been waiting to send). None: no limit; nobody\n"
    "waits. Bytes are in the unit of limits.");

static PyObject *
Gateway_stats(GatewayObject *self, PyObject *unused)
{
    xc_flow *flow = NULL, backlog;
    size_t n = 16, max;
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    do {
        max = n + 16; /* some may be made meanwhile */
        PyMem_Free(flow);
        flow = PyMem_New(xc_flow, max);
        if (flow == NULL) {
            return PyErr_NoMemory();
        }
        n = xc_link_get_flow(self->link, flow, max, &backlog);
    } while (n > max);
    qsort(flow, n, sizeof *flow, compare_ids);
    PyObject *list = list_of(flow, n);
    PyMem_Free(flow);
    return list == NULL
               ? NULL
               : Py_BuildValue("(N(KK)K)", list, (unsigned long long)backlog.items, (unsigned long long)backlog.bytes,
                               (unsigned long long)xc_writer_left(xc_link_writer(self->link)));
}

PyMethodDef xcpy_flow_methods[] = {
    {"_takes_limits", (PyCFunction)Gateway_takes_limits, METH_NOARGS, NULL},
    {"_limit", (PyCFunction)Gateway_limit, METH_O, limit_doc},
    {"_stats", (PyCFunction)Gateway_stats, METH_NOARGS, stats_doc},
    {NULL, NULL, 0, NULL},
};
