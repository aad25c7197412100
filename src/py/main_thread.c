/*
 * The main thread is the one that made the interpreter, or that forked. It need not be the process's first one: a
 * program may have Python in a thread of its own. It has the oldest of the interpreter's thread states; new ones are
 * put in front.
 */
#include "main_thread.h"

#include "../core/xc_sync.h"

static unsigned long
main_thread_of(PyInterpreterState *interp)
{
    unsigned long ident = 0;
    for (PyThreadState *thread = PyInterpreterState_ThreadHead(interp); thread != NULL;
         thread = PyThreadState_Next(thread)) {
        ident = thread->thread_id;
    }
    return ident;
}

bool
xcpy_on_main_thread(xcpy_state *state)
{
    uint32_t forks = xc_fork_count();
    if (!state->main_thread_known || state->main_thread_forks != forks) {
        PyInterpreterState *interp = PyInterpreterState_Get();
        state->main_thread = interp == PyInterpreterState_Main() ? main_thread_of(interp) : 0; /* no signals there */
        state->main_thread_forks = forks;
        state->main_thread_known = true;
    }
    return state->main_thread == PyThread_get_thread_ident();
}

static PyObject *
main_thread_ident(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLong(main_thread_of(PyInterpreterState_Get()));
}

PyMethodDef xcpy_main_thread_methods[] = {
    {"_main_thread_ident", main_thread_ident, METH_NOARGS,
     "_main_thread_ident()\n--\n\nThe ident of this interpreter's main thread."},
    {NULL, NULL, 0, NULL},
};
