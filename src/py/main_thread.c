/*
 * The main thread is the one that made the interpreter, or that forked. It need not be the first thread of the process:
 * a program may run Python in another one. It has the oldest of the interpreter's thread states, which is the last in
 * the list, because new ones are put in front. Without the GIL nobody may walk through that list, but there the
 * interpreter tells which thread it is.
 */
#include "main_thread.h"

#include "xc_sync.h"

#include <sys/syscall.h>
#include <unistd.h>

#define LONGEST        (5 * XC_S)
#define LONGEST_BESIDE (50 * XC_MS)

#ifdef Py_GIL_DISABLED
static unsigned long
main_thread_of(PyInterpreterState *interp)
{
    PyObject *module = PyImport_ImportModule("_thread");
    PyObject *ident = module == NULL ? NULL : PyObject_CallMethod(module, "_get_main_thread_ident", NULL);
    unsigned long number = ident == NULL ? 0 : PyLong_AsUnsignedLong(ident);
    (void)interp;
    PyErr_Clear();
    Py_XDECREF(ident);
    Py_XDECREF(module);
    return number;
}
#else
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
#endif

/* The system delivers signals to the first thread of the process. If the main thread is another one, they do not end
 * its sleep. */
static int64_t
sleep_of_main_thread(void)
{
#if defined(__linux__)
    return syscall(SYS_gettid) == getpid() ? LONGEST : LONGEST_BESIDE;
#else
    return LONGEST;
#endif
}

int64_t
xcpy_longest_sleep(xcpy_state *state)
{
    unsigned known = xc_fork_count() + 1;
    if (atomic_load_explicit(&state->main_thread_forks, memory_order_acquire) != known) {
        PyInterpreterState *interp = PyInterpreterState_Get();
        /* In other interpreters no thread runs signal handlers. */
        atomic_store(&state->main_thread, interp == PyInterpreterState_Main() ? main_thread_of(interp) : 0);
        atomic_store(&state->longest_sleep, 0);
        atomic_store(&state->main_thread_forks, known);
    }
    if (atomic_load_explicit(&state->main_thread, memory_order_relaxed) != PyThread_get_thread_ident()) {
        return XC_FOREVER;
    }
    if (state->longest_sleep == 0) {
        state->longest_sleep = sleep_of_main_thread();
    }
    return state->longest_sleep;
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
