/*
 * The extension module execnet_c._core: its state, and the list of what it is made of.
 */
#include "dump.h"
#include "error.h"
#include "load.h"

static int
module_exec(PyObject *module)
{
    xcpy_state *state = PyModule_GetState(module);
    state->empty_tuple = PyTuple_New(0);
    if (state->empty_tuple == NULL) {
        return -1;
    }
    if (xcpy_error_setup(module, state) < 0) {
        return -1;
    }
    if (PyModule_AddFunctions(module, xcpy_dump_methods) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, xcpy_load_methods);
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
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
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

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
