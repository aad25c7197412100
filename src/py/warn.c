/*
 * Two lock-free lists: a thread that adds never waits, and a fork cannot leave them locked. They hold core messages; a
 * payload is decoded when it is printed.
 */
#include "warn.h"

#include <stdatomic.h>

#include "error.h"
#include "load.h"

static _Atomic(xc_msg *) orphans;
static _Atomic(xc_msg *) spaces;

static void
put(_Atomic(xc_msg *) *list, xc_msg *msg)
{
    msg->next = atomic_load(list);
    while (!atomic_compare_exchange_weak(list, &msg->next, msg)) {
    }
}

/* All of it, oldest first. */
static xc_msg *
take_all(_Atomic(xc_msg *) *list)
{
    xc_msg *newest = atomic_exchange(list, NULL), *oldest = NULL;
    while (newest != NULL) {
        xc_msg *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static int
print_pending(void *unused)
{
    (void)unused;
    PyObject *core = PyImport_ImportModule("execnet_c._core");
    PyObject *result = core == NULL ? NULL : PyObject_CallMethod(core, "_print_orphans", NULL);
    Py_XDECREF(core);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
xcpy_orphan_error(void *arg, xc_msg *msg)
{
    (void)arg;
    put(&orphans, msg);
    /* Should the interpreter's list be full, a later error, or the end of the program, prints this one too. */
    if (Py_IsInitialized()) {
        (void)Py_AddPendingCall(print_pending, NULL);
    }
}

void
xcpy_drop_space_later(void *arg, xc_msg *msg)
{
    (void)arg;
    put(&spaces, msg);
}

void
xcpy_drop_spaces(void)
{
    if (atomic_load_explicit(&spaces, memory_order_relaxed) == NULL) {
        return;
    }
    for (xc_msg *msg = take_all(&spaces), *next; msg != NULL; msg = next) {
        next = msg->next;
        Py_XDECREF((PyObject *)msg->space);
        xc_msg_free(msg);
    }
}

static void
print_one(xcpy_state *state, const xc_msg *msg)
{
    xcpy_load_opts opts = {.state = state};
    PyObject *error = xcpy_remote_error_of(state, xcpy_load(&opts, msg->data, msg->size, 0));
    PyObject *result = error == NULL ? NULL : PyObject_CallMethod(error, "warn", NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable(state->RemoteError);
    }
    Py_XDECREF(error);
    Py_XDECREF(result);
}

static PyObject *
print_orphans(PyObject *module, PyObject *unused)
{
    (void)unused;
    for (xc_msg *msg = take_all(&orphans), *next; msg != NULL; msg = next) {
        next = msg->next;
        print_one(PyModule_GetState(module), msg);
        xc_msg_free(msg);
    }
    Py_RETURN_NONE;
}

PyMethodDef xcpy_warn_methods[] = {
    {"_print_orphans", print_orphans, METH_NOARGS,
     "_print_orphans()\n--\n\nWrite to sys.stderr the errors that came for channels nobody holds any more."},
    {NULL, NULL, 0, NULL},
};
