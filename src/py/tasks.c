/*
 * How a worker's threads get their tasks. No task is lost: one that cannot be loaded is handed over as the exception
 * about that, and if there is no memory even for that, the far end is told from here.
 */
#include "tasks.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"
#include "error.h"
#include "io.h"
#include "item.h"

#if defined(__GLIBC__)
static bool
load_unwinder(void)
{
    return dlopen("libgcc_s.so.1", RTLD_NOW) != NULL;
}

static bool
is_null_device(int fd)
{
    struct stat about, null;
    return fstat(fd, &about) == 0 && stat("/dev/null", &null) == 0 && S_ISCHR(about.st_mode) &&
           about.st_rdev == null.st_rdev;
}
#endif

void
xcpy_have_threads_end(void)
{
#if defined(__GLIBC__)
    if (!load_unwinder() && is_null_device(0)) {
        close(0);
        (void)load_unwinder();
        int fd = open("/dev/null", O_RDONLY);
        if (fd > 0) { /* another thread has opened a file as fd 0 */
            close(fd);
        }
    }
#endif
}

PyDoc_STRVAR(
    next_task_doc,
    "_next_task($self, primary, slot, /)\n--\n\n"
    "Wait for a task: its channel and payload object are put into the list `slot`; instead of a payload\n"
    "that cannot be loaded, the exception. False: there will be none. `primary`: the main thread, which\n"
    "takes what it can before any other. Others may get an interrupt instead: the id of a task's channel alone.\n"
    "An exception out of a signal handler may come when the task is in the slot already.");

/* The payload's object, or the exception raised by loading it; msg is taken. New reference, or NULL with an
 * exception. */
static PyObject *
load_task(GatewayObject *self, xc_msg *msg)
{
    size_t size = msg->size;
    PyObject *task = xcpy_load_item(self, msg, NULL);
    if (task == NULL) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Format(PyExc_MemoryError, "no memory for a task of %zu bytes", size);
        }
        task = xcpy_take_cause();
    }
    return task;
}

/* Puts the task into `slot`; takes msg and chan. False: there is no memory for that, and the far end was told. */
static bool
hand_over_task(GatewayObject *self, xc_msg *msg, xc_chan *chan, PyObject *slot, bool is_primary)
{
    size_t size = msg->size;
    PyObject *channel = xcpy_channel_of(self, chan), *task = NULL, *pair = NULL; /* all owned */
    if (channel == NULL) {
        xc_link_refuse_task(self->link, chan, size, is_primary); /* `msg` still holds `chan` */
        xc_link_free_msg(self->link, msg);
        PyErr_Clear();
        return false;
    }
    task = load_task(self, msg);
    if (task != NULL) {
        pair = PyTuple_Pack(2, channel, task);
    }
    bool kept = pair != NULL && PyList_SetSlice(slot, 0, 0, pair) == 0;
    if (!kept) {
        xc_link_refuse_task(self->link, chan, size, is_primary);
        PyErr_Clear();
    }
    Py_XDECREF(pair);
    Py_XDECREF(task);
    Py_DECREF(channel);
    return kept;
}

/* Puts the id of the task's channel into `slot`; takes msg. */
static PyObject *
hand_over_interrupt(GatewayObject *self, xc_msg *msg, PyObject *slot)
{
    PyObject *id = PyLong_FromLong((int32_t)msg->chan);
    int kept = id == NULL ? -1 : PyList_Append(slot, id);
    Py_XDECREF(id);
    xc_link_free_msg(self->link, msg);
    return kept < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *
Gateway_next_task(GatewayObject *self, PyObject *args)
{
    PyObject *slot;
    int is_primary;
    if (!PyArg_ParseTuple(args, "pO!:_next_task", &is_primary, &PyList_Type, &slot)) {
        return NULL;
    }
    for (;;) {
        xc_wait wait = {.kind = is_primary ? XC_WAIT_TASK : XC_WAIT_TASK_SPARE, .until = XC_FOREVER};
        xc_msg *msg;
        xc_chan *chan;
        if (xcpy_check_usable(self) < 0 || xcpy_wait(self, &wait) < 0) {
            return NULL;
        }
        if (!is_primary && (msg = xc_link_next_interrupt(self->link)) != NULL) {
            return hand_over_interrupt(self, msg, slot);
        }
        xc_status rc = xc_link_take_task(self->link, is_primary, &msg, &chan);
        if (rc == XC_CLOSED) {
            Py_RETURN_FALSE;
        }
        if (rc == XC_OK && hand_over_task(self, msg, chan, slot, is_primary)) {
            Py_RETURN_TRUE;
        }
    }
}

PyDoc_STRVAR(task_done_doc, "_task_done($self, primary, /)\n--\n\n"
                            "The task that _next_task(primary, ...) gave is over.");

static PyObject *
Gateway_task_done(GatewayObject *self, PyObject *primary)
{
    if (self->link != NULL && !xc_link_forked(self->link)) { /* nothing in a forked child */
        xc_link_task_done(self->link, primary == Py_True);
    }
    Py_RETURN_NONE;
}

PyMethodDef xcpy_task_methods[] = {
    {"_next_task", (PyCFunction)Gateway_next_task, METH_VARARGS, next_task_doc},
    {"_task_done", (PyCFunction)Gateway_task_done, METH_O, task_done_doc},
    {NULL, NULL, 0, NULL},
};
