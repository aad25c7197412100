/*
 * The state of a gateway and its end: what is known of its connection and of the process behind it, waiting for their
 * end, and the ways to bring it about.
 */
#include "gateway_end.h"

#include "error.h"
#include "io.h"

PyObject *
xcpy_raise_ended(GatewayObject *gateway, bool sending)
{
    xcpy_raise_object(PyObject_CallMethod((PyObject *)gateway, "_death", "O", sending ? Py_True : Py_False));
    return NULL;
}

PyDoc_STRVAR(hasreceiver_doc, "hasreceiver($self, /)\n--\n\n"
                              "True as long as something may still arrive from the far end.");

static PyObject *
Gateway_hasreceiver(GatewayObject *self, PyObject *unused)
{
    xc_link_state state;
    (void)unused;
    if (self->link == NULL || xc_link_forked(self->link)) {
        Py_RETURN_FALSE;
    }
    xc_link_get_state(self->link, &state);
    return PyBool_FromLong(!state.fin);
}

PyDoc_STRVAR(join_doc,
             "join($self, /, timeout=None)\n--\n\n"
             "Wait until nothing more can arrive from the far end, for `timeout` seconds at most (None: for ever).");

static PyObject *
Gateway_join(GatewayObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:join", names, &timeout)) {
        return NULL;
    }
    PyObject *waited = xcpy_wait_for(self, XC_WAIT_FIN, timeout);
    if (waited == NULL) {
        return NULL;
    }
    Py_DECREF(waited);
    Py_RETURN_NONE;
}

static PyObject *
Gateway_goodbye(GatewayObject *self, PyObject *unused)
{
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    xc_link_goodbye(self->link);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wait_gone_doc, "_wait_gone($self, timeout, /)\n--\n\n"
                            "Wait for the end of the far end's process. False: `timeout` seconds have passed.");

static PyObject *
Gateway_wait_gone(GatewayObject *self, PyObject *timeout)
{
    return xcpy_wait_for(self, XC_WAIT_GONE, timeout);
}

PyDoc_STRVAR(keepalive_doc,
             "_keepalive($self, seconds, /)\n--\n\n"
             "End the connection when the far end gives no sign of life for so long, and kill its process. 0: never.\n"
             "Only for a far end that answers whatever its tasks do.");

