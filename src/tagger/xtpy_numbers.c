/*
 * Tags as numbers only, and from them back to (word, tag): for a far end whose near end has the words. And sentences
 * packed into bytes: a batch as it is, which a far end can tag without making a str of any word.
 *
 * Packed, in the byte order of the machine that packs: a mark; the number of sentences, of words, of bytes of text; the
 * size of each sentence in words; the size of each word as in an xt_place; the text.
 */
#include "xtpy_model.h"

/* ---- appending ---- */

/* The bytes of a number; it depends on the number of classes. */
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

PyObject *
xtpy_raise_other_numbers(void)
{
    PyErr_SetString(PyExc_ValueError, "these numbers are not the tags of these sentences");
    return NULL;
}

typedef struct {
    const unsigned char *at, *end;
    size_t width;
    PyObject *tags;      /* borrowed */
    xtpy_shelf *shelves; /* borrowed; NULL for Docs */
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
        return xtpy_raise_other_numbers();
    }
    return PyTuple_GET_ITEM(from->tags, number);
}

static PyObject *
items_of(PyObject *sentence)
{
    if (PyUnicode_Check(sentence)) {
        PyErr_SetString(PyExc_TypeError, "a sentence is to be a list, not str");
        return NULL;
    }
    return xtpy_items(sentence, "a sentence is to be a list");
}

static bool
same_text(PyObject *a, PyObject *b)
{
    const size_t size = (size_t)PyUnicode_GET_LENGTH(a) * (size_t)PyUnicode_KIND(a);
    return a == b || (PyUnicode_GET_LENGTH(a) == PyUnicode_GET_LENGTH(b) && PyUnicode_KIND(a) == PyUnicode_KIND(b) &&
                      memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), size) == 0);
}

/* As pair_of() of xtpy_batch.c, for a word without an id: the word itself tells where its shelf is. */
static PyObject *
pair_with(PyObject *word, PyObject *tag, xtpy_shelf *shelves)
{
    if (!PyUnicode_CheckExact(word)) {
        return xtpy_new_pair(Py_NewRef(word), tag);
    }
    xtpy_shelf *shelf = &shelves[((size_t)PyObject_Hash(word) ^ (uintptr_t)tag >> 4) % XTPY_SHELVES];
    PyObject *before = shelf->pair;
    if (before != NULL && PyTuple_GET_ITEM(before, 1) == tag && same_text(PyTuple_GET_ITEM(before, 0), word)) {
        return Py_NewRef(before);
    }
    PyObject *pair = xtpy_new_pair(Py_NewRef(word), tag);
    if (pair != NULL) {
        *shelf = (xtpy_shelf){XT_NONE, 0, Py_NewRef(pair)};
        Py_XDECREF(before);
    }
    return pair;
}

static PyObject *
paired(PyObject *sentence, reader *from)
{
    PyObject *words = items_of(sentence);
    if (words == NULL) {
        return NULL;
    }
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(words);
    const bool gc = xtpy_pause_gc();
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; list != NULL && i < n; i++) {
        PyObject *word = PySequence_Fast_GET_ITEM(words, i), *tag = next_tag(from);
        PyObject *pair = tag != NULL ? pair_with(word, tag, from->shelves) : NULL;
        if (pair == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, pair);
    }
    xtpy_resume_gc(gc);
    Py_DECREF(words);
    return list;
}

/* A tuple of the words, if all are str. */
static PyObject *
tuple_of(PyObject *words)
{
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(words);
    PyObject *tuple = PyTuple_New(n), **items = PySequence_Fast_ITEMS(words);
    bool exact = n > 0;
    for (Py_ssize_t i = 0; tuple != NULL && i < n; i++) {
        if (i + XTPY_AHEAD < n) {
            __builtin_prefetch(items[i + XTPY_AHEAD], 1);
        }
        if (!PyUnicode_Check(items[i])) {
            PyErr_Format(PyExc_TypeError, "token %zd is of type %.100s, not str", i, Py_TYPE(items[i])->tp_name);
            Py_CLEAR(tuple);
            break;
        }
        exact = exact && PyUnicode_CheckExact(items[i]);
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(items[i]));
    }
    if (tuple != NULL && exact) {
        PyObject_GC_UnTrack(tuple);
    }
    return tuple;
}

