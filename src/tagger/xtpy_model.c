/*
 * The type Model.
 *
 * A call takes a batch and a scratch (a workspace) off the model, and puts them back, both with the model locked: so
 * threads that tag at the same time have one each. All of them share the words. The pairs they share only where there
 * is a GIL; else a thread takes its own while it makes a document of them.
 */
#include "xtpy_model.h"

#define IDLE_WORKSPACES 4
/* Words that tag_sents tags at a time: often enough for signals and other threads, seldom enough to cost nothing. */
#define CHUNK_WORDS 16384
#define HELD_WORDS  256 /* tagging fewer takes less time than releasing the GIL and getting it back */

/* ---- workspaces ---- */

static void
free_workspace(xtpy_workspace *space)
{
    if (space != NULL) {
        xtpy_batch_free(space->batch);
        xt_scratch_free(space->scratch);
        PyMem_Free(space);
    }
}

static xtpy_workspace *
take_workspace(ModelObject *self, int use_only, int as_doc)
{
    xtpy_workspace *space;
    if (xtpy_model_ready(self) < 0) {
        return NULL;
    }
    XTPY_LOCK(self);
    space = self->idle;
    if (space != NULL) {
        self->idle = space->next;
        self->n_idle--;
    }
    XTPY_UNLOCK();
    if (space == NULL) {
        space = PyMem_Calloc(1, sizeof(*space));
        if (space == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        space->batch = xtpy_batch_new();
        space->scratch = space->batch != NULL ? xt_scratch_new(&self->model) : NULL;
        if (space->scratch == NULL) {
            free_workspace(space);
            PyErr_NoMemory();
            return NULL;
        }
    }
    space->batch->c.use_only = use_only != 0;
    space->batch->keep_words = as_doc != 0;
    return space;
}

static void
give_back_workspace(ModelObject *self, xtpy_workspace *space)
{
    xtpy_batch_reset(space->batch);
    XTPY_LOCK(self);
    if (self->n_idle < IDLE_WORKSPACES) {
        space->next = self->idle;
        self->idle = space;
        self->n_idle++;
        space = NULL;
    }
    XTPY_UNLOCK();
    free_workspace(space);
}

/* ---- pairs ---- */

#ifdef Py_GIL_DISABLED

xtpy_shelf *
xtpy_take_shelves(ModelObject *self)
{
    xtpy_shelf *shelves = xc_pool_take(&self->shelves);
    return shelves != NULL ? shelves : PyMem_Calloc(XTPY_SHELVES, sizeof(*shelves));
}

static void
free_shelves(xtpy_shelf *shelves)
{
    for (size_t i = 0; i < XTPY_SHELVES; i++) {
        Py_XDECREF(shelves[i].pair);
    }
    PyMem_Free(shelves);
}

void
xtpy_give_back_shelves(ModelObject *self, xtpy_shelf *shelves)
{
    if (!xc_pool_give(&self->shelves, shelves)) {
        free_shelves(shelves);
    }
}

static void
free_all_shelves(ModelObject *self)
{
    for (xtpy_shelf *shelves; (shelves = xc_pool_take(&self->shelves)) != NULL;) {
        free_shelves(shelves);
    }
}

#else

xtpy_shelf *
xtpy_take_shelves(ModelObject *self)
{
    if (self->shelves == NULL) {
        self->shelves = PyMem_Calloc(XTPY_SHELVES, sizeof(*self->shelves));
    }
    return self->shelves;
}

void
xtpy_give_back_shelves(ModelObject *self, xtpy_shelf *shelves)
{
    (void)self;
    (void)shelves;
}

static void
free_all_shelves(ModelObject *self)
{
    for (size_t i = 0; self->shelves != NULL && i < XTPY_SHELVES; i++) {
        Py_XDECREF(self->shelves[i].pair);
    }
    PyMem_Free(self->shelves);
}

#endif

PyObject *
xtpy_model_list(ModelObject *self, xtpy_batch *batch, size_t doc)
{
    xtpy_shelf *shelves = xtpy_take_shelves(self);
    if (shelves == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *list = xtpy_batch_list(batch, doc, self->tags, shelves);
    xtpy_give_back_shelves(self, shelves);
    return list;
}

/* ---- a model ---- */

/* The first thread in a forked child, where the lock is nobody's, forgets the words. */
static void
after_fork(ModelObject *model)
{
    if (model->fork_count != xc_fork_count()) {
        XTPY_LOCK(model);
        if (model->fork_count != xc_fork_count()) {
            xt_words_after_fork(model->words);
            model->fork_count = xc_fork_count();
        }
        XTPY_UNLOCK();
    }
}

int
xtpy_model_ready(ModelObject *model)
{
    if (model->model.head->n_classes == 0) {
        PyErr_SetString(PyExc_ValueError, "this tagger has no classes: it has not been trained");
        return -1;
    }
    after_fork(model);
    return 0;
}

/* In every 64-bit CPython the contents of a bytes object are at a multiple of 8; the view relies on that. */
static PyObject *
aligned(PyObject *block)
{
    if ((uintptr_t)PyBytes_AS_STRING(block) % 8 == 0) {
        return Py_NewRef(block);
    }
    PyErr_SetString(PyExc_SystemError, "bytes at an odd address");
    return NULL;
}

static PyObject *
tag_names(const xt_model *model)
{
    PyObject *tags = PyTuple_New((Py_ssize_t)model->head->n_classes);
    for (uint32_t i = 0; tags != NULL && i < model->head->n_classes; i++) {
        PyObject *name = xtpy_text(xt_text_of(model, model->classes[i]));
        if (name == NULL) {
            Py_CLEAR(tags);
            break;
        }
        PyUnicode_InternInPlace(&name);
        PyTuple_SET_ITEM(tags, i, name);
    }
    return tags;
}

static PyObject *
Model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"block", NULL};
    PyObject *block;
    xc_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "S:Model", names, &block)) {
        return NULL;
    }
    ModelObject *self = (ModelObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = PyType_GetModuleState(type);
    self->fork_count = xc_fork_count();
    self->block = aligned(block);
    if (self->block == NULL) {
        goto failed;
    }
    if (xt_model_open(&self->model, PyBytes_AS_STRING(self->block), (size_t)PyBytes_GET_SIZE(self->block), &err) !=
        XC_OK) {
        xtpy_raise(&err);
        goto failed;
    }
    self->words = xt_words_new(&self->model);
    if (self->words == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    self->tags = tag_names(&self->model);
    if (self->tags != NULL) {
        return (PyObject *)self;
    }
failed:
    Py_DECREF(self);
    return NULL;
}

static int
Model_traverse(ModelObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->block);
    Py_VISIT(self->tags);
    return 0;
}

