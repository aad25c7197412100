/*
 * The type Doc: a document's words, and the numbers of their tags in an array that is exported as a buffer.
 *
 * As bytes: 'D', a version, the size of a number (1 or 2), the number of words and of names, the number of names that
 * are used, for each used name its number, size and text, then the numbers, the sizes of the words, the words. Counts
 * and sizes have seven bits in each byte, the lowest first. Names that are not used are not kept. If the names are
 * those of NLTK's English tagger, as nearly always, they are not written at all, and their count is 0.
 */
#include "xtpy_model.h"

#define DOC_VERSION 1

/* Sorted, like a model's classes. A part of the format of Docs as bytes: it must never change. */
static const char *const english[] = {
    "#",   "$",   "''", "(",  ")",  ",",   ".",    ":",   "CC",  "CD",  "DT",  "EX",   "FW",  "IN",  "JJ",
    "JJR", "JJS", "LS", "MD", "NN", "NNP", "NNPS", "NNS", "PDT", "POS", "PRP", "PRP$", "RB",  "RBR", "RBS",
    "RP",  "SYM", "TO", "UH", "VB", "VBD", "VBG",  "VBN", "VBP", "VBZ", "WDT", "WP",   "WP$", "WRB", "``",
};

#define N_ENGLISH ((Py_ssize_t)(sizeof(english) / sizeof(*english)))

typedef struct {
    PyObject_VAR_HEAD    /* one for each word */
        PyObject *words; /* owned: tuple of str */
    PyObject *names;     /* owned: tuple of str; None in it: a name that from_bytes does not know */
    Py_ssize_t width;    /* bytes of a number */
    Py_ssize_t shape, stride;
    uint16_t numbers[]; /* or, if width is 1, uint8_t */
} DocObject;

static uint32_t
number_at(const DocObject *self, Py_ssize_t i)
{
    return self->width == 1 ? ((const uint8_t *)self->numbers)[i] : self->numbers[i];
}

static void
set_number(DocObject *self, Py_ssize_t i, uint32_t number)
{
    if (self->width == 1) {
        ((uint8_t *)self->numbers)[i] = (uint8_t)number;
    }
    else {
        self->numbers[i] = (uint16_t)number;
    }
}

/* Takes the words and borrows the names. The numbers must be set next. */
static DocObject *
make(PyTypeObject *type, PyObject *words, PyObject *names)
{
    Py_ssize_t n = PyTuple_GET_SIZE(words);
    DocObject *self = (DocObject *)type->tp_alloc(type, n);
    if (self == NULL) {
        Py_DECREF(words);
        return NULL;
    }
    self->words = words;
    self->names = Py_NewRef(names);
    self->width = PyTuple_GET_SIZE(names) <= 256 ? 1 : 2;
    self->shape = n;
    self->stride = self->width;
    return self;
}

PyObject *
xtpy_doc_new(xtpy_state *state, xtpy_batch *batch, size_t doc, PyObject *tags)
{
    PyObject *words = xtpy_batch_words(batch, doc);
    DocObject *self = words != NULL ? make((PyTypeObject *)state->DocType, words, tags) : NULL;
    const uint16_t *labels = batch->c.labels + xt_batch_doc_start(&batch->c, doc);
    for (Py_ssize_t i = 0; self != NULL && i < self->shape; i++) {
        set_number(self, i, labels[i]);
    }
    return (PyObject *)self;
}

PyObject *
xtpy_doc_of(xtpy_state *state, PyObject *words, const unsigned char *numbers, PyObject *tags)
{
    DocObject *self = make((PyTypeObject *)state->DocType, words, tags);
    for (Py_ssize_t i = 0; self != NULL && i < self->shape; i++) {
        uint32_t number = self->width == 1 ? numbers[i] : (uint32_t)numbers[2 * i] | (uint32_t)numbers[2 * i + 1] << 8;
        if (number >= (size_t)PyTuple_GET_SIZE(tags)) {
            Py_DECREF(self);
            return xtpy_raise_other_numbers();
        }
        set_number(self, i, number);
    }
    return (PyObject *)self;
}

static void
Doc_dealloc(DocObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->words);
    Py_XDECREF(self->names);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- a sequence of (word, tag), a buffer of numbers ---- */

static PyObject *
tag_at(const DocObject *self, Py_ssize_t i)
{
    return Py_NewRef(PyTuple_GET_ITEM(self->names, number_at(self, i)));
}

static Py_ssize_t
Doc_length(DocObject *self)
{
    return self->shape;
}

