/*
 * For types whose methods are in more than one file.
 */
#ifndef XCPY_METHODS_H
#define XCPY_METHODS_H

#include "compat.h"

/* Adds these methods, as PyType_FromModuleAndSpec() adds those of its spec. 0 or -1. */
static inline int
xcpy_add_methods(PyObject *type, PyMethodDef *defs)
{
    int added = 0;
    for (PyMethodDef *def = defs; added == 0 && def->ml_name != NULL; def++) {
        PyObject *method = PyDescr_NewMethod((PyTypeObject *)type, def);
        added = method == NULL ? -1 : PyObject_SetAttrString(type, def->ml_name, method);
        Py_XDECREF(method);
    }
    return added;
}

#endif
