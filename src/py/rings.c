/*
 * Gateways through memory that both processes share. A process of this very interpreter inherits it (_share, _serve).
 * Another one opens it, and then both sides move (_offer, _attach, _move). Policy is in execnet_c/common/rings.py and
 * near/bootstrap.py.
 */
#include "rings.h"

#include <unistd.h>

#include "error.h"
#include "gateway_end.h"

PyDoc_STRVAR(
    share_doc,
    "_share($self, /)\n--\n\n"
    "Make memory for the process that _start() will start: that gets it as its fd 3, and the frames go through\n"
    "it. False where there can be none; then they go through the pipes.");

static PyObject *
Gateway_share(GatewayObject *self, PyObject *unused)
{
    xc_err err;
    (void)unused;
    if (self->link == NULL && self->region.map == NULL) {
        (void)xc_region_create(XC_RING_SIZE, &self->region, &err); /* fails at a limit, or without the system call */
    }
    return PyBool_FromLong(self->region.map != NULL);
}

PyDoc_STRVAR(offer_doc,
             "_offer($self, /)\n--\n\n"
             "Make memory that the far end may open: the fd of it, which is open until _move() or _withdraw(), one of\n"
             "which must follow. None where there can be none, or was one before.");

static PyObject *
Gateway_offer(GatewayObject *self, PyObject *unused)
{
    xc_err err;
    xc_region region;
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (xc_region_create(XC_RING_SIZE, &region, &err) != XC_OK) {
        Py_RETURN_NONE;
    }
    int fd = region.fd;
    if (!xc_link_offer(self->link, &region)) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLong(fd);
}

PyDoc_STRVAR(attach_doc, "_attach($self, fd, /)\n--\n\n"
                         "What the other side has offered is behind `fd`, which is taken: _move() must follow. Raises\n"
                         "DataFormatError where that is no such memory, OSError where it cannot be mapped.");

static PyObject *
Gateway_attach(GatewayObject *self, PyObject *args)
{
    int fd;
    xc_err err;
    xc_region region;
    if (!PyArg_ParseTuple(args, "i:_attach", &fd)) {
        return NULL;
    }
    if (xcpy_check_usable(self) < 0) {
        close(fd);
        return NULL;
    }
    if (xc_region_attach(fd, &region, &err) != XC_OK) {
        return xcpy_raise(self->state, &err);
    }
    (void)xc_link_offer(self->link, &region);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(withdraw_doc, "_withdraw($self, /)\n--\n\n"
                           "The far end does not take what _offer() has made.");

static PyObject *
Gateway_withdraw(GatewayObject *self, PyObject *unused)
{
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    xc_link_withdraw(self->link);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(move_doc,
             "_move($self, /)\n--\n\n"
             "What is sent from now on goes through the memory of _offer() or _attach(); the other side does\n"
             "the same. Raises OSError when the connection has ended, or nine bytes take more than 10 seconds.");

static PyObject *
Gateway_move(GatewayObject *self, PyObject *unused)
{
    xc_status rc;
    xc_err err;
    (void)unused;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        rc = xc_link_move_nogil(self->link, &err);
    Py_END_ALLOW_THREADS
    if (rc != XC_OK) { /* about other ends the Python side knows more */
        return rc == XC_BAD || rc == XC_SYS ? xcpy_raise(self->state, &err) : xcpy_raise_ended(self, true);
    }
    Py_RETURN_NONE;
}

PyMethodDef xcpy_ring_methods[] = {
    {"_share", (PyCFunction)Gateway_share, METH_NOARGS, share_doc},
    {"_offer", (PyCFunction)Gateway_offer, METH_NOARGS, offer_doc},
    {"_attach", (PyCFunction)Gateway_attach, METH_VARARGS, attach_doc},
    {"_withdraw", (PyCFunction)Gateway_withdraw, METH_NOARGS, withdraw_doc},
    {"_move", (PyCFunction)Gateway_move, METH_NOARGS, move_doc},
    {NULL, NULL, 0, NULL},
};
