/* What differs between CPython 3.10 and 3.15, and without the GIL, in one place. */
#ifndef XCPY_COMPAT_H
#define XCPY_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>

#if PY_VERSION_HEX < 0x030a0000
#error "execnet_c needs CPython 3.10 or newer"
#endif

/* Between these, nobody else changes the object. Without the GIL its lock makes sure of that, which is given up where
 * the GIL would be, and while another lock is waited for. A block, not to be left by return or goto. */
#ifdef Py_GIL_DISABLED
#define XCPY_LOCK(object) Py_BEGIN_CRITICAL_SECTION(object)
#define XCPY_UNLOCK()     Py_END_CRITICAL_SECTION()
#else
#define XCPY_LOCK(object)                                                                                              \
    {                                                                                                                  \
        (void)(object)
#define XCPY_UNLOCK() }
#endif

/* The value of `key`, taken out of the dict: new reference; NULL without an exception: there is none. Of two threads
 * that ask for the same, one gets it. */
static inline PyObject *
xcpy_dict_pop(PyObject *dict, PyObject *key)
{
    PyObject *value;
#if PY_VERSION_HEX >= 0x030d0000
    (void)PyDict_Pop(dict, key, &value);
#else
    value = PyDict_GetItemWithError(dict, key);
    Py_XINCREF(value);
    if (value != NULL && PyDict_DelItem(dict, key) < 0) {
        Py_CLEAR(value);
    }
#endif
    PyErr_Clear();
    return value;
}

/* The same, and the dict keeps it. */
static inline PyObject *
xcpy_dict_get(PyObject *dict, PyObject *key)
{
    PyObject *value;
#if PY_VERSION_HEX >= 0x030d0000
    (void)PyDict_GetItemRef(dict, key, &value);
#else
    value = PyDict_GetItemWithError(dict, key);
    Py_XINCREF(value);
#endif
    PyErr_Clear();
    return value;
}

/* One count more of an object to which somebody has a pointer without a count. False: it is being freed. The caller
 * makes sure that its memory is there; xcpy_may_be_kept was called when it was made. */
static inline bool
xcpy_keep(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030e0000
    return PyUnstable_TryIncRef(object) != 0;
#elif defined(Py_GIL_DISABLED)
    /* As later versions do it: the owner's count is his alone, and the shared one is left alone once it is 0 for good.
     */
    if (_Py_IsOwnedByCurrentThread(object)) {
        Py_INCREF(object);
        return true;
    }
    Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&object->ob_ref_shared);
    while (shared != 0 && shared != _Py_REF_MERGED) {
        if (_Py_atomic_compare_exchange_ssize(&object->ob_ref_shared, &shared, shared + (1 << _Py_REF_SHARED_SHIFT))) {
            return true;
        }
    }
    return false;
#else
    if (Py_REFCNT(object) == 0) {
        return false;
    }
    Py_INCREF(object);
    return true;
#endif
}

/* Before anybody gets a pointer for xcpy_keep. The object is new. */
static inline void
xcpy_may_be_kept(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030e0000
    PyUnstable_EnableTryIncRef(object);
#elif defined(Py_GIL_DISABLED)
    Py_ssize_t unshared = 0;
    (void)_Py_atomic_compare_exchange_ssize(&object->ob_ref_shared, &unshared, _Py_REF_MAYBE_WEAKREF);
#else
    (void)object;
#endif
}

#endif
