/*
 * The extension module execnet_c._core: its state, and the list of its parts.
 */
#include "channel.h"
#include "compile.h"
#include "dump.h"
#include "error.h"
#include "gateway.h"
#include "load.h"
#include "main_thread.h"
#include "park.h"
#include "pickled.h"
#include "soon.h"
#include "trace.h"
#include "warn.h"

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
    xcpy_state *state = PyModule_GetState(module);
    state->no_endmarker = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    if (state->no_endmarker == NULL || PyModule_AddObjectRef(module, "NO_ENDMARKER_WANTED", state->no_endmarker) < 0) {
        return -1;
    }
    if (xcpy_left_setup(state) < 0 || xcpy_error_setup(module, state) < 0 || xcpy_memory_setup(module, state) < 0 ||
        xcpy_registration_setup(module, state) < 0 || xcpy_sending_setup(module, state) < 0 ||
        xcpy_gateway_setup(module, state) < 0 || xcpy_channel_setup(module, state) < 0) {
        return -1;
    }
    static const struct {
        const char *name;
        xc_code code;
    } codes[] = {{"DATA", XC_DATA},     {"EXEC", XC_EXEC},
                 {"CLOSE", XC_CLOSE},   {"CLOSE_ERROR", XC_CLOSE_ERROR},
                 {"HELLO", XC_HELLO},   {"RECONFIGURE", XC_RECONFIGURE},
                 {"STATUS", XC_STATUS}, {"INTERRUPT", XC_INTERRUPT}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (PyModule_AddIntConstant(module, codes[i].name, codes[i].code) < 0) {
            return -1;
        }
    }
    PyObject *marker = PyBytes_FromStringAndSize(XC_MARKER, XC_MARKER_SIZE);
    int added = marker == NULL ? -1 : PyModule_AddObjectRef(module, "MARKER", marker);
    Py_XDECREF(marker);
    if (added < 0) {
        return -1;
    }
#ifdef XC_DEBUG
    xc_set_gil_probe(holds_gil);
#endif
    PyMethodDef *functions[] = {xcpy_dump_methods,  xcpy_load_methods,    xcpy_warn_methods,
                                xcpy_trace_methods, xcpy_compile_methods, xcpy_main_thread_methods};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (PyModule_AddFunctions(module, functions[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    xcpy_state *state = PyModule_GetState(module);
#define VISIT(name) Py_VISIT(state->name);
    XCPY_STATE_FIELDS(VISIT)
#undef VISIT
    return 0;
}

static int
module_clear(PyObject *module)
{
    xcpy_state *state = PyModule_GetState(module);
#define CLEAR(name) Py_CLEAR(state->name);
    XCPY_STATE_FIELDS(CLEAR)
#undef CLEAR
#ifdef Py_GIL_DISABLED
    xcpy_free_strings(state);
#else
    for (size_t i = 0; i < XCPY_STRINGS; i++) {
        Py_CLEAR(state->strings[i]);
    }
#endif
    return 0;
}

static void
module_free(void *module)
{
    xcpy_left_end(PyModule_GetState(module));
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
    .m_name = "execnet_c._core",
    .m_doc = "The C core of execnet_c: gateways, channels and the serializer.",
    .m_size = sizeof(xcpy_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

xcpy_state *
xcpy_state_of(PyTypeObject *type)
{
    for (; type != NULL; type = type->tp_base) {
        PyObject *module = type->tp_flags & Py_TPFLAGS_HEAPTYPE ? PyType_GetModule(type) : NULL;
        if (module != NULL && PyModule_GetDef(module) == &module_def) {
            return PyModule_GetState(module);
        }
        PyErr_Clear();
    }
    PyErr_SetString(PyExc_SystemError, "a type that is none of execnet_c's");
    return NULL;
}

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