static PyObject *
Doc_item(DocObject *self, Py_ssize_t i)
{
    if (i < 0 || i >= self->shape) {
        PyErr_SetString(PyExc_IndexError, "a word that this Doc has not");
        return NULL;
    }
    return Py_BuildValue("(ON)", PyTuple_GET_ITEM(self->words, i), tag_at(self, i));
}

static PyObject *
Doc_get_tags(DocObject *self, void *Py_UNUSED(closure))
{
    PyObject *tags = PyList_New(self->shape);
    for (Py_ssize_t i = 0; tags != NULL && i < self->shape; i++) {
        PyList_SET_ITEM(tags, i, tag_at(self, i));
    }
    return tags;
}

static PyObject *
Doc_compare(DocObject *self, PyObject *other, int op)
{
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(other) != Py_TYPE(self)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    DocObject *that = (DocObject *)other;
    int equal = self->shape == that->shape ? PyObject_RichCompareBool(self->words, that->words, Py_EQ) : 0;
    for (Py_ssize_t i = 0; equal > 0 && i < self->shape; i++) {
        equal = PyObject_RichCompareBool(PyTuple_GET_ITEM(self->names, number_at(self, i)),
                                         PyTuple_GET_ITEM(that->names, number_at(that, i)), Py_EQ);
    }
    return equal < 0 ? NULL : PyBool_FromLong((op == Py_EQ) == (equal != 0));
}

static int
Doc_getbuffer(DocObject *self, Py_buffer *view, int flags)
{
    if (flags & PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "the tags of a Doc can not be changed");
        return -1;
    }
    *view = (Py_buffer){
        .obj = Py_NewRef((PyObject *)self),
        .buf = self->numbers,
        .len = self->shape * self->width,
        .itemsize = self->width,
        .readonly = 1,
        .ndim = 1,
        .format = flags & PyBUF_FORMAT ? (self->width == 1 ? "B" : "H") : NULL,
        .shape = flags & PyBUF_ND ? &self->shape : NULL,
        .strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &self->stride : NULL,
    };
    return 0;
}

/* ---- as bytes ---- */

static unsigned char *
put_count(unsigned char *to, size_t count)
{
    for (; count >= 0x80; count >>= 7) {
        *to++ = (unsigned char)(0x80 | (count & 0x7F));
    }
    *to++ = (unsigned char)count;
    return to;
}

static bool
are_english(PyObject *names)
{
    if (PyTuple_GET_SIZE(names) != N_ENGLISH) {
        return false;
    }
    for (Py_ssize_t i = 0; i < N_ENGLISH; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (!PyUnicode_Check(name) || PyUnicode_CompareWithASCIIString(name, english[i]) != 0) {
            return false;
        }
    }
    return true;
}

static PyObject *
english_names(void)
{
    PyObject *names = PyTuple_New(N_ENGLISH);
    for (Py_ssize_t i = 0; names != NULL && i < N_ENGLISH; i++) {
        PyObject *name = PyUnicode_InternFromString(english[i]);
        if (name == NULL) {
            Py_CLEAR(names);
            break;
        }
        PyTuple_SET_ITEM(names, i, name);
    }
    return names;
}

/* A text that is to be written. */
typedef struct {
    xt_span span;
    PyObject *kept; /* owned: what the span borrows from */
} piece;

static void
free_pieces(piece *pieces, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Py_XDECREF(pieces[i].kept);
    }
    PyMem_Free(pieces);
}

