/*
 * Two lock-free lists for each interpreter: a thread that adds never waits, and a fork cannot leave them locked. They
 * hold messages of the core; a payload is decoded when it is printed. Links may live longer than their interpreter, so
 * its lists are never freed.
 */
#include "warn.h"

#include <unistd.h>

#include "error.h"
#include "load.h"

/* At most so much waits to be printed: a far end may send any number of errors, and this end may be slow to print
 * them. */
enum { ORPHANS_MAX = 1024 * 1024 }; /* bytes */

static _Atomic(xcpy_left *) all; /* so that a leak checker finds them */

static void
put(_Atomic(xc_msg *) *list, xc_msg *msg)
{
    msg->next = atomic_load(list);
    while (!atomic_compare_exchange_weak(list, &msg->next, msg)) {
    }
}

/* Takes the whole list, oldest first. */
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

static void
drop_spaces(xcpy_left *left)
{
    for (xc_msg *msg = take_all(&left->spaces), *next; msg != NULL; msg = next) {
        next = msg->next;
        Py_XDECREF((PyObject *)msg->space);
        xc_msg_free(msg);
    }
}

int
xcpy_left_setup(xcpy_state *state)
{
    xcpy_left *left = xc_alloc(sizeof *left);
    if (left == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *left = (xcpy_left){.is_main = PyInterpreterState_Get() == PyInterpreterState_Main()};
    left->next = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &left->next, left)) {
    }
    state->left = left;
    return 0;
}

void
xcpy_left_end(xcpy_state *state)
{
    if (state->left != NULL) {
        atomic_store(&state->left->ended, true);
        drop_spaces(state->left);
        for (xc_msg *msg = take_all(&state->left->orphans), *next; msg != NULL; msg = next) {
            next = msg->next;
            xc_msg_free(msg);
        }
        state->left = NULL;
    }
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

static size_t
size_of(const xc_msg *msg)
{
    return sizeof *msg + msg->size;
}

void
xcpy_orphan_error(void *arg, xc_msg *msg)
{
    xcpy_left *left = arg;
    if (atomic_load(&left->ended)) {
        xc_msg_free(msg);
        return;
    }
    size_t size = size_of(msg);
    if (atomic_fetch_add(&left->waiting, size) > ORPHANS_MAX) {
        atomic_fetch_sub(&left->waiting, size);
        atomic_fetch_add(&left->left_out, 1);
        xc_msg_free(msg);
        return;
    }
    put(&left->orphans, msg);
    if (!left->is_main) {
        atomic_store(&left->due, true);
    }
    /* If the interpreter's list of calls is full, a later error, or the end of the program, prints this one, too. */
    if (left->is_main && Py_IsInitialized()) {
        (void)Py_AddPendingCall(print_pending, NULL);
    }
}

void
xcpy_drop_space_later(void *arg, xc_msg *msg)
{
    xcpy_left *left = arg;
    if (atomic_load(&left->ended)) {
        xc_msg_free(msg); /* the object was freed with its interpreter */
        return;
    }
    put(&left->spaces, msg);
    atomic_store(&left->due, true);
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

static void
print_left(xcpy_state *state)
{
    xcpy_left *left = state->left;
    for (xc_msg *msg = take_all(&left->orphans), *next; msg != NULL; msg = next) {
        next = msg->next;
        print_one(state, msg);
        atomic_fetch_sub(&left->waiting, size_of(msg));
        xc_msg_free(msg);
    }
    size_t more = atomic_exchange(&left->left_out, 0);
    PyObject *file = PySys_GetObject("stderr"); /* borrowed */
    if (more > 0 && file != NULL && file != Py_None) {
        PySys_FormatStderr("[%ld] Warning: %zu more unhandled errors are left out\n", (long)getpid(), more);
    }
}

void
xcpy_clear_due(xcpy_state *state)
{
    xcpy_left *left = state->left;
    atomic_store(&left->due, false); /* first, so that what is added from now on is due again */
    drop_spaces(left);
    if (!left->is_main) {
        print_left(state);
    }
}

static PyObject *
print_orphans(PyObject *module, PyObject *unused)
{
    (void)unused;
    print_left(PyModule_GetState(module));
    Py_RETURN_NONE;
}

PyMethodDef xcpy_warn_methods[] = {
    {"_print_orphans", print_orphans, METH_NOARGS,
     "_print_orphans()\n--\n\nWrite to sys.stderr the errors that came for channels nobody holds any more."},
    {NULL, NULL, 0, NULL},
};