static void
Model_dealloc(ModelObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    while (self->idle != NULL) {
        xtpy_workspace *next = self->idle->next;
        free_workspace(self->idle);
        self->idle = next;
    }
    free_all_shelves(self);
    if (self->words != NULL && self->fork_count != xc_fork_count()) {
        xt_words_after_fork(self->words);
    }
    xt_words_free(self->words);
    xt_model_close(&self->model);
    Py_XDECREF(self->block);
    Py_XDECREF(self->tags);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- tagging ---- */

/* Tags the batch of the workspace; without the GIL if that takes long. */
static void
work(ModelObject *self, xtpy_workspace *space)
{
    xt_batch *batch = &space->batch->c;
    if (batch->n_words < HELD_WORDS) {
        xt_batch_work(batch, space->scratch, self->words, NULL);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
        xt_batch_work(batch, space->scratch, self->words, NULL);
    Py_END_ALLOW_THREADS
}

static PyObject *
result_of(ModelObject *self, xtpy_workspace *space, size_t doc, int as_doc)
{
    return as_doc ? xtpy_doc_new(self->state, space->batch, doc, self->tags) : xtpy_model_list(self, space->batch, doc);
}

static PyObject *
Model_tag(ModelObject *self, PyObject *args)
{
    PyObject *tokens, *result = NULL;
    int use_only = 1, as_doc = 0;
    if (!PyArg_ParseTuple(args, "O|pp:tag", &tokens, &use_only, &as_doc)) {
        return NULL;
    }
    xtpy_workspace *space = take_workspace(self, use_only, as_doc);
    if (space == NULL) {
        return NULL;
    }
    if (xtpy_batch_add(space->batch, self->state, tokens) == 0) {
        work(self, space);
        result = result_of(self, space, 0, as_doc);
    }
    give_back_workspace(self, space);
    return result;
}

/* Fills the workspace's batch from an iterator. 1: there is more; 0: that was all; -1 with an exception. */
static int
fill(ModelObject *self, xtpy_workspace *space, PyObject *sentences)
{
    while (space->batch->c.n_words < CHUNK_WORDS && space->batch->c.n_docs < CHUNK_WORDS) {
        PyObject *sentence = PyIter_Next(sentences);
        if (sentence == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
        int rc = xtpy_batch_add(space->batch, self->state, sentence);
        Py_DECREF(sentence);
        if (rc < 0) {
            return -1;
        }
    }
    return 1;
}

/* Appends the results of the workspace's batch to a list, or to a bytearray of numbers. */
static int
add_results(ModelObject *self, xtpy_workspace *space, PyObject *results, int as_doc)
{
    if (PyByteArray_Check(results)) {
        return xtpy_numbers_add(results, &self->model, &space->batch->c);
    }
    int rc = 0;
    const bool gc = xtpy_pause_gc();
    for (size_t i = 0; i < space->batch->c.n_docs && rc == 0; i++) {
        PyObject *one = result_of(self, space, i, as_doc);
        rc = one != NULL ? PyList_Append(results, one) : -1;
        Py_XDECREF(one);
    }
    xtpy_resume_gc(gc);
    return rc;
}

/* Takes `results`, which is empty or NULL; returns it filled. */
static PyObject *
tag_all(ModelObject *self, PyObject *sentences, int use_only, int as_doc, PyObject *results)
{
    PyObject *iterator = results != NULL ? PyObject_GetIter(sentences) : NULL;
    xtpy_workspace *space = iterator != NULL ? take_workspace(self, use_only, as_doc) : NULL;
    int more = space != NULL ? 1 : -1;
    while (more > 0) {
        more = fill(self, space, iterator);
        if (more < 0 || PyErr_CheckSignals() < 0) {
            more = -1;
            break;
        }
        work(self, space);
        if (add_results(self, space, results, as_doc) < 0) {
            more = -1;
        }
        xtpy_batch_reset(space->batch);
    }
    if (space != NULL) {
        give_back_workspace(self, space);
    }
    Py_XDECREF(iterator);
    if (more < 0) {
        Py_CLEAR(results);
    }
    return results;
}

static PyObject *
Model_tag_sents(ModelObject *self, PyObject *args)
{
    PyObject *sentences;
    int use_only = 1, as_doc = 0;
    if (!PyArg_ParseTuple(args, "O|pp:tag_sents", &sentences, &use_only, &as_doc)) {
        return NULL;
    }
    return tag_all(self, sentences, use_only, as_doc, PyList_New(0));
}

static PyObject *
Model_pack(ModelObject *self, PyObject *sentences)
{
    PyObject *iterator = PyObject_GetIter(sentences), *result = NULL, *sentence = NULL;
    xtpy_workspace *space = iterator != NULL ? take_workspace(self, 1, 0) : NULL;
    int rc = space != NULL ? 0 : -1;
    while (rc == 0 && (sentence = PyIter_Next(iterator)) != NULL) {
        rc = xtpy_batch_add(space->batch, self->state, sentence);
        Py_DECREF(sentence);
    }
    if (rc == 0 && !PyErr_Occurred()) {
        result = xtpy_numbers_pack(&space->batch->c);
    }
    if (space != NULL) {
        give_back_workspace(self, space);
    }
    Py_XDECREF(iterator);
    return result;
}

/* The numbers for what `pack` made. */
static PyObject *
tag_packed(ModelObject *self, PyObject *packed, int use_only)
{
    PyObject *numbers = NULL, *result = NULL;
    xtpy_workspace *space = take_workspace(self, use_only, 0);
    if (space == NULL) {
        return NULL;
    }
    if (xtpy_numbers_unpack(&space->batch->c, packed) == 0) {
        work(self, space);
        numbers = PyByteArray_FromStringAndSize(NULL, 0);
        if (numbers != NULL && xtpy_numbers_add(numbers, &self->model, &space->batch->c) == 0) {
            result = PyBytes_FromObject(numbers);
        }
    }
    Py_XDECREF(numbers);
    give_back_workspace(self, space);
    return result;
}

static PyObject *
Model_tag_numbers(ModelObject *self, PyObject *args)
{
    PyObject *sentences;
    int use_only = 1;
    if (!PyArg_ParseTuple(args, "O|p:tag_numbers", &sentences, &use_only)) {
        return NULL;
    }
    if (PyBytes_Check(sentences)) {
        return tag_packed(self, sentences, use_only);
    }
    PyObject *numbers = tag_all(self, sentences, use_only, 0, PyByteArray_FromStringAndSize(NULL, 0));
    PyObject *result = numbers != NULL ? PyBytes_FromObject(numbers) : NULL;
    Py_XDECREF(numbers);
    return result;
}

static PyObject *
Model_pair(ModelObject *self, PyObject *args)
{
    PyObject *sentences, *numbers;
    int as_doc = 0;
    if (!PyArg_ParseTuple(args, "OO|p:pair", &sentences, &numbers, &as_doc)) {
        return NULL;
    }
    return xtpy_numbers_pair(self, sentences, numbers, as_doc != 0);
}

/* The tags of one sentence, and the sums that decided: (tags, doubles as bytes, a byte for each word). */
static PyObject *
Model_tag_with_sums(ModelObject *self, PyObject *args)
{
    PyObject *tokens, *tags = NULL, *sums = NULL, *counted = NULL, *result = NULL;
    int use_only = 1;
    if (!PyArg_ParseTuple(args, "O|p:tag_with_sums", &tokens, &use_only)) {
        return NULL;
    }
    xtpy_workspace *space = take_workspace(self, use_only, 0);
    if (space == NULL) {
        return NULL;
    }
    xt_batch *batch = &space->batch->c;
    if (xtpy_batch_add(space->batch, self->state, tokens) < 0) {
        goto done;
    }
    if (batch->n_words > PY_SSIZE_T_MAX / sizeof(double) / self->model.head->n_classes) {
        PyErr_NoMemory();
        goto done;
    }
    sums = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(batch->n_words * self->model.head->n_classes * sizeof(double)));
    counted = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)batch->n_words);
    tags = PyList_New((Py_ssize_t)batch->n_words);
    if (sums == NULL || counted == NULL || tags == NULL) {
        goto done;
    }
    const xt_task task = xt_batch_task(batch);
    xt_words_enter(self->words);
    xt_tag_with_sums(space->scratch, self->words, &task, (double *)(void *)PyBytes_AS_STRING(sums),
                     (bool *)(void *)PyBytes_AS_STRING(counted));
    xt_words_leave(self->words);
    for (size_t i = 0; i < batch->n_words; i++) {
        PyList_SET_ITEM(tags, (Py_ssize_t)i, Py_NewRef(PyTuple_GET_ITEM(self->tags, batch->labels[i])));
    }
    result = PyTuple_Pack(3, tags, sums, counted);
done:
    Py_XDECREF(tags);
    Py_XDECREF(sums);
    Py_XDECREF(counted);
    give_back_workspace(self, space);
    return result;
}