static PyObject *
doc_of(PyObject *sentence, reader *from, xtpy_state *state)
{
    PyObject *items = items_of(sentence);
    const bool gc = xtpy_pause_gc();
    PyObject *words = items != NULL ? tuple_of(items) : NULL;
    xtpy_resume_gc(gc);
    Py_XDECREF(items);
    if (words == NULL) {
        return NULL;
    }
    const size_t n = (size_t)PyTuple_GET_SIZE(words);
    if ((size_t)(from->end - from->at) / from->width < n) {
        Py_DECREF(words);
        return xtpy_raise_other_numbers();
    }
    PyObject *doc = xtpy_doc_of(state, words, from->at, from->tags);
    from->at += n * from->width;
    return doc;
}

PyObject *
xtpy_numbers_pair(ModelObject *model, PyObject *sentences, PyObject *numbers, bool as_doc)
{
    Py_buffer view = {0};
    PyObject *result = NULL, *given = xtpy_items(sentences, "sentences are to be a list");
    xtpy_shelf *shelves = given == NULL || as_doc ? NULL : xtpy_take_shelves(model);
    if (given == NULL || PyObject_GetBuffer(numbers, &view, PyBUF_SIMPLE) < 0) {
        goto done;
    }
    if (shelves == NULL && !as_doc) {
        PyErr_NoMemory();
        goto done;
    }
    reader from = {view.buf, (const unsigned char *)view.buf + view.len, width_of(&model->model), model->tags, shelves};
    result = PyList_New(0);
    /* A sentence may run Python code, which may change the list. */
    for (Py_ssize_t i = 0; result != NULL && i < PySequence_Fast_GET_SIZE(given); i++) {
        PyObject *sentence = Py_NewRef(PySequence_Fast_GET_ITEM(given, i));
        PyObject *one = as_doc ? doc_of(sentence, &from, model->state) : paired(sentence, &from);
        Py_DECREF(sentence);
        if (one == NULL || PyList_Append(result, one) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(one);
    }
    if (result != NULL && from.at != from.end) {
        Py_SETREF(result, xtpy_raise_other_numbers());
    }
done:
    if (shelves != NULL) {
        xtpy_give_back_shelves(model, shelves);
    }
    PyBuffer_Release(&view);
    Py_XDECREF(given);
    return result;
}

/* ---- packing ---- */

#define PACKED 0x6b706378u

enum { MARK, N_DOCS, N_WORDS, N_TEXT, N_HEAD };

PyObject *
xtpy_numbers_pack(const xt_batch *batch)
{
    const size_t n_numbers = N_HEAD + batch->n_docs + batch->n_words;
    if (batch->n_docs > UINT32_MAX || batch->n_words > UINT32_MAX ||
        n_numbers > (PY_SSIZE_T_MAX - batch->n_text) / sizeof(uint32_t)) {
        PyErr_SetString(PyExc_OverflowError, "too many words at once");
        return NULL;
    }
    PyObject *packed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(n_numbers * sizeof(uint32_t) + batch->n_text));
    if (packed == NULL) {
        return NULL;
    }
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(packed);
    const uint32_t head[N_HEAD] = {PACKED, (uint32_t)batch->n_docs, (uint32_t)batch->n_words, (uint32_t)batch->n_text};
    memcpy(to, head, sizeof(head));
    to += sizeof(head);
    for (size_t i = 0; i < batch->n_docs; i++, to += sizeof(uint32_t)) {
        uint32_t size = (uint32_t)(batch->ends[i] - xt_batch_doc_start(batch, i));
        memcpy(to, &size, sizeof(size));
    }
    for (size_t i = 0; i < batch->n_words; i++, to += sizeof(uint32_t)) {
        memcpy(to, &batch->places[i].size, sizeof(uint32_t));
    }
    if (batch->n_text > 0) {
        memcpy(to, batch->text, batch->n_text);
    }
    return packed;
}

