/*
 * From Python's words to bytes and back: the part of tagging that needs the GIL, kept as small as possible.
 *
 * An ASCII word is copied as it is. For another word CPython is asked here what is lower case or a digit, and the
 * normal form goes along with the word.
 */
#include "xtpy_batch.h"

xtpy_batch *
xtpy_batch_new(void)
{
    xtpy_batch *batch = PyMem_Calloc(1, sizeof(*batch));
    if (batch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    xt_batch_init(&batch->c);
    return batch;
}

void
xtpy_batch_reset(xtpy_batch *batch)
{
    for (size_t i = 0; i < batch->n_held; i++) {
        Py_XDECREF(batch->words[i]);
    }
    batch->n_held = 0;
    xt_batch_reset(&batch->c);
    if (batch->room_held > batch->c.room_words) {
        PyMem_Free(batch->words);
        batch->words = NULL;
        batch->room_held = 0;
    }
}

void
xtpy_batch_free(xtpy_batch *batch)
{
    if (batch != NULL) {
        xtpy_batch_reset(batch);
        xt_batch_fini(&batch->c);
        PyMem_Free(batch->words);
        PyMem_Free(batch);
    }
}

/* ---- filling ---- */

static unsigned char *
put_character(unsigned char *to, Py_UCS4 c)
{
    if (c < 0x80) {
        *to++ = (unsigned char)c;
    }
    else if (c < 0x800) {
        *to++ = (unsigned char)(0xC0 | c >> 6);
        *to++ = (unsigned char)(0x80 | (c & 0x3F));
    }
    else if (c < 0x10000) {
        *to++ = (unsigned char)(0xE0 | c >> 12);
        *to++ = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        *to++ = (unsigned char)(0x80 | (c & 0x3F));
    }
    else {
        *to++ = (unsigned char)(0xF0 | c >> 18);
        *to++ = (unsigned char)(0x80 | (c >> 12 & 0x3F));
        *to++ = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        *to++ = (unsigned char)(0x80 | (c & 0x3F));
    }
    return to;
}

/* Appends the characters of `text` to the batch's text. Returns their size in bytes, or -1 with an exception. */
static Py_ssize_t
add_characters(xtpy_batch *batch, PyObject *text)
{
    xc_err err;
    const Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    const int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    if (n > XT_LONGEST_WORD / 4) {
        PyErr_SetString(PyExc_OverflowError, "a word of more than half a GiB");
        return -1;
    }
    if (xt_batch_reserve_text(&batch->c, (size_t)n * 4, &err) != XC_OK) {
        xtpy_raise(&err);
        return -1;
    }
    unsigned char *start = batch->c.text + batch->c.n_text, *to = start;
    for (Py_ssize_t i = 0; i < n; i++) {
        to = put_character(to, PyUnicode_READ(kind, data, i));
    }
    batch->c.n_text += (size_t)(to - start);
    return to - start;
}

static bool
all_digits(PyObject *word)
{
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(word); i++) {
        if (!Py_UNICODE_ISDIGIT(PyUnicode_READ_CHAR(word, i))) {
            return false;
        }
    }
    return true;
}

/* NLTK's normal form of a word that is not empty, as a new str. */
static PyObject *
normal_form(xtpy_state *state, PyObject *word)
{
    const Py_UCS4 first = PyUnicode_READ_CHAR(word, 0);
    if (first != '-') {
        Py_ssize_t at = PyUnicode_FindChar(word, '-', 1, PyUnicode_GET_LENGTH(word), 1);
        if (at >= 0) {
            return PyUnicode_FromString("!HYPHEN");
        }
        if (at == -2) {
            return NULL;
        }
    }
    if (Py_UNICODE_ISDIGIT(first)) {
        bool year = PyUnicode_GET_LENGTH(word) == 4 && all_digits(word);
        return PyUnicode_FromString(year ? "!YEAR" : "!DIGITS");
    }
    return PyObject_CallMethodOneArg((PyObject *)&PyUnicode_Type, state->lower, word);
}

