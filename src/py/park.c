/*
 * Parking greenlets: calls of the gateway's `_parking` (execnet_c/models/greenlets.py), with the GIL held.
 *
 * - parking(registration, seconds): parks the running greenlet until the Registration is over, or so many seconds have
 *   passed (None: no limit). False: there is no other greenlet on this thread.
 * - parking.pause(): lets others run for a moment. False as above.
 * - parking.who(): the running greenlet, or None. parking.spawn(func): runs func() in a new greenlet.
 *
 * While a greenlet is parked, its part of the C stack is stored elsewhere. So nothing on that stack may be used by
 * others meanwhile, such as the pump. Therefore a Registration is on the heap.
 */
#include "park.h"
#include "error.h"

typedef struct {
    PyObject_HEAD GatewayObject *gateway; /* owned */
    PyObject *channel;                    /* owned: the one in `wait`, which so stays; NULL for a parked greenlet */
    xc_wait wait;
    xc_registration *registration; /* owned; NULL before ring() was called */
    bool ended;                    /* nobody waits any more, and the channel in `wait` may be gone */
} RegistrationObject;

/* The caller has locked it. */
static void
end(RegistrationObject *self)
{
    if (self->registration != NULL && !xc_link_forked(self->gateway->link)) {
        xc_link_end_registration(self->gateway->link, self->registration);
    }
    self->registration = NULL;
}

static int
Registration_traverse(RegistrationObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->gateway);
    Py_VISIT(self->channel);
    return 0;
}

static int
Registration_clear(RegistrationObject *self)
{
    XCPY_LOCK(self);
    self->ended = true;
    end(self);
    XCPY_UNLOCK();
    Py_CLEAR(self->channel);
    return 0;
}

