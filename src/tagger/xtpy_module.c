/*
 * The extension module execnet_c._tagger: its state, functions that its files share, and the list of its parts.
 */
#include "xtpy_state.h"

#include "xc_sync.h"

#include <errno.h>

void *
xtpy_raise(const xc_err *err)
{
    switch (err->code) {
    case XC_NOMEM:
        PyErr_NoMemory();
        break;
    case XC_SYS:
        errno = err->sys_errno;
        PyErr_SetFromErrno(PyExc_OSError);
        break;
    case XC_LIMIT:
        PyErr_Format(PyExc_OverflowError, "%s%s%s", err->step, err->detail[0] ? ": " : "", err->detail);
        break;
    default:
        PyErr_Format(PyExc_ValueError, "%s%s%s", err->step, err->detail[0] ? ": " : "", err->detail);
    }
    return NULL;
}

int
xtpy_span(PyObject *text, const char *what, xt_span *span, PyObject **kept)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s: %R is no str", what, text);
        return -1;
    }
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        *kept = Py_NewRef(text);
        *span = (xt_span){PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text)};
        return 0;
    }
    *kept = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (*kept == NULL) {
        return -1;
    }
    *span = (xt_span){(unsigned char *)PyBytes_AS_STRING(*kept), (size_t)PyBytes_GET_SIZE(*kept)};
    return 0;
}

PyObject *
xtpy_text(xt_span span)
{
    return PyUnicode_DecodeUTF8((const char *)span.at, (Py_ssize_t)span.size, "surrogatepass");
}

#ifdef XC_DEBUG
/* PyGILState_Check() is always true where there are subinterpreters. */
static bool
holds_gil(void)
{
    PyThreadState *now = _PyThreadState_UncheckedGet();
    return now != NULL && now == PyGILState_GetThisThreadState();
}
#endif

static int
module_exec(PyObject *module)
{
    xtpy_state *state = PyModule_GetState(module);
    xc_sync_setup();
#ifdef XC_DEBUG
    xc_set_gil_probe(holds_gil);
#endif
    state->lower = PyUnicode_InternFromString("lower");
    if (state->lower == NULL || xtpy_model_setup(module, state) < 0 || xtpy_pipe_setup(module, state) < 0 ||
        xtpy_doc_setup(module, state) < 0) {
        return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    xtpy_state *state = PyModule_GetState(module);
#define VISIT(name) Py_VISIT(state->name);
    XTPY_STATE_FIELDS(VISIT)
#undef VISIT
    return 0;
}

static int
module_clear(PyObject *module)
{
    xtpy_state *state = PyModule_GetState(module);
#define CLEAR(name) Py_CLEAR(state->name);
    XTPY_STATE_FIELDS(CLEAR)
#undef CLEAR
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "execnet_c._tagger",
    .m_doc = "The averaged perceptron tagger of execnet_c.tagging, which needs no GIL.",
    .m_size = sizeof(xtpy_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__tagger(void)
{
    return PyModuleDef_Init(&module_def);
}
