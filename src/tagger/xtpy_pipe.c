/*
 * The type Pipe: batches are given to threads, and their results taken in order. While the threads work on one batch,
 * the calling thread prepares the next and hands out documents of the one before. When it has nothing else to do it
 * tags, too, and releases the GIL once for the batch.
 *
 * The objects of a document are made when it is asked for. A caller that drops one document before it takes the next
 * has both in the CPU's caches, and the garbage collector never sees many of them. With the objects of a whole batch
 * made at once, two threads were 1.35 times as fast as one; this way they are 2.3 times as fast.
 *
 * If another thread seems to want the GIL (getting it back took long), this one also releases it between documents.
 * Tagging is so fast that otherwise a thread that computes beside a pipe has 0.7 of its speed. This way it has 0.9, and
 * a pipe without such a thread loses nothing.
 */
#include "xtpy_model.h"

#include "xt_team.h"

typedef struct {
    PyObject_HEAD xtpy_state *state; /* borrowed: our type keeps the module alive */
    ModelObject *model;              /* owned */
    xt_team *team;                   /* owned; NULL once closed */
    xtpy_batch *first;               /* owned: the batches given, oldest first */
    xtpy_batch *taken;               /* owned: the batch whose results are being iterated over; NULL: none */
    size_t at;                       /* the next document of `taken` */
    xtpy_batch *idle;                /* owned: batches for later use */
    int use_only, as_doc;
    bool busy;   /* a thread is in give or take and has released the GIL */
    bool wanted; /* another thread wanted the GIL a short time ago */
    size_t held; /* words since the GIL was last released */
} PipeObject;

/* Getting the GIL back takes this long (ns) only if another thread computes. */
#define LONG_WAIT XC_MS
enum { HELD_MOST = 4000 /* words: some 0.3 ms */ };

static PyObject *
Pipe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"model", "n_threads", "use_tagdict", "as_doc", NULL};
    xtpy_state *state = PyType_GetModuleState(type);
    PyObject *model;
    Py_ssize_t n_threads;
    int use_only = 1, as_doc = 0;
    xc_err err;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!n|pp:Pipe", names, state->ModelType, &model, &n_threads,
                                     &use_only, &as_doc)) {
        return NULL;
    }
    if (n_threads < 1 || n_threads > 1024) {
        PyErr_SetString(PyExc_ValueError, "n_threads is to be from 1 to 1024");
        return NULL;
    }
    if (xtpy_model_ready((ModelObject *)model) < 0) {
        return NULL;
    }
    PipeObject *self = (PipeObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->model = (ModelObject *)Py_NewRef(model);
    self->use_only = use_only;
    self->as_doc = as_doc;
    if (xt_team_new(&self->model->model, self->model->words, (size_t)n_threads - 1, &self->team, &err) != XC_OK) {
        xtpy_raise(&err);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
visit_batches(const xtpy_batch *batch, visitproc visit, void *arg)
{
    for (; batch != NULL; batch = batch->next) {
        for (size_t i = 0; i < batch->n_held; i++) {
            Py_VISIT(batch->words[i]);
        }
    }
    return 0;
}

static int
Pipe_traverse(PipeObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->model);
    int rc = visit_batches(self->first, visit, arg);
    return rc != 0 ? rc : visit_batches(self->taken, visit, arg);
}

static void
free_all(xtpy_batch **list)
{
    while (*list != NULL) {
        xtpy_batch *batch = *list;
        *list = batch->next;
        xtpy_batch_free(batch);
    }
}

/* Ends the threads, which first tag the documents that they have taken; then frees all batches. */
static void
end(PipeObject *self)
{
    xt_team *team = self->team;
    self->team = NULL;
    if (team != NULL) {
        Py_BEGIN_ALLOW_THREADS
            xt_team_free_nogil(team);
        Py_END_ALLOW_THREADS
    }
    free_all(&self->first);
    free_all(&self->taken);
    free_all(&self->idle);
}

static void
Pipe_dealloc(PipeObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    end(self);
    Py_XDECREF(self->model);
    type->tp_free(self);
    Py_DECREF(type);
}

static int
usable(PipeObject *self)
{
    const char *why = NULL;
    if (self->team == NULL) {
        why = "this pipe is closed";
    }
    else if (!xt_team_is_here(self->team)) {
        why = "this pipe belongs to the parent process";
    }
    else if (self->busy) {
        why = "another thread is using this pipe";
    }
    if (why != NULL) {
        PyErr_SetString(PyExc_RuntimeError, why);
        return -1;
    }
    return 0;
}

/* After work on `words` more words with the GIL held: releases it for a moment if another thread wants it. */
static void
share_gil(PipeObject *self, size_t words)
{
    self->held += words;
    if (!self->wanted || self->held < HELD_MOST) {
        return;
    }
    const int64_t before = xc_now();
    self->held = 0;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
        xt_team_pause_nogil();
    Py_END_ALLOW_THREADS
    self->busy = false;
    self->wanted = xc_now() - before > LONG_WAIT;
}

/* Adds the documents of a list or tuple up to the first that is no document; *error, owned, says what is wrong with
 * that. */
static size_t
add_docs(PipeObject *self, xtpy_batch *batch, PyObject *docs, PyObject **error)
{
    size_t n = 0;
    for (; n < (size_t)PySequence_Fast_GET_SIZE(docs); n++) {
        const size_t before = batch->c.n_words;
        PyObject *doc = Py_NewRef(PySequence_Fast_GET_ITEM(docs, (Py_ssize_t)n));
        int rc = xtpy_batch_add(batch, self->state, doc);
        Py_DECREF(doc);
        share_gil(self, batch->c.n_words - before);
        if (rc < 0) {
            PyObject *type, *trace;
            PyErr_Fetch(&type, error, &trace);
            PyErr_NormalizeException(&type, error, &trace);
            Py_XDECREF(type);
            Py_XDECREF(trace);
            break;
        }
    }
    return n;
}

/* None, or (number, error) of the first that is no document; those before it are given. */
static PyObject *
give(PipeObject *self, PyObject *docs)
{
    PyObject *error = NULL;
    if (usable(self) < 0 || xtpy_model_ready(self->model) < 0) {
        return NULL;
    }
    xtpy_batch *batch = self->idle;
    if (batch != NULL) {
        self->idle = batch->next;
    }
    else if ((batch = xtpy_batch_new()) == NULL) {
        return NULL;
    }
    batch->next = NULL;
    batch->c.use_only = self->use_only != 0;
    batch->keep_words = self->as_doc != 0;
    size_t n = add_docs(self, batch, docs, &error);
    /* A document may have run Python code meanwhile. */
    if (usable(self) < 0) {
        Py_XDECREF(error);
        xtpy_batch_free(batch);
        return NULL;
    }
    xtpy_batch **last = &self->first;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = batch;
    xt_team_give(self->team, &batch->c);
    return error != NULL ? Py_BuildValue("(nN)", (Py_ssize_t)n, error) : Py_NewRef(Py_None);
}

/* The batch that was taken is no longer needed. */
static void
put_away(PipeObject *self)
{
    xtpy_batch *batch = self->taken;
    self->taken = NULL;
    if (batch != NULL) {
        xtpy_batch_reset(batch);
        batch->next = self->idle;
        self->idle = batch;
    }
}

/* Returns the pipe itself, which from now on iterates over the results of the oldest batch. */
static PyObject *
take(PipeObject *self)
{
    if (usable(self) < 0) {
        return NULL;
    }
    xtpy_batch *batch = self->first;
    if (batch == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "no batch was given");
        return NULL;
    }
    int64_t done_at;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
        done_at = xt_team_wait_nogil(self->team, &batch->c);
    Py_END_ALLOW_THREADS
    self->busy = false;
    self->wanted = xc_now() - done_at > LONG_WAIT;
    self->held = 0;
    put_away(self);
    self->first = batch->next;
    batch->next = NULL;
    self->taken = batch;
    self->at = 0;
    return PyErr_CheckSignals() < 0 ? NULL : Py_NewRef((PyObject *)self);
}