static int
add_other_word(xtpy_batch *batch, xtpy_state *state, PyObject *word, xt_place *place)
{
    xc_err err;
    place->at = (uint32_t)batch->c.n_text;
    Py_ssize_t raw = add_characters(batch, word);
    if (raw < 0) {
        return -1;
    }
    if (xt_batch_reserve_text(&batch->c, sizeof(uint32_t), &err) != XC_OK) {
        xtpy_raise(&err);
        return -1;
    }
    size_t at = batch->c.n_text;
    batch->c.n_text += sizeof(uint32_t);
    PyObject *normal = normal_form(state, word);
    Py_ssize_t n = normal != NULL ? add_characters(batch, normal) : -1;
    Py_XDECREF(normal);
    if (n < 0) {
        return -1;
    }
    uint32_t size = (uint32_t)n;
    memcpy(batch->c.text + at, &size, sizeof(size));
    place->size = (uint32_t)raw | XT_HAS_NORMAL;
    return 0;
}

static inline int
add_word(xtpy_batch *batch, xtpy_state *state, PyObject *word, xt_place *place)
{
    if (!PyUnicode_IS_COMPACT_ASCII(word)) {
        return add_other_word(batch, state, word, place);
    }
    xc_err err;
    size_t size = (size_t)PyUnicode_GET_LENGTH(word);
    /* Some bytes more than needed, so that the copying below can be simple. */
    if (size > XT_LONGEST_WORD || xt_batch_reserve_text(&batch->c, size + 16, &err) != XC_OK) {
        if (size > XT_LONGEST_WORD) {
            PyErr_SetString(PyExc_OverflowError, "a word of more than 2 GiB");
        }
        else {
            xtpy_raise(&err);
        }
        return -1;
    }
    unsigned char *to = batch->c.text + batch->c.n_text;
    const unsigned char *from = PyUnicode_DATA(word);
    /* Most words are short, and calling memcpy would take longer than the copy. */
    if (size >= 8 && size <= 16) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    }
    else if (size >= 4 && size < 8) {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    }
    else if (size < 4) {
        for (size_t i = 0; i < size; i++) {
            to[i] = from[i];
        }
    }
    else {
        memcpy(to, from, size);
    }
    *place = (xt_place){(uint32_t)batch->c.n_text, (uint32_t)size};
    batch->c.n_text += size;
    return 0;
}