/* Adds the next word of the batch's text; `size` as in an xt_place. False: the text ends before it. */
static bool
add_place(xt_batch *batch, size_t *at, uint32_t size)
{
    const size_t start = *at, n = size & XT_LONGEST_WORD;
    if (n > batch->n_text - *at) {
        return false;
    }
    *at += n;
    if (size & XT_HAS_NORMAL) {
        uint32_t more;
        if (batch->n_text - *at < sizeof(more)) {
            return false;
        }
        memcpy(&more, batch->text + *at, sizeof(more));
        *at += sizeof(more);
        if (more > batch->n_text - *at) {
            return false;
        }
        *at += more;
    }
    batch->places[batch->n_words++] = (xt_place){(uint32_t)start, size};
    return true;
}

/* Unpacks into an empty batch. XC_BAD: these bytes were not packed by us, or are incomplete. */
static xc_status
unpack(xt_batch *batch, xt_span packed, xc_err *err)
{
    uint32_t head[N_HEAD], size;
    if (packed.size < sizeof(head)) {
        return xc_fail(err, XC_BAD, 0, "these bytes are no packed sentences");
    }
    memcpy(head, packed.at, sizeof(head));
    const uint64_t n_numbers = N_HEAD + (uint64_t)head[N_DOCS] + head[N_WORDS];
    if (head[MARK] != PACKED || n_numbers * sizeof(uint32_t) + head[N_TEXT] != packed.size) {
        return xc_fail(err, XC_BAD, 0, "these bytes are no packed sentences");
    }
    xc_status rc = xt_batch_reserve_text(batch, head[N_TEXT], err);
    rc = rc == XC_OK ? xt_batch_reserve_words(batch, head[N_WORDS], err) : rc;
    if (rc != XC_OK) {
        return rc;
    }
    const unsigned char *docs = packed.at + sizeof(head), *sizes = docs + head[N_DOCS] * sizeof(uint32_t);
    memcpy(batch->text, sizes + head[N_WORDS] * sizeof(uint32_t), head[N_TEXT]);
    batch->n_text = head[N_TEXT];
    size_t at = 0;
    for (uint32_t doc = 0; doc < head[N_DOCS]; doc++) {
        memcpy(&size, docs + doc * sizeof(uint32_t), sizeof(size));
        if (size > head[N_WORDS] - batch->n_words) {
            return xc_fail(err, XC_BAD, 0, "these bytes are no packed sentences");
        }
        for (; size > 0; size--) {
            uint32_t place;
            memcpy(&place, sizes + batch->n_words * sizeof(uint32_t), sizeof(place));
            if (!add_place(batch, &at, place)) {
                return xc_fail(err, XC_BAD, 0, "these bytes are no packed sentences");
            }
        }
        rc = xt_batch_end_doc(batch, err);
        if (rc != XC_OK) {
            return rc;
        }
    }
    return batch->n_words == head[N_WORDS] && at == head[N_TEXT]
               ? XC_OK
               : xc_fail(err, XC_BAD, 0, "these bytes are no packed sentences");
}

int
xtpy_numbers_unpack(xt_batch *batch, PyObject *packed)
{
    xc_err err;
    xt_span span = {(const unsigned char *)PyBytes_AS_STRING(packed), (size_t)PyBytes_GET_SIZE(packed)};
    if (unpack(batch, span, &err) != XC_OK) {
        xtpy_raise(&err);
        return -1;
    }
    return 0;
}