static PyObject *
Gateway_keepalive(GatewayObject *self, PyObject *arg)
{
    double seconds = PyFloat_AsDouble(arg);
    if ((seconds == -1.0 && PyErr_Occurred()) || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    int64_t silence = !(seconds > 0) ? 0 : seconds > 1e9 ? INT64_C(1000000000) * XC_S : (int64_t)(seconds * 1e9);
    xc_link_keepalive(self->link, silence, self->launch != NULL ? xc_launch_kill : NULL, self->launch);
    Py_RETURN_NONE;
}

static PyObject *
Gateway_signal(GatewayObject *self, PyObject *arg)
{
    long sig = PyLong_AsLong(arg);
    if ((sig == -1 && PyErr_Occurred()) || xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (self->launch != NULL) {
        xc_launch_signal(self->launch, (int)sig);
    }
    else {
        xc_link_hang_up(self->link);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    state_doc,
    "_state($self, /)\n--\n\n"
    "How it stands, as a dict: transport (\"ring\", or \"pipe\" for any fds), fin, said_goodbye, heard_goodbye, "
    "greeted, channels, executing; reason and\n"
    "detail (what ended the connection); preamble (bytes: what came before the far end's first frame); pid, ended,\n"
    "status (exit status, -signal, None: unknown), stderr (the end of it, bytes; with words: last words that stand in\n"
    "no stderr), passed (what it has said on a stderr of ours has been passed on).");

/* These fill a dict name by name. If one fails, *dict is NULL and an exception is set; the others then do nothing. */

/* Takes `value`; NULL: an exception is set. */
static void
put(PyObject **dict, const char *name, PyObject *value)
{
    if (value == NULL || PyDict_SetItemString(*dict, name, value) < 0) {
        Py_CLEAR(*dict);
    }
    Py_XDECREF(value);
}

static void
put_bool(PyObject **dict, const char *name, bool value)
{
    if (*dict != NULL) {
        put(dict, name, PyBool_FromLong(value));
    }
}

static void
put_number(PyObject **dict, const char *name, long long value)
{
    if (*dict != NULL) {
        put(dict, name, PyLong_FromLongLong(value));
    }
}

static void
put_text(PyObject **dict, const char *name, const char *value)
{
    if (*dict != NULL) {
        put(dict, name, PyUnicode_FromString(value));
    }
}

static void
put_bytes(PyObject **dict, const char *name, const char *value, size_t n)
{
    if (*dict != NULL) {
        put(dict, name, PyBytes_FromStringAndSize(value, (Py_ssize_t)n));
    }
}

static void
put_preamble(PyObject **dict, const char *name, xc_link *link)
{
    if (*dict != NULL) {
        size_t n = xc_link_preamble(link, NULL, 0);
        PyObject *preamble = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
        if (preamble != NULL) {
            (void)xc_link_preamble(link, PyBytes_AS_STRING(preamble), n); /* the preamble only grows, at its end */
        }
        put(dict, name, preamble);
    }
}

static void
put_status(PyObject **dict, const char *name, const xc_launch_state *process)
{
    if (process->ended && process->known) {
        put_number(dict, name, process->status);
    }
    else if (*dict != NULL) {
        put(dict, name, Py_NewRef(Py_None));
    }
}

/* What failed, where the system alone has said why. */
static void
put_detail(PyObject **dict, const char *name, const xc_err *why)
{
    if (*dict != NULL && why->detail[0] == '\0' && why->sys_errno != 0) {
        put(dict, name, PyUnicode_FromFormat("%s: %s", why->step, strerror(why->sys_errno)));
    }
    else {
        put_text(dict, name, why->detail);
    }
}

static PyObject *
Gateway_state(GatewayObject *self, PyObject *unused)
{
    xc_link_state state;
    xc_launch_state process = {.pid = 0};
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    xc_link_get_state(self->link, &state);
    if (self->launch != NULL) {
        xc_launch_get_state(self->launch, &process);
    }
    PyObject *dict = PyDict_New(); /* owned */
    put_text(&dict, "transport", state.rings ? "ring" : "pipe");
    put_bool(&dict, "fin", state.fin);
    put_bool(&dict, "said_goodbye", state.said_goodbye);
    put_bool(&dict, "heard_goodbye", state.heard_goodbye);
    put_bool(&dict, "greeted", state.greeted);
    put_number(&dict, "channels", state.channels);
    put_number(&dict, "executing", state.executing);
    put_text(&dict, "reason", xc_status_name(state.ended_by.code));
    put_detail(&dict, "detail", &state.ended_by);
    put_number(&dict, "errno", state.ended_by.sys_errno);
    put_preamble(&dict, "preamble", self->link);
    put_number(&dict, "pid", process.pid);
    put_bool(&dict, "ended", process.ended);
    put_status(&dict, "status", &process);
    put_bool(&dict, "passed", process.passed);
    put_bool(&dict, "words", process.words);
    put_bytes(&dict, "stderr", process.tail, process.n_tail);
    return dict;
}

/* Replaced by the Python subclass; without one only the end itself is known. */
static PyObject *
Gateway_death(GatewayObject *self, PyObject *sending)
{
    (void)sending;
    return PyObject_CallFunction(self->state->GatewayDied, "s", "the connection has ended");
}

PyMethodDef xcpy_end_methods[] = {
    {"hasreceiver", (PyCFunction)Gateway_hasreceiver, METH_NOARGS, hasreceiver_doc},
    {"join", (PyCFunction)(void (*)(void))Gateway_join, METH_VARARGS | METH_KEYWORDS, join_doc},
    {"_goodbye", (PyCFunction)Gateway_goodbye, METH_NOARGS, NULL},
    {"_wait_gone", (PyCFunction)Gateway_wait_gone, METH_O, wait_gone_doc},
    {"_keepalive", (PyCFunction)Gateway_keepalive, METH_O, keepalive_doc},
    {"_signal", (PyCFunction)Gateway_signal, METH_O, NULL},
    {"_state", (PyCFunction)Gateway_state, METH_NOARGS, state_doc},
    {"_death", (PyCFunction)Gateway_death, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