/* The words, then the names that are used; a name that is not used stays empty, with kept == NULL. */
static piece *
gather(DocObject *self, size_t *room)
{
    const size_t n = (size_t)self->shape, n_names = (size_t)PyTuple_GET_SIZE(self->names);
    piece *pieces = PyMem_Calloc(n + n_names + 1, sizeof(*pieces));
    if (pieces == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *room = 32 + n * (size_t)self->width;
    for (size_t i = 0; i < 2 * n; i++) {
        size_t at = i < n ? i : n + number_at(self, (Py_ssize_t)(i - n));
        PyObject *text =
            i < n ? PyTuple_GET_ITEM(self->words, (Py_ssize_t)i) : PyTuple_GET_ITEM(self->names, (Py_ssize_t)(at - n));
        if (pieces[at].kept != NULL) {
            continue;
        }
        if (xtpy_span(text, "Doc", &pieces[at].span, &pieces[at].kept) < 0) {
            free_pieces(pieces, n + n_names);
            return NULL;
        }
        *room += pieces[at].span.size + 20;
    }
    return pieces;
}

static PyObject *
Doc_to_bytes(DocObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t room = 0;
    const size_t n = (size_t)self->shape, n_names = (size_t)PyTuple_GET_SIZE(self->names);
    const bool known = are_english(self->names);
    piece *pieces = gather(self, &room);
    PyObject *result = pieces != NULL ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room) : NULL;
    if (result == NULL) {
        free_pieces(pieces, pieces != NULL ? n + n_names : 0);
        return NULL;
    }
    unsigned char *start = (unsigned char *)PyBytes_AS_STRING(result), *to = start;
    size_t used = 0;
    for (size_t i = 0; i < n_names; i++) {
        used += !known && pieces[n + i].kept != NULL;
    }
    *to++ = 'D';
    *to++ = DOC_VERSION;
    *to++ = (unsigned char)self->width;
    to = put_count(put_count(put_count(to, n), known ? 0 : n_names), used);
    for (size_t i = 0; i < n_names && !known; i++) {
        const piece *name = &pieces[n + i];
        if (name->kept != NULL) {
            to = put_count(put_count(to, i), name->span.size);
            memcpy(to, name->span.at, name->span.size);
            to += name->span.size;
        }
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t number = number_at(self, (Py_ssize_t)i);
        *to++ = (unsigned char)number;
        if (self->width == 2) {
            *to++ = (unsigned char)(number >> 8);
        }
    }
    for (size_t i = 0; i < n; i++) {
        to = put_count(to, pieces[i].span.size);
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(to, pieces[i].span.at, pieces[i].span.size);
        to += pieces[i].span.size;
    }
    free_pieces(pieces, n + n_names);
    (void)_PyBytes_Resize(&result, to - start);
    return result;
}

typedef struct {
    const unsigned char *at, *end;
} cursor;

static bool
take_count(cursor *from, size_t *count)
{
    *count = 0;
    for (unsigned shift = 0; from->at < from->end && shift < 35; shift += 7) {
        unsigned char c = *from->at++;
        *count |= (size_t)(c & 0x7F) << shift;
        if (c < 0x80) {
            return true;
        }
    }
    return false;
}

static bool
take_bytes(cursor *from, size_t n, xt_span *span)
{
    if (n > (size_t)(from->end - from->at)) {
        return false;
    }
    *span = (xt_span){from->at, n};
    from->at += n;
    return true;
}

/* Makes a str the i-th item of a tuple. 1, 0 if the bytes end before it, -1 with an exception. */
static int
take_text(cursor *from, size_t size, PyObject *into, size_t i)
{
    xt_span span;
    if (!take_bytes(from, size, &span)) {
        return 0;
    }
    PyObject *text = xtpy_text(span);
    if (text == NULL) {
        return -1;
    }
    PyObject *before = PyTuple_GET_ITEM(into, (Py_ssize_t)i);
    PyTuple_SET_ITEM(into, (Py_ssize_t)i, text);
    Py_XDECREF(before);
    return 1;
}

static int
take_names(cursor *from, PyObject *names)
{
    size_t used, number, size;
    const size_t n = (size_t)PyTuple_GET_SIZE(names);
    for (size_t i = 0; i < n; i++) {
        PyTuple_SET_ITEM(names, (Py_ssize_t)i, Py_NewRef(Py_None));
    }
    if (!take_count(from, &used)) {
        return 0;
    }
    for (; used > 0; used--) {
        if (!take_count(from, &number) || number >= n || !take_count(from, &size)) {
            return 0;
        }
        int rc = take_text(from, size, names, number);
        if (rc <= 0) {
            return rc;
        }
    }
    return 1;
}

static int
take_words(cursor *from, PyObject *words)
{
    const size_t n = (size_t)PyTuple_GET_SIZE(words);
    cursor sizes = *from;
    size_t size;
    for (size_t i = 0; i < n; i++) {
        if (!take_count(from, &size)) {
            return 0;
        }
    }
    for (size_t i = 0; i < n; i++) {
        (void)take_count(&sizes, &size);
        int rc = take_text(from, size, words, i);
        if (rc <= 0) {
            return rc;
        }
    }
    return from->at == from->end;
}

/* Takes the numbers. 0: one of them has no name. */
static int
take_numbers(DocObject *self, xt_span numbers)
{
    for (Py_ssize_t i = 0; i < self->shape; i++) {
        const unsigned char *at = numbers.at + i * self->width;
        uint32_t number = self->width == 1 ? at[0] : (uint32_t)at[1] << 8 | at[0];
        if (number >= (size_t)PyTuple_GET_SIZE(self->names) || PyTuple_GET_ITEM(self->names, number) == Py_None) {
            return 0;
        }
        set_number(self, i, number);
    }
    return 1;
}