/* ---- what it is made of ---- */

static PyObject *
Model_build(PyObject *Py_UNUSED(type), PyObject *args)
{
    PyObject *weights, *tagdict, *classes;
    if (!PyArg_ParseTuple(args, "OOO:build", &weights, &tagdict, &classes)) {
        return NULL;
    }
    return xtpy_build(weights, tagdict, classes);
}

static PyObject *
Model_weights(ModelObject *self, PyObject *Py_UNUSED(ignored))
{
    return xtpy_weights(&self->model, self->tags);
}

static PyObject *
Model_tagdict(ModelObject *self, PyObject *Py_UNUSED(ignored))
{
    return xtpy_tagdict(&self->model, self->tags);
}

static PyObject *
Model_state(ModelObject *self, PyObject *Py_UNUSED(ignored))
{
    const xt_head *head = self->model.head;
    after_fork(self);
    unsigned long long ties = 0;
    XTPY_LOCK(self);
    for (xtpy_workspace *space = self->idle; space != NULL; space = space->next) {
        ties += xt_scratch_ties(space->scratch);
    }
    XTPY_UNLOCK();
    return Py_BuildValue("{s:O,s:I,s:I,s:I,s:n,s:K}", "thousandths", head->milli ? Py_True : Py_False, "features",
                         (unsigned)head->n_rows, "weights", (unsigned)head->n_weights, "forms", (unsigned)head->n_forms,
                         "words", (Py_ssize_t)xt_words_count(self->words), "ties", ties);
}

