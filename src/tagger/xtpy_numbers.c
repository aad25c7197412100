/*
 * Tags as numbers alone, and their way back to the words: for a far end that answers somebody who has the words.
 */
#include "xtpy_model.h"

/* ---- appending ---- */

/* Bytes of a number: the classes decide. */
static size_t
width_of(const xt_model *model)
{
    return model->head->n_classes <= 256 ? 1 : 2;
}

int
xtpy_numbers_add(PyObject *numbers, const xt_model *model, const xt_batch *batch)
{
    const size_t width = width_of(model), before = (size_t)PyByteArray_GET_SIZE(numbers);
    if (batch->n_words > (PY_SSIZE_T_MAX - before) / width) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyByteArray_Resize(numbers, (Py_ssize_t)(before + batch->n_words * width)) < 0) {
        return -1;
    }
    unsigned char *to = (unsigned char *)PyByteArray_AS_STRING(numbers) + before;
    for (size_t i = 0; i < batch->n_words; i++) {
        *to++ = (unsigned char)batch->labels[i];
        if (width == 2) {
            *to++ = (unsigned char)(batch->labels[i] >> 8);
        }
    }
    return 0;
}

/* ---- pairing ---- */

typedef struct {
    const unsigned char *at, *end;
    size_t width;
    PyObject *tags; /* borrowed */
} reader;

/* The next tag, borrowed; NULL with ValueError. */
static PyObject *
next_tag(reader *from)
{
    size_t number = (size_t)PyTuple_GET_SIZE(from->tags);
    if ((size_t)(from->end - from->at) >= from->width) {
        number = from->width == 1 ? from->at[0] : (size_t)from->at[1] << 8 | from->at[0];
        from->at += from->width;
    }
    if (number >= (size_t)PyTuple_GET_SIZE(from->tags)) {
        PyErr_SetString(PyExc_ValueError, "these numbers are not the tags of these sentences");
        return NULL;
    }
    return PyTuple_GET_ITEM(from->tags, number);
}

static PyObject *
paired(PyObject *sentence, reader *from)
{
    PyObject *words = PyUnicode_Check(sentence) ? NULL : PySequence_Fast(sentence, "a sentence is to be a list");
    if (words == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "a sentence is to be a list, not str");
        }
        return NULL;
    }
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(words);
    const bool gc = xtpy_pause_gc();
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; list != NULL && i < n; i++) {
        PyObject *word = PySequence_Fast_GET_ITEM(words, i), *tag = next_tag(from);
        PyObject *pair = tag != NULL ? PyTuple_New(2) : NULL;
        if (pair == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyTuple_SET_ITEM(pair, 0, Py_NewRef(word));
        PyTuple_SET_ITEM(pair, 1, Py_NewRef(tag));
        if (PyUnicode_CheckExact(word)) {
            PyObject_GC_UnTrack(pair);
        }
        PyList_SET_ITEM(list, i, pair);
    }
    xtpy_resume_gc(gc);
    Py_DECREF(words);
    return list;
}

PyObject *
xtpy_numbers_pair(PyObject *sentences, PyObject *numbers, const xt_model *model, PyObject *tags)
{
    Py_buffer view;
    PyObject *result = NULL, *given = PySequence_Fast(sentences, "sentences are to be a list");
    if (given == NULL) {
        return NULL;
    }
    if (PyObject_GetBuffer(numbers, &view, PyBUF_SIMPLE) < 0) {
        Py_DECREF(given);
        return NULL;
    }
    reader from = {view.buf, (const unsigned char *)view.buf + view.len, width_of(model), tags};
    result = PyList_New(0);
    /* A sentence's own code may change the list. */
    for (Py_ssize_t i = 0; result != NULL && i < PySequence_Fast_GET_SIZE(given); i++) {
        PyObject *sentence = Py_NewRef(PySequence_Fast_GET_ITEM(given, i));
        PyObject *one = paired(sentence, &from);
        Py_DECREF(sentence);
        if (one == NULL || PyList_Append(result, one) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(one);
    }
    if (result != NULL && from.at != from.end) {
        PyErr_SetString(PyExc_ValueError, "these numbers are not the tags of these sentences");
        Py_CLEAR(result);
    }
    PyBuffer_Release(&view);
    Py_DECREF(given);
    return result;
}