static PyObject *
Doc_from_bytes(PyObject *type, PyObject *data)
{
    Py_buffer view;
    PyObject *names = NULL, *words = NULL;
    DocObject *self = NULL;
    int good = 0;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    cursor from = {view.buf, (const unsigned char *)view.buf + view.len};
    size_t n, n_names;
    xt_span head, numbers;
    /* Nothing larger than the data is allocated: each word has at least two bytes in them. */
    if (!take_bytes(&from, 3, &head) || head.at[0] != 'D' || head.at[1] != DOC_VERSION || !take_count(&from, &n) ||
        !take_count(&from, &n_names) || n > (size_t)view.len / 2 || n_names > XT_MAX_CLASSES ||
        head.at[2] != (n_names <= 256 ? 1 : 2)) {
        goto done;
    }
    names = n_names > 0 ? PyTuple_New((Py_ssize_t)n_names) : english_names();
    words = PyTuple_New((Py_ssize_t)n);
    if (names == NULL || words == NULL) {
        good = -1;
        goto done;
    }
    good = n_names > 0 ? take_names(&from, names) : take_count(&from, &n_names) && n_names == 0;
    if (good > 0) {
        good = take_bytes(&from, n * head.at[2], &numbers) ? take_words(&from, words) : 0;
    }
    if (good > 0) {
        self = make((PyTypeObject *)type, Py_NewRef(words), names);
        good = self != NULL ? take_numbers(self, numbers) : -1;
    }
done:
    Py_XDECREF(names);
    Py_XDECREF(words);
    PyBuffer_Release(&view);
    if (good == 0) {
        PyErr_SetString(PyExc_ValueError, "these bytes are no Doc, or not all of one");
    }
    if (good <= 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *
Doc_reduce(DocObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *make_again = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "from_bytes");
    PyObject *bytes = make_again != NULL ? Doc_to_bytes(self, NULL) : NULL;
    if (bytes == NULL) {
        Py_XDECREF(make_again);
        return NULL;
    }
    return Py_BuildValue("(N(N))", make_again, bytes);
}

static PyObject *
Doc_repr(DocObject *self)
{
    PyObject *tagged = PySequence_List((PyObject *)self);
    PyObject *text = tagged != NULL ? PyUnicode_FromFormat("Doc(%R)", tagged) : NULL;
    Py_XDECREF(tagged);
    return text;
}

static PyMethodDef Doc_methods[] = {
    {"to_bytes", (PyCFunction)Doc_to_bytes, METH_NOARGS,
     "to_bytes($self, /)\n--\n\nAll of it, about as long as the text."},
    {"from_bytes", (PyCFunction)Doc_from_bytes, METH_O | METH_CLASS,
     "from_bytes($type, data, /)\n--\n\nWhat to_bytes has made bytes of. Of foreign tags it knows those that it has."},
    {"__reduce__", (PyCFunction)Doc_reduce, METH_NOARGS, "__reduce__($self, /)\n--\n\nFor pickle."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Doc_members[] = {
    {"words", T_OBJECT_EX, offsetof(DocObject, words), READONLY, "The words: a tuple."},
    {"names", T_OBJECT_EX, offsetof(DocObject, names), READONLY, "The tags by their numbers: a tuple."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Doc_getset[] = {
    {"tags", (getter)Doc_get_tags, NULL, "The tags of the words: a list.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Doc_slots[] = {
    {Py_tp_doc, "A tagged document: a sequence of (word, tag), and a buffer of the tags' numbers in `names`."},
    {Py_tp_dealloc, Doc_dealloc},
    {Py_tp_methods, Doc_methods},
    {Py_tp_members, Doc_members},
    {Py_tp_getset, Doc_getset},
    {Py_tp_repr, Doc_repr},
    {Py_tp_richcompare, Doc_compare},
    {Py_sq_length, Doc_length},
    {Py_sq_item, Doc_item},
    {Py_bf_getbuffer, Doc_getbuffer},
    {0, NULL},
};

static PyType_Spec Doc_spec = {
    .name = "execnet_c._tagger.Doc",
    .basicsize = offsetof(DocObject, numbers),
    .itemsize = sizeof(uint16_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Doc_slots,
};

int
xtpy_doc_setup(PyObject *module, xtpy_state *state)
{
    state->DocType = PyType_FromModuleAndSpec(module, &Doc_spec, NULL);
    return state->DocType == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)state->DocType);
}
