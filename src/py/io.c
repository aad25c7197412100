/*
 * A signal that comes between our check for it and the sleep does not end the sleep. So the main thread sleeps in
 * slices: first 10 ms, for a signal that came during the check, then twice as long each time, up to 5 s. The chance to
 * miss a signal again is a microsecond for each slice. So an idle process needs next to no CPU, and Ctrl-C works.
 */
#include "io.h"

#include "dump.h"
#include "flow.h"
#include "gateway_end.h"
#include "main_thread.h"
#include "park.h"
#include "pickled.h"
#include "xc_trace.h"

#include <math.h>

#define SLICE_MIN (10 * XC_MS)
/* Between the pieces of a long message its sender, which may never sleep, checks for signals so often. */
#define SLICE_LONG (50 * XC_MS)
/* Bytes for a frame at first; malloc has so much at hand without a search. */
enum { FIRST_ROOM = 1000 };

int
xcpy_deadline(PyObject *timeout, bool negative_ok, int64_t *until)
{
    if (timeout == NULL || timeout == Py_None) {
        *until = XC_FOREVER;
        return 0;
    }
    if (!PyFloat_Check(timeout) && !PyIndex_Check(timeout) && !PyNumber_Check(timeout)) {
        PyErr_Format(PyExc_TypeError, "timeout must be a number of seconds or None, not %.200s",
                     Py_TYPE(timeout)->tp_name);
        return -1;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
        int negative = PyObject_RichCompareBool(timeout, Py_False, Py_LT);
        if (negative < 0) {
            return -1;
        }
        seconds = negative ? -HUGE_VAL : HUGE_VAL;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number (nan)");
        return -1;
    }
    if (seconds < 0 && !negative_ok) {
        PyErr_SetString(PyExc_ValueError, "'timeout' must be a non-negative number");
        return -1;
    }
    *until = seconds <= 0 ? 0 : seconds > 9e9 ? XC_FOREVER : xc_after((int64_t)ceil(seconds * 1e9));
    return 0;
}

/* A large payload has begun: lends the memory of a bytes object for it. Without memory it is read in the normal way. */
static void
give_space(GatewayObject *gateway, xc_wait *wait, size_t space)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(space - 1));
    if (bytes == NULL) {
        PyErr_Clear();
        wait->can_give = false;
        return;
    }
    unsigned char *ptr = (unsigned char *)PyBytes_AS_STRING(bytes);
    if (!xc_link_give_space(gateway->link, bytes, ptr, space)) {
        Py_DECREF(bytes);
    }
}

int
xcpy_wait(GatewayObject *gateway, xc_wait *wait)
{
    int parked = xcpy_parks(gateway) ? xcpy_park(gateway, wait) : XCPY_NOT_PARKED;
    if (parked != XCPY_NOT_PARKED) {
        return parked;
    }
    int64_t until = wait->until;
    int64_t longest = xcpy_longest_sleep(gateway->state);
    wait->signals = longest != XC_FOREVER;
    for (int64_t slice = SLICE_MIN;;) {
        int64_t end = wait->signals ? xc_after(slice) : XC_FOREVER;
        size_t space = 0;
        xc_status rc;
        wait->until = until < end ? until : end;
        Py_BEGIN_ALLOW_THREADS
            rc = xc_link_wait_nogil(gateway->link, wait, &space);
        Py_END_ALLOW_THREADS
        if (rc == XC_OK) {
            /* If a signal came shortly before, its exception must be raised now, before an item is taken. */
            return PyErr_CheckSignals() < 0 ? -1 : 0;
        }
        if (rc == XC_SPACE) {
            give_space(gateway, wait, space);
        }
        /* Also after giving space: a stream of large items for others may have no end. */
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (rc != XC_INTR && xc_now() >= until) {
            return 1;
        }
        if (rc == XC_SPACE) {
            continue;
        }
        wait->no_spin = true;
        slice = slice < longest / 2 ? slice * 2 : longest;
    }
}