static PyMethodDef Model_methods[] = {
    {"build", (PyCFunction)Model_build, METH_VARARGS | METH_STATIC,
     "build(weights, tagdict, classes, /)\n--\n\nThe block of NLTK's three parts."},
    {"tag", (PyCFunction)Model_tag, METH_VARARGS,
     "tag($self, tokens, use_tagdict=True, as_doc=False, /)\n--\n\nTag one sentence."},
    {"tag_sents", (PyCFunction)Model_tag_sents, METH_VARARGS,
     "tag_sents($self, sentences, use_tagdict=True, as_doc=False, /)\n--\n\nTag sentences, without the GIL."},
    {"tag_numbers", (PyCFunction)Model_tag_numbers, METH_VARARGS,
     "tag_numbers($self, sentences, use_tagdict=True, /)\n--\n\nThe numbers of their tags, end to end."},
    {"pack", (PyCFunction)Model_pack, METH_O,
     "pack($self, sentences, /)\n--\n\nSentences as bytes, for tag_numbers elsewhere."},
    {"pair", (PyCFunction)Model_pair, METH_VARARGS,
     "pair($self, sentences, numbers, as_doc=False, /)\n--\n\nSentences with the tags of these numbers."},
    {"tag_with_sums", (PyCFunction)Model_tag_with_sums, METH_VARARGS,
     "tag_with_sums($self, tokens, use_tagdict=True, /)\n--\n\nThe tags and what decided."},
    {"weights", (PyCFunction)Model_weights, METH_NOARGS, "weights($self, /)\n--\n\nNLTK's dict of dicts."},
    {"tagdict", (PyCFunction)Model_tagdict, METH_NOARGS, "tagdict($self, /)\n--\n\nWords that have only one tag."},
    {"_state", (PyCFunction)Model_state, METH_NOARGS, "_state($self, /)\n--\n\nFor tests."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Model_members[] = {
    {"block", T_OBJECT_EX, offsetof(ModelObject, block), READONLY, "The model as bytes."},
    {"classes", T_OBJECT_EX, offsetof(ModelObject, tags), READONLY, "All tags, sorted: a tuple."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Model_slots[] = {
    {Py_tp_doc, "Model(block)\n--\n\nA trained tagger, read-only, from the bytes that `build` makes."},
    {Py_tp_new, Model_new},
    {Py_tp_dealloc, Model_dealloc},
    {Py_tp_traverse, Model_traverse},
    {Py_tp_methods, Model_methods},
    {Py_tp_members, Model_members},
    {0, NULL},
};

static PyType_Spec Model_spec = {
    .name = "execnet_c._tagger.Model",
    .basicsize = sizeof(ModelObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Model_slots,
};

int
xtpy_model_setup(PyObject *module, xtpy_state *state)
{
    state->ModelType = PyType_FromModuleAndSpec(module, &Model_spec, NULL);
    return state->ModelType == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)state->ModelType);
}