static void
Registration_dealloc(RegistrationObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    end(self);
    Py_XDECREF(self->channel);
    Py_XDECREF(self->gateway);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(ring_doc,
             "ring($self, fd, number, /)\n--\n\n"
             "Have the 8 bytes of `number` written to `fd`, which must not block, when what is waited for holds.\n"
             "True: it holds already, and nothing will be written.");

static PyObject *
ring(RegistrationObject *self, int fd, unsigned long long number)
{
    end(self);
    if (self->ended) {
        Py_RETURN_TRUE;
    }
    if (xcpy_check_usable(self->gateway) < 0) {
        return NULL;
    }
    self->registration = xc_link_begin_registration(self->gateway->link, &self->wait, fd, number);
    if (self->registration == NULL) {
        return PyErr_NoMemory();
    }
    return PyBool_FromLong(xc_registration_over(self->gateway->link, self->registration));
}

static PyObject *
Registration_ring(RegistrationObject *self, PyObject *args)
{
    int fd;
    unsigned long long number;
    PyObject *result;
    if (!PyArg_ParseTuple(args, "iK:ring", &fd, &number)) {
        return NULL;
    }
    XCPY_LOCK(self);
    result = ring(self, fd, number);
    XCPY_UNLOCK();
    return result;
}

static PyObject *
Registration_get_over(RegistrationObject *self, void *unused)
{
    (void)unused;
    bool over;
    XCPY_LOCK(self);
    over = self->registration != NULL && !xc_link_forked(self->gateway->link) &&
           xc_registration_over(self->gateway->link, self->registration);
    XCPY_UNLOCK();
    return PyBool_FromLong(over);
}

static PyMethodDef Registration_methods[] = {
    {"ring", (PyCFunction)Registration_ring, METH_VARARGS, ring_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Registration_getset[] = {
    {"over", (getter)Registration_get_over, NULL, "What is waited for held, at the beginning or since.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Registration_slots[] = {
    {Py_tp_doc, "A wait without a thread. Made by a gateway that has a `_parking`, and by Channel._notify()."},
    {Py_tp_dealloc, Registration_dealloc},
    {Py_tp_traverse, Registration_traverse},
    {Py_tp_clear, Registration_clear},
    {Py_tp_methods, Registration_methods},
    {Py_tp_getset, Registration_getset},
    {0, NULL},
};

static PyType_Spec Registration_spec = {
    .name = "execnet_c._core.Registration",
    .basicsize = sizeof(RegistrationObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = Registration_slots,
};

int
xcpy_registration_setup(PyObject *module, xcpy_state *state)
{
    state->RegistrationType = PyType_FromModuleAndSpec(module, &Registration_spec, NULL);
    return state->RegistrationType == NULL ? -1 : 0;
}

bool
xcpy_parks(GatewayObject *gateway)
{
    return gateway->parking != NULL && gateway->parking != Py_None;
}

PyObject *
xcpy_notify(GatewayObject *gateway, PyObject *channel, const xc_wait *wait, int fd, unsigned long long number)
{
    PyTypeObject *type = (PyTypeObject *)gateway->state->RegistrationType;
    RegistrationObject *self = (RegistrationObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->gateway = (GatewayObject *)Py_NewRef((PyObject *)gateway);
    self->channel = Py_NewRef(channel);
    self->wait = *wait;
    PyObject *over = ring(self, fd, number);
    if (over == NULL) {
        Py_CLEAR(self);
    }
    Py_XDECREF(over);
    return (PyObject *)self;
}

/* Calls parking(registration, seconds) once. 0: it came back, for whatever reason; else as xcpy_park. */
static int
park_once(GatewayObject *gateway, const xc_wait *wait, int64_t until)
{
    PyTypeObject *type = (PyTypeObject *)gateway->state->RegistrationType;
    RegistrationObject *registration = (RegistrationObject *)type->tp_alloc(type, 0);
    PyObject *parking = Py_NewRef(gateway->parking), *seconds = NULL, *parked = NULL;
    if (registration == NULL) {
        Py_DECREF(parking);
        return -1;
    }
    registration->gateway = (GatewayObject *)Py_NewRef((PyObject *)gateway);
    registration->wait = *wait;
    if (until == XC_FOREVER) {
        seconds = Py_NewRef(Py_None);
    }
    else {
        int64_t now = xc_now();
        seconds = PyFloat_FromDouble(until > now ? (double)(until - now) / (double)XC_S : 0.0);
    }
    if (seconds != NULL) {
        parked = PyObject_CallFunctionObjArgs(parking, (PyObject *)registration, seconds, NULL);
    }
    int result = parked == NULL ? -1 : parked == Py_False ? XCPY_NOT_PARKED : 0;
    if (result != -1 && xcpy_check_usable(gateway) < 0) { /* in a forked child greenlets go on */
        result = -1;
    }
    XCPY_LOCK(registration);
    registration->ended = true;
    end(registration); /* even if somebody still has it: the channel in `wait` is only sure to exist while we wait */
    XCPY_UNLOCK();
    Py_DECREF(registration);
    Py_XDECREF(seconds);
    Py_XDECREF(parked);
    Py_DECREF(parking);
    return result;
}

int
xcpy_park(GatewayObject *gateway, xc_wait *wait)
{
    for (;;) {
        int result = xcpy_parks(gateway) ? park_once(gateway, wait, wait->until) : XCPY_NOT_PARKED;
        if (result != 0) {
            return result;
        }
        if (xc_link_ready(gateway->link, wait)) {
            return PyErr_CheckSignals() < 0 ? -1 : 0;
        }
        if (wait->until != XC_FOREVER && xc_now() >= wait->until) {
            return 1;
        }
    }
}

int
xcpy_pause(GatewayObject *gateway)
{
    PyObject *paused = PyObject_CallMethod(gateway->parking, "pause", NULL);
    int result = paused == NULL ? -1 : paused == Py_False ? XCPY_NOT_PARKED : 0;
    Py_XDECREF(paused);
    return result;
}

PyObject *
xcpy_who(GatewayObject *gateway)
{
    return xcpy_parks(gateway) ? PyObject_CallMethod(gateway->parking, "who", NULL) : Py_NewRef(Py_None);
}

int
xcpy_start_beside(GatewayObject *gateway, PyObject *func)
{
    PyObject *result = NULL;
    if (xcpy_parks(gateway)) {
        result = PyObject_CallMethod(gateway->parking, "spawn", "O", func);
    }
    else {
        PyObject *thread = PyImport_ImportModule("execnet_c.models.native");
        if (thread != NULL) {
            result = PyObject_CallMethod(thread, "start_new_thread", "O()", func);
            Py_DECREF(thread);
        }
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