/* The next result of the batch that was taken. */
static PyObject *
next(PipeObject *self)
{
    if (usable(self) < 0) {
        return NULL;
    }
    xtpy_batch *batch = self->taken;
    if (batch == NULL || self->at == batch->c.n_docs) {
        put_away(self);
        return NULL;
    }
    const size_t number = self->at++;
    bool gc = xtpy_pause_gc(); /* so that the collector shows nobody a list that is half made */
    PyObject *one = self->as_doc ? xtpy_doc_new(self->state, batch, number, self->model->tags)
                                 : xtpy_model_list(self->model, batch, number);
    const size_t words = batch->c.ends[number] - xt_batch_doc_start(&batch->c, number);
    xtpy_resume_gc(gc);
    if (one != NULL) {
        share_gil(self, words);
    }
    return one;
}

static PyObject *
close_it(PipeObject *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this pipe");
        return NULL;
    }
    end(self);
    Py_RETURN_NONE;
}

/* ---- methods: these, with the pipe locked ---- */

static PyObject *
Pipe_give(PipeObject *self, PyObject *docs)
{
    if (!PyList_Check(docs)) {
        PyErr_SetString(PyExc_TypeError, "docs are to be a list");
        return NULL;
    }
    PyObject *items = xtpy_items(docs, ""), *result = NULL;
    if (items == NULL) {
        return NULL;
    }
    XTPY_LOCK(self);
    result = give(self, items);
    XTPY_UNLOCK();
    Py_DECREF(items);
    return result;
}

static PyObject *
Pipe_take(PipeObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    XTPY_LOCK(self);
    result = take(self);
    XTPY_UNLOCK();
    return result;
}

static PyObject *
Pipe_next(PipeObject *self)
{
    PyObject *result;
    XTPY_LOCK(self);
    result = next(self);
    XTPY_UNLOCK();
    return result;
}

static PyObject *
Pipe_close(PipeObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    XTPY_LOCK(self);
    result = close_it(self);
    XTPY_UNLOCK();
    return result;
}

static PyMethodDef Pipe_methods[] = {
    {"give", (PyCFunction)Pipe_give, METH_O,
     "give($self, docs, /)\n--\n\nHave documents tagged; (number, error) of the first one that can not be."},
    {"take", (PyCFunction)Pipe_take, METH_NOARGS,
     "take($self, /)\n--\n\nThe pipe, to iterate over the results of the oldest batch given."},
    {"close", (PyCFunction)Pipe_close, METH_NOARGS, "close($self, /)\n--\n\nEnd the threads."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Pipe_slots[] = {
    {Py_tp_doc, "Pipe(model, n_threads, use_tagdict=True, as_doc=False)\n--\n\nThreads that tag batches."},
    {Py_tp_new, Pipe_new},
    {Py_tp_dealloc, Pipe_dealloc},
    {Py_tp_traverse, Pipe_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Pipe_next},
    {Py_tp_methods, Pipe_methods},
    {0, NULL},
};

static PyType_Spec Pipe_spec = {
    .name = "execnet_c._tagger.Pipe",
    .basicsize = sizeof(PipeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Pipe_slots,
};

int
xtpy_pipe_setup(PyObject *module, xtpy_state *state)
{
    state->PipeType = PyType_FromModuleAndSpec(module, &Pipe_spec, NULL);
    return state->PipeType == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)state->PipeType);
}
