/*
 * Items that the serializer cannot carry: a pickle, and the buffers that belong to it beside it, which are not copied
 * here. They are sent from where their owner has them, and the memory in which they arrive becomes the buffers of the
 * new objects. What is said to pickle is in execnet_c/common/pickles.py; the bytes are described in xc_pickle.h.
 *
 * Trust: pickles are loaded by a worker, and by a near end that has said so (the gateway's `_pickles`).
 */
#ifndef XCPY_PICKLED_H
#define XCPY_PICKLED_H

#include "dump.h"
#include "gateway.h"
#include "loader.h"

/* An exception is set: whether the object may be pickled instead. Then it is cleared. */
bool xcpy_may_pickle(GatewayObject *gateway, xc_code code);

/* Appends `obj` as xcpy_dump does. 0, or -1 with DumpError: it cannot be pickled, or the far end cannot load it. */
int xcpy_dump_pickled(GatewayObject *gateway, PyObject *obj, xcpy_dumped *out);

/* PICKLE: see loader.h. */
xcpy_cursor xcpy_load_pickle(xcpy_loader *L, xcpy_cursor p);

/*
 * An object that has the `size` bytes at `data`, to be written and read through memoryviews. It owns `block`, which has
 * these bytes in it and is freed by xc_free. New reference; NULL: `block` is still the caller's.
 */
PyObject *xcpy_memory(xcpy_state *state, void *block, unsigned char *data, size_t size);

int xcpy_memory_setup(PyObject *module, xcpy_state *state);

#endif