int
xcpy_begin_wait(GatewayObject *gateway, PyObject *timeout, xc_wait *wait)
{
    return xcpy_check_usable(gateway) < 0 ? -1 : xcpy_deadline(timeout, true, &wait->until);
}

PyObject *
xcpy_wait_for(GatewayObject *gateway, xc_wait_kind kind, PyObject *timeout)
{
    xc_wait wait = {.kind = kind};
    int waited = xcpy_begin_wait(gateway, timeout, &wait) < 0 ? -1 : xcpy_wait(gateway, &wait);
    return waited < 0 ? NULL : PyBool_FromLong(waited == 0);
}

/* --- sending -------------------------------------------------------------------------------------------------- */

int
xcpy_raise_unsent(GatewayObject *gateway, const xc_err *err)
{
    xc_link_state state;
    xc_link_get_state(gateway->link, &state);
    if (err->code == XC_NOMEM && state.ended_by.code == XC_OK) { /* else the lack of memory ended the link */
        PyErr_NoMemory();
    }
    else {
        (void)xcpy_raise_ended(gateway, true);
    }
    return -1;
}

/* For a greenlet: leaves to the pump what did not go out at once, and lets others run until little of it is left. 0;
 * -1; XCPY_NOT_PARKED: nothing was done. */
static int
send_parked(GatewayObject *gateway, xc_sending *sending)
{
    xc_writer *writer = xc_link_writer(gateway->link);
    xc_err err = {.code = XC_OK};
    PyObject *who = xcpy_who(gateway);
    if (who == NULL || who == Py_None) {
        Py_XDECREF(who);
        return who == NULL ? -1 : XCPY_NOT_PARKED;
    }
    Py_DECREF(who);
    if (xc_writer_hand_over(writer, sending, &err) != XC_OK) {
        return xcpy_raise_unsent(gateway, &err);
    }
    while (xc_writer_is_full(writer)) {
        if (xcpy_pause(gateway) < 0 || xcpy_check_usable(gateway) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
send_frame(GatewayObject *gateway, xc_sending *sending, size_t size, bool parks)
{
    xc_writer *writer = xc_link_writer(gateway->link);
    xc_err err = {.code = XC_OK};
    xc_status rc = size <= XCPY_SMALL_FRAME || parks ? xc_writer_try(writer, sending, &err) : XC_AGAIN;
    if (rc == XC_AGAIN && parks) {
        int sent = send_parked(gateway, sending);
        if (sent == -1) {
            xc_writer_spill(writer, sending);
        }
        if (sent != XCPY_NOT_PARKED) {
            return sent;
        }
    }
    int64_t longest = rc == XC_AGAIN ? xcpy_longest_sleep(gateway->state) : XC_FOREVER;
    int64_t slice = SLICE_MIN;
    while (rc == XC_AGAIN) {
        int64_t until = longest != XC_FOREVER ? xc_after(slice) : XC_FOREVER;
        Py_BEGIN_ALLOW_THREADS
            rc = xc_writer_send_nogil(writer, sending, until, &err);
        Py_END_ALLOW_THREADS
        if (rc == XC_INTR || rc == XC_TIMEOUT) {
            if (PyErr_CheckSignals() < 0) {
                xc_writer_spill(writer, sending);
                return -1;
            }
            slice = slice < longest / 2 ? slice * 2 : longest;
            rc = XC_AGAIN;
        }
    }
    return rc == XC_OK ? 0 : xcpy_raise_unsent(gateway, &err);
}

static int
send_parts(GatewayObject *gateway, xc_sending *sending, size_t size)
{
    if (!xcpy_parks(gateway)) {
        return send_frame(gateway, sending, size, false);
    }
    /* Not on the stack, see park.c: while the frame has the writer role, Python code runs and may switch greenlets. */
    size_t n = (size_t)sending->n;
    xc_sending *moved = PyMem_Malloc(sizeof *moved + n * sizeof *moved->parts);
    if (moved == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *moved = *sending;
    moved->parts = (struct iovec *)(moved + 1);
    memcpy(moved->parts, sending->parts, n * sizeof *moved->parts);
    int result = send_frame(gateway, moved, size, true);
    sending->n = moved->n;
    PyMem_Free(moved);
    return result;
}

/* True also if sending was interrupted and the rest is left to others: then no part remains in `sending`. */
static bool
is_sent(const xc_sending *sending, int result)
{
    return result == 0 || sending->n == 0;
}

int
xcpy_send_raw(GatewayObject *gateway, const void *bytes, size_t n)
{
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = n};
    xc_sending sending = {.parts = &part, .n = 1};
    int result = send_parts(gateway, &sending, n);
    if (xc_tracing() && is_sent(&sending, result)) {
        xc_trace("sent %zu bytes that are no frame", n);
    }
    return result;
}

/* If a signal handler raises, nothing of the message arrives, unless its last byte is out already: then *sent is
 * true. */
static int
send_long(GatewayObject *gateway, xc_long_sending *sending, bool *sent)
{
    xc_writer *writer = xc_link_writer(gateway->link);
    bool sliced = xcpy_longest_sleep(gateway->state) != XC_FOREVER, parks = xcpy_parks(gateway);
    xc_err err = {.code = XC_OK};
    xc_status rc;
    for (;;) {
        int64_t until = parks ? 0 : sliced ? xc_after(SLICE_LONG) : XC_FOREVER;
        Py_BEGIN_ALLOW_THREADS
            rc = xc_writer_send_long_nogil(writer, sending, until, &err);
        Py_END_ALLOW_THREADS
        if (rc == XC_OK) {
            *sent = true;
            return 0;
        }
        bool ended = rc != XC_INTR && rc != XC_TIMEOUT;
        int paused = ended || !parks ? 0 : xcpy_pause(gateway);
        parks = parks && paused == 0;
        if (ended || paused == -1 || PyErr_CheckSignals() < 0) {
            *sent = xc_writer_drop(writer, sending);
            return ended ? xcpy_raise_unsent(gateway, &err) : -1;
        }
    }
}

int
xcpy_send_message(GatewayObject *gateway, xc_long_frame *message, struct iovec *parts, int n, bool *sent)
{
    size_t size = (size_t)message->size;
    int result;
    *sent = false;
    if (size < XC_LONG_MIN) {
        xc_sending sending = {.parts = parts, .n = n};
        xc_frame_pack(parts[0].iov_base, message->code, message->chan, (uint32_t)size);
        result = send_parts(gateway, &sending, XC_HEADER_SIZE + size);
        *sent = is_sent(&sending, result);
    }
    else {
        xc_long_sending *sending = PyMem_New(xc_long_sending, 1); /* not on the stack: see park.c */
        if (sending == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        parts[0].iov_base = (char *)parts[0].iov_base + XC_HEADER_SIZE;
        parts[0].iov_len -= XC_HEADER_SIZE;
        xc_long_begin(sending, message, parts);
        result = send_long(gateway, sending, sent);
        PyMem_Free(sending);
    }
    if (xc_tracing() && *sent) {
        xc_trace_frame("sent", message->code, message->chan, size);
    }
    return result;
}

/* An empty frame, with room for its header. */
static int
begin_frame(xcpy_dumped *frame)
{
    if (xc_buf_begin(&frame->buf, FIRST_ROOM, XC_HEADER_SIZE) != XC_OK) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* The serializer has refused the item, with an exception: tries its plain value, where the channel is not strict. */
static int
encode_plain(GatewayObject *gateway, ChannelObject *channel, PyObject *item, xcpy_dumped *frame)
{
    if (channel == NULL || !PyErr_ExceptionMatches(gateway->state->DumpError) ||
        xc_link_is_strict(gateway->link, channel->chan)) {
        return -1;
    }
    PyErr_Clear();
    xcpy_dumped_fini(frame);
    return begin_frame(frame) < 0 ? -1 : xcpy_dump_plain(gateway->state, item, XCPY_PIN | XCPY_HUGE, frame);
}

static int
encode_pickled(GatewayObject *gateway, PyObject *item, xcpy_dumped *frame)
{
    xcpy_dumped_fini(frame);
    return begin_frame(frame) < 0 ? -1 : xcpy_dump_pickled(gateway, item, frame);
}

int
xcpy_encode(GatewayObject *gateway, ChannelObject *channel, xc_code code, PyObject *item, bool pickled,
            xcpy_dumped *frame)
{
    if (begin_frame(frame) < 0) {
        return -1;
    }
    pickled = pickled || (item != NULL && xcpy_dump(gateway->state, item, XCPY_PIN | XCPY_HUGE, frame) < 0 &&
                          encode_plain(gateway, channel, item, frame) < 0);
    if (!pickled) {
        return 0;
    }
    return PyErr_Occurred() && !xcpy_may_pickle(gateway, code) ? -1 : encode_pickled(gateway, item, frame);
}

struct iovec *
xcpy_parts_of(const xcpy_dumped *frame, struct iovec few[XCPY_STACK_PARTS], int *n)
{
    struct iovec *parts = few;
    if (frame->n_pins * 2 + 2 > XCPY_STACK_PARTS || xcpy_dumped_size(frame) >= XC_LONG_MIN) {
        parts = PyMem_New(struct iovec, frame->n_pins * 2 + 2);
        if (parts == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    xcpy_dumped_iov(frame, parts + 1, n);
    return parts;
}

void
xcpy_tell_limits(GatewayObject *gateway, const xcpy_dumped *frame)
{
    if (frame->channels.end > 0 && !xc_link_forked(gateway->link)) {
        size_t count = xc_buf_size(&frame->channels) / sizeof(uint32_t);
        xc_link_tell_limits(gateway->link, xc_buf_head(&frame->channels), count);
    }
}

/* An item of `channel` waits for credit, and is counted. NULL: it is none of one. */
static int
send_encoded(GatewayObject *gateway, ChannelObject *channel, xc_code code, uint32_t id, PyObject *item, bool pickled,
             PyObject *timeout, int64_t until)
{
    struct iovec few[XCPY_STACK_PARTS], *parts = few;
    xcpy_dumped frame = {.n_pins = 0};
    int n = 0, result = -1;
    bool sent;
    if (xcpy_encode(gateway, channel, code, item, pickled, &frame) < 0 ||
        (parts = xcpy_parts_of(&frame, few, &n)) == NULL) {
        goto done;
    }
    xc_long_frame message = {.code = code, .chan = id, .size = xcpy_dumped_size(&frame) - XC_HEADER_SIZE};
    uint64_t cost = message.size + XC_ITEM_COST;
    if (channel == NULL) {
        if (code == XC_DATA) {
            xc_link_sent(gateway->link, id, cost);
        }
    }
    else if (!xcpy_count_sent(channel->chan, cost) && xcpy_claim(channel, cost, timeout, until) < 0) {
        goto done;
    }
    result = xcpy_send_message(gateway, &message, parts + 1, n, &sent);
    if (channel != NULL && !sent) {
        xc_link_unsent(gateway->link, channel->chan, cost);
    }
    xcpy_tell_limits(gateway, &frame);
done:
    if (parts != few) {
        PyMem_Free(parts);
    }
    xcpy_dumped_fini(&frame);
    return result;
}

int
xcpy_send(GatewayObject *gateway, xc_code code, uint32_t id, PyObject *item)
{
    return send_encoded(gateway, NULL, code, id, item, false, NULL, XC_FOREVER);
}

int
xcpy_send_item(ChannelObject *channel, PyObject *item, bool pickled, PyObject *timeout, int64_t until)
{
    return send_encoded(channel->gateway, channel, XC_DATA, channel->chan->id, item, pickled, timeout, until);
}