static int
reserve(xtpy_batch *batch, size_t n)
{
    xc_err err;
    if (xt_batch_reserve_words(&batch->c, n, &err) != XC_OK) {
        xtpy_raise(&err);
        return -1;
    }
    if (batch->room_held < batch->c.room_words) {
        PyObject **words = PyMem_Realloc(batch->words, batch->c.room_words * sizeof(*words));
        if (words == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        batch->words = words;
        batch->room_held = batch->c.room_words;
    }
    return 0;
}

/* Adds the items of a list or tuple, which does not change meanwhile: nothing in here runs Python code, and see
 * xtpy_items(). */
static int
add_items(xtpy_batch *batch, xtpy_state *state, PyObject *doc)
{
    const size_t n = (size_t)PySequence_Fast_GET_SIZE(doc);
    if (reserve(batch, n) < 0) {
        return -1;
    }
    PyObject **items = PySequence_Fast_ITEMS(doc);
    xt_place *places = batch->c.places + batch->c.n_words;
    for (size_t i = 0; i < n; i++) {
        PyObject *word = items[i];
        if (i + XTPY_AHEAD < n) {
            __builtin_prefetch(items[i + XTPY_AHEAD]);
        }
        if (!PyUnicode_Check(word)) {
            PyErr_Format(PyExc_TypeError, "token %zu is of type %.100s, not str", i, Py_TYPE(word)->tp_name);
            return -1;
        }
#if PY_VERSION_HEX < 0x030c0000
        if (PyUnicode_READY(word) < 0) {
            return -1;
        }
#endif
        if (add_word(batch, state, word, &places[i]) < 0) {
            return -1;
        }
        batch->words[batch->n_held++] = batch->keep_words || !PyUnicode_CheckExact(word) ? Py_NewRef(word) : NULL;
    }
    batch->c.n_words += n;
    xc_err err;
    if (xt_batch_end_doc(&batch->c, &err) != XC_OK) {
        batch->c.n_words -= n;
        xtpy_raise(&err);
        return -1;
    }
    return 0;
}

/* NLTK would tag each character of a str, which nobody wants; here it is an error. */
static PyObject *
as_items(PyObject *doc)
{
    if (PyUnicode_Check(doc) || PyBytes_Check(doc) || PyByteArray_Check(doc) || !PySequence_Check(doc)) {
        PyErr_Format(PyExc_TypeError, "tokens are to be a list of str, not %.100s", Py_TYPE(doc)->tp_name);
        return NULL;
    }
    return PySequence_List(doc);
}

int
xtpy_batch_add(xtpy_batch *batch, xtpy_state *state, PyObject *doc)
{
    const size_t n_held = batch->n_held, n_text = batch->c.n_text;
    PyObject *items = PyList_Check(doc) || PyTuple_Check(doc) ? xtpy_items(doc, "") : as_items(doc);
    if (items == NULL) {
        return -1;
    }
    int rc = add_items(batch, state, items);
    Py_DECREF(items);
    if (rc < 0) {
        while (batch->n_held > n_held) {
            Py_XDECREF(batch->words[--batch->n_held]);
        }
        batch->c.n_text = n_text;
    }
    return rc;
}

/* ---- reading ---- */

static inline xtpy_shelf *
shelf_of(xtpy_shelf *shelves, uint32_t id, uint32_t label)
{
    return &shelves[(id * 2 ^ label) % XTPY_SHELVES];
}

/* The pair for word number i; `tag` is borrowed. */
static inline PyObject *
pair_of(xtpy_batch *batch, size_t i, PyObject *tag, xtpy_shelf *shelves)
{
    const uint32_t id = batch->c.ids[i], label = batch->c.labels[i];
    PyObject *word = batch->words[i];
    batch->words[i] = NULL;
    if (word != NULL && !PyUnicode_CheckExact(word)) {
        return xtpy_new_pair(word, tag);
    }
    xtpy_shelf *shelf = id != XT_NONE ? shelf_of(shelves, id, label) : NULL;
    if (shelf != NULL && shelf->pair != NULL && shelf->id == id && shelf->label == label) {
        Py_XDECREF(word);
        return Py_NewRef(shelf->pair);
    }
    if (word == NULL) {
        const xt_place *place = &batch->c.places[i];
        word = xtpy_text((xt_span){batch->c.text + place->at, place->size & XT_LONGEST_WORD});
    }
    PyObject *pair = word != NULL ? xtpy_new_pair(word, tag) : NULL;
    if (pair != NULL && shelf != NULL) {
        PyObject *before = shelf->pair;
        *shelf = (xtpy_shelf){id, label, Py_NewRef(pair)};
        Py_XDECREF(before);
    }
    return pair;
}

PyObject *
xtpy_batch_list(xtpy_batch *batch, size_t doc, PyObject *tags, xtpy_shelf *shelves)
{
    const size_t start = xt_batch_doc_start(&batch->c, doc), end = batch->c.ends[doc];
    PyObject *list = PyList_New((Py_ssize_t)(end - start));
    if (list == NULL) {
        return NULL;
    }
    for (size_t i = start; i < end; i++) {
        if (i + 2 * XTPY_AHEAD < batch->c.n_words) {
            const size_t soon = i + XTPY_AHEAD, later = i + 2 * XTPY_AHEAD;
            __builtin_prefetch(shelf_of(shelves, batch->c.ids[later], batch->c.labels[later]));
            __builtin_prefetch(shelf_of(shelves, batch->c.ids[soon], batch->c.labels[soon])->pair, 1);
        }
        PyObject *pair = pair_of(batch, i, PyTuple_GET_ITEM(tags, batch->c.labels[i]), shelves);
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)(i - start), pair);
    }
    return list;
}

PyObject *
xtpy_batch_words(xtpy_batch *batch, size_t doc)
{
    const size_t start = xt_batch_doc_start(&batch->c, doc), end = batch->c.ends[doc];
    PyObject *words = PyTuple_New((Py_ssize_t)(end - start));
    if (words == NULL) {
        return NULL;
    }
    bool exact = true;
    for (size_t i = start; i < end; i++) {
        exact = exact && PyUnicode_CheckExact(batch->words[i]);
        PyTuple_SET_ITEM(words, (Py_ssize_t)(i - start), batch->words[i]);
        batch->words[i] = NULL;
    }
    if (exact && start < end) { /* see xtpy_new_pair(); the empty tuple is shared by all */
        PyObject_GC_UnTrack(words);
    }
    return words;
}
