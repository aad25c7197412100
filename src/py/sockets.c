/*
 * Gateways over a connection that somebody else has made, a socket: there is no process of ours behind it, so none to
 * wait for. Policy is in execnet_c/near/sockets.py.
 */
#include "sockets.h"

#include <unistd.h>

#include "error.h"
#include "gateway.h"

PyDoc_STRVAR(
    start_on_doc,
    "_start_on($self, fd, /)\n--\n\n"
    "Be connected by this socket, which is taken. The far end is to write MARKER before its first frame. Where\n"
    "_signal() would signal its process, the connection ends: what has arrived is still read.");

static PyObject *
Gateway_start_on(GatewayObject *self, PyObject *args)
{
    int fd;
    xc_link_opts opts;
    xc_err err;
    if (!PyArg_ParseTuple(args, "i:_start_on", &fd)) {
        return NULL;
    }
    if (!xcpy_may_start(self, &opts)) {
        close(fd);
        return NULL;
    }
    self->link = xc_link_new(&opts, fd, fd, &err);
    if (self->link == NULL) {
        return xcpy_raise(self->state, &err);
    }
    Py_RETURN_NONE;
}

PyMethodDef xcpy_socket_methods[] = {
    {"_start_on", (PyCFunction)Gateway_start_on, METH_VARARGS, start_on_doc},
    {NULL, NULL, 0, NULL},
};
