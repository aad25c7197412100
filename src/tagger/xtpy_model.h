/*
 * The type Model: a block, what is computed from it, and tagging on the calling thread.
 */
#ifndef XTPY_MODEL_H
#define XTPY_MODEL_H

#include "xtpy_batch.h"

#include "xc_pool.h"
#include "xt_build.h"

/* What one call needs for tagging. Unused ones are kept in the model for later calls. */
typedef struct xtpy_workspace {
    xtpy_batch *batch;
    xt_scratch *scratch;
    struct xtpy_workspace *next;
} xtpy_workspace;

typedef struct {
    PyObject_HEAD xtpy_state *state; /* borrowed: our type keeps the module alive */
    PyObject *block;                 /* owned: bytes, that `model` points into */
    PyObject *tags;                  /* owned: tuple of the classes' names */
    xt_model model;
    xt_words *words; /* owned */
#ifdef Py_GIL_DISABLED
    xc_pool shelves; /* each XTPY_SHELVES */
#else
    xtpy_shelf *shelves; /* owned: XTPY_SHELVES */
#endif
    xtpy_workspace *idle; /* owned */
    size_t n_idle;
    atomic_uint fork_count;
} ModelObject;

/* Shelves for one call; NULL if there is no memory. Give them back. */
xtpy_shelf *xtpy_take_shelves(ModelObject *model);
void xtpy_give_back_shelves(ModelObject *model, xtpy_shelf *shelves);

/* What xtpy_batch_list gives for a document, with the pairs that the model remembers. */
PyObject *xtpy_model_list(ModelObject *model, xtpy_batch *batch, size_t doc);

/* Call it before each use: fails if the model has no classes; after a fork it forgets the words. -1 with an
 * exception. */
int xtpy_model_ready(ModelObject *model);

/* The block, as bytes, made from NLTK's three parts. */
PyObject *xtpy_build(PyObject *weights, PyObject *tagdict, PyObject *classes);
/* The other way round: dicts from a model. */
PyObject *xtpy_weights(const xt_model *model, PyObject *tags);
PyObject *xtpy_tagdict(const xt_model *model, PyObject *tags);

/* Appends the tags of a batch to a bytearray. -1 with an exception. */
int xtpy_numbers_add(PyObject *numbers, const xt_model *model, const xt_batch *batch);
/* Raises ValueError: the numbers do not fit these words. Returns NULL. */
PyObject *xtpy_raise_other_numbers(void);
/* For each sentence what xtpy_batch_list would give, or a Doc. */
PyObject *xtpy_numbers_pair(ModelObject *model, PyObject *sentences, PyObject *numbers, bool as_doc);

/* The sentences of a batch as bytes, to be tagged elsewhere; and the other way, into an empty batch, -1 with an
 * exception. */
PyObject *xtpy_numbers_pack(const xt_batch *batch);
int xtpy_numbers_unpack(xt_batch *batch, PyObject *packed);

/* A new Doc of document number `doc` of a batch. */
PyObject *xtpy_doc_new(xtpy_state *state, xtpy_batch *batch, size_t doc, PyObject *tags);
/* Takes the words, a tuple of str. `numbers` has one number for each, as wide as in a Doc with these tags, the low byte
 * first. NULL with ValueError: a number has no tag. */
PyObject *xtpy_doc_of(xtpy_state *state, PyObject *words, const unsigned char *numbers, PyObject *tags);

#endif
