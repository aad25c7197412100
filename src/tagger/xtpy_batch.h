/*
 * A batch together with the Python words that its bytes came from, as far as they are needed again: to make Docs all
 * are kept, else only words of a subclass of str. The other words are found among the pairs that were made before, or
 * made again from the bytes. That is cheaper than touching each word object once more.
 */
#ifndef XTPY_BATCH_H
#define XTPY_BATCH_H

#include "xtpy_state.h"

#include "xt_batch.h"

typedef struct xtpy_batch {
    xt_batch c;
    PyObject **words; /* owned, and so are the first n_held words; NULL: that word is not kept */
    size_t n_held, room_held;
    bool keep_words;
    struct xtpy_batch *next; /* in the list of whoever owns the batch */
} xtpy_batch;

xtpy_batch *xtpy_batch_new(void); /* NULL with MemoryError */
void xtpy_batch_free(xtpy_batch *batch);
void xtpy_batch_reset(xtpy_batch *batch);

/* Adds a document: a list, tuple or other sequence of str. -1 with an exception: the batch is as it was before. */
int xtpy_batch_add(xtpy_batch *batch, xtpy_state *state, PyObject *doc);

/* Pairs (word, tag) that were made before, by the id of the word. They are immutable, and the same ones come again and
 * again, so results share them: to make and free a pair takes as long as to tag a word. */
typedef struct {
    uint32_t id, label;
    PyObject *pair; /* owned, or NULL; of exact str */
} xtpy_shelf;

#define XTPY_SHELVES (1u << 17)

#define XTPY_AHEAD 8 /* objects; their memory is prefetched */

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
    /* Two exact str cannot form a cycle. The collector would untrack the pair, too, but later. */
    if (PyUnicode_CheckExact(word)) {
        PyObject_GC_UnTrack(pair);
    }
    return pair;
}

/* Document number `doc` as NLTK has it: [(word, tag), ...]. Call it once for each document, in order: it takes the
 * words. */
PyObject *xtpy_batch_list(xtpy_batch *batch, size_t doc, PyObject *tags, xtpy_shelf *shelves);
/* The words of the document as a tuple, if they were kept. The same rules. */
PyObject *xtpy_batch_words(xtpy_batch *batch, size_t doc);

/*
 * Call these around the making of results. Every few hundred tuples the collector would start and walk over all lists
 * made so far: more work than tagging. Nothing in between runs Python code or releases the GIL, so nobody can see that
 * the collector is off. Without the GIL others would see it; but there it starts only between steps of Python code.
 */
static inline bool
xtpy_pause_gc(void)
{
#ifdef Py_GIL_DISABLED
    return false;
#else
    return PyGC_Disable() != 0;
#endif
}

static inline void
xtpy_resume_gc(bool was_on)
{
    if (was_on) {
        PyGC_Enable();
    }
}

#endif
