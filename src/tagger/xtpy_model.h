/*
 * The type Model: a block, what was made of it, and tagging on the calling thread.
 */
#ifndef XTPY_MODEL_H
#define XTPY_MODEL_H

#include "xt_build.h"
#include "xtpy_batch.h"

/* What one call tags with. Idle ones wait in the model for the next call. */
typedef struct xtpy_desk {
    xtpy_batch *batch;
    xt_scratch *scratch;
    struct xtpy_desk *next;
} xtpy_desk;

typedef struct {
    PyObject_HEAD xtpy_state *state; /* borrowed: our type keeps the module alive */
    PyObject *block;                 /* owned: bytes, that `model` points into */
    PyObject *tags;                  /* owned: tuple of the classes' names */
    xt_model model;
    xt_words *words;     /* owned */
    xtpy_shelf *shelves; /* owned: XTPY_SHELVES */
    xtpy_desk *idle;     /* owned */
    size_t n_idle;
    uint32_t fork_count;
} ModelObject;

/* Before each use: an error if there are no classes; after a fork the words are forgotten. -1 with an exception. */
int xtpy_model_ready(ModelObject *model);

/* The block for NLTK's three parts: bytes. */
PyObject *xtpy_build(PyObject *weights, PyObject *tagdict, PyObject *classes);
/* And back: dicts. */
PyObject *xtpy_weights(const xt_model *model, PyObject *tags);
PyObject *xtpy_tagdict(const xt_model *model, PyObject *tags);

/* Appends the tags of a batch to a bytearray. -1 with an exception. */
int xtpy_numbers_add(PyObject *numbers, const xt_model *model, const xt_batch *batch);
/* ValueError: the numbers are not those of the tags of these words. Returns NULL. */
PyObject *xtpy_raise_other_numbers(void);
/* What xtpy_batch_list would have given for each of the sentences; Docs unless as_docs is NULL. */
PyObject *xtpy_numbers_pair(PyObject *sentences, PyObject *numbers, const xt_model *model, PyObject *tags,
                            xtpy_state *as_docs);

/* The sentences of a batch as bytes, to be tagged elsewhere; and back into an empty batch, -1 with an exception. */
PyObject *xtpy_numbers_pack(const xt_batch *batch);
int xtpy_numbers_unpack(xt_batch *batch, PyObject *packed);

/* A new Doc of document number `doc` of a batch. */
PyObject *xtpy_doc_new(xtpy_state *state, xtpy_batch *batch, size_t doc, PyObject *tags);
/* Takes the words, a tuple of str. For each a number, as wide as a Doc's of these tags, the low byte first. NULL with
 * ValueError: one is the number of no tag. */
PyObject *xtpy_doc_of(xtpy_state *state, PyObject *words, const unsigned char *numbers, PyObject *tags);

#endif
