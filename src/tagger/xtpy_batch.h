/*
 * A batch with the Python words that its bytes came from, as far as somebody needs those again: who makes Docs keeps
 * all, others only words of a subclass of str. The rest is found among the pairs made before, or made anew from the
 * bytes: not to touch each word again saves more than that costs.
 */
#ifndef XTPY_BATCH_H
#define XTPY_BATCH_H

#include "xt_batch.h"
#include "xtpy_state.h"

typedef struct xtpy_batch {
    xt_batch c;
    PyObject **words; /* owned, and so are the first n_held of them; NULL for those that are not kept */
    size_t n_held, room_held;
    bool keep_words;
    struct xtpy_batch *next; /* whoever keeps it */
} xtpy_batch;

xtpy_batch *xtpy_batch_new(void); /* NULL with MemoryError */
void xtpy_batch_free(xtpy_batch *batch);
void xtpy_batch_reset(xtpy_batch *batch);

/* Adds a document: a list, tuple or other sequence of str. -1 with an exception: the batch is as it was before. */
int xtpy_batch_add(xtpy_batch *batch, xtpy_state *state, PyObject *doc);

/*
 * Pairs (word, tag) that were made before, by the id of the word. They are immutable and the same ones come again and
 * again, so results share them: making one, and freeing it later, takes as long as tagging a word.
 */
typedef struct {
    uint32_t id, label;
    PyObject *pair; /* owned, or NULL; of exact str */
} xtpy_shelf;

#define XTPY_SHELVES (1u << 17)

#define XTPY_AHEAD 8 /* objects whose memory is asked for early */

/* (word, tag). Takes the word. */
static inline PyObject *
xtpy_new_pair(PyObject *word, PyObject *tag)
{
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        Py_DECREF(word);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, word);
    PyTuple_SET_ITEM(pair, 1, Py_NewRef(tag));
    /* Of two exact str there is no cycle. The collector would come to the same in its own time. */
    if (PyUnicode_CheckExact(word)) {
        PyObject_GC_UnTrack(pair);
    }
    return pair;
}

/* Document number `doc` as NLTK has it: [(word, tag), ...]. To be asked for once, in order; takes the words away. */
PyObject *xtpy_batch_list(xtpy_batch *batch, size_t doc, PyObject *tags, xtpy_shelf *shelves);
/* Its words as a tuple, on the same terms, if they were kept. */
PyObject *xtpy_batch_words(xtpy_batch *batch, size_t doc);

/*
 * Around the making of results. Every few hundred tuples would start the collector, to walk over the lists made so far:
 * more work than all of tagging. Nothing in between runs Python code or gives the GIL away, so nobody sees it off.
 */
static inline bool
xtpy_pause_gc(void)
{
    return PyGC_Disable() != 0;
}

static inline void
xtpy_resume_gc(bool was_on)
{
    if (was_on) {
        PyGC_Enable();
    }
}

#endif
