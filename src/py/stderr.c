/*
 * A worker's stderr: it is lent ours (see ../core/system/xc_lend.h), or a thread asks for it with _stderr(). Policy is
 * in execnet_c/near/bootstrap.py and stderr.py.
 */
#include "stderr.h"

#include <sys/stat.h>

#include "error.h"
#include "gateway.h"

enum { STDERR_CHUNK = 64 * 1024 };

/* (fd in the worker, device, inode) of our `fd`; NULL with an exception. */
static PyObject *
identity_of(int worker_fd, int fd)
{
    struct stat about;
    if (fstat(fd, &about) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("(iKK)", worker_fd, (unsigned long long)about.st_dev, (unsigned long long)about.st_ino);
}

PyDoc_STRVAR(
    lend_doc,
    "_lend($self, by_pipe, /)\n--\n\n"
    "After _share(), and before _start(): lend the worker our stderr. Returns three times (fd over there,\n"
    "device, inode): of what its stderr is until it puts ours there, a pipe or the file; of the file, for its\n"
    "last words; of our stderr. None where somebody listens to it, or the fds cannot be had.");

static PyObject *
Gateway_lend(GatewayObject *self, PyObject *by_pipe)
{
    xc_err err;
    int first_fd = self->region.map != NULL ? 4 : 3;
    if (self->listens || self->link != NULL || self->lent.file >= 0 ||
        xc_lend(by_pipe == Py_True, &self->lent, &err) != XC_OK) {
        Py_RETURN_NONE;
    }
    PyObject *caught = identity_of(2, xc_lent_stderr(&self->lent));
    PyObject *file = identity_of(first_fd, self->lent.file);
    PyObject *ours = identity_of(first_fd + 1, self->lent.ours);
    PyObject *all = caught && file && ours ? PyTuple_Pack(3, caught, file, ours) : NULL;
    Py_XDECREF(caught);
    Py_XDECREF(file);
    Py_XDECREF(ours);
    return all;
}

PyDoc_STRVAR(listen_doc, "_listen($self, /)\n--\n\n"
                         "To be called before _start(): the far end's stderr is for _stderr(), and does not pass\n"
                         "through to ours.");

static PyObject *
Gateway_listen(GatewayObject *self, PyObject *unused)
{
    (void)unused;
    self->listens = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stderr_doc,
             "_stderr($self, knows_end, /)\n--\n\n"
             "Wait for more of the far end's stderr, or that its process ends (unless that is known), or that nothing\n"
             "more will come. Returns (data, lost, ended, closed): `lost` bytes stood before `data` and are gone,\n"
             "because 1 MiB is kept; with `ended` this was the last of what the process had said.");

static PyObject *
Gateway_stderr(GatewayObject *self, PyObject *knows_end)
{
    unsigned char *chunk;
    xc_said said;
    xc_status rc;
    if (xcpy_check_usable(self) < 0) {
        return NULL;
    }
    if (self->launch == NULL || !self->listens) {
        PyErr_SetString(PyExc_OSError, "nobody listens to the far end's stderr");
        return NULL;
    }
    chunk = PyMem_Malloc(STDERR_CHUNK);
    if (chunk == NULL) {
        return PyErr_NoMemory();
    }
    do {
        Py_BEGIN_ALLOW_THREADS
            rc = xc_launch_listen_nogil(self->launch, knows_end == Py_True, XC_FOREVER, chunk, STDERR_CHUNK, &said);
        Py_END_ALLOW_THREADS
    } while (rc != XC_OK && PyErr_CheckSignals() == 0);
    PyObject *result = NULL;
    if (rc == XC_OK) {
        result = Py_BuildValue("y#nOO", chunk, (Py_ssize_t)said.n, (Py_ssize_t)said.lost,
                               said.ended ? Py_True : Py_False, said.closed ? Py_True : Py_False);
    }
    PyMem_Free(chunk);
    return result;
}

PyMethodDef xcpy_stderr_methods[] = {
    {"_lend", (PyCFunction)Gateway_lend, METH_O, lend_doc},
    {"_listen", (PyCFunction)Gateway_listen, METH_NOARGS, listen_doc},
    {"_stderr", (PyCFunction)Gateway_stderr, METH_O, stderr_doc},
    {NULL, NULL, 0, NULL},
};
