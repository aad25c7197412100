#include "pickled.h"

#include "error.h"
#include "load_stack.h"
#include "xc_opcodes.h"
#include "xc_pickle.h"

/* The module that talks to pickle. New reference or NULL. */
static PyObject *
import_helpers(void)
{
    return PyImport_ImportModule("execnet_c.common.pickles");
}

/* ---- sending ---- */

bool
xcpy_may_pickle(GatewayObject *gateway, xc_code code)
{
    if (!gateway->pickles || (code != XC_DATA && code != XC_EXEC) ||
        !PyErr_ExceptionMatches(gateway->state->DumpError)) {
        return false;
    }
    PyErr_Clear();
    return true;
}

/* Appends `n` bytes, which are valid as long as `obj` lives. */
static int
add(xcpy_dumped *out, PyObject *obj, const void *ptr, size_t n)
{
    if (n >= XCPY_PIN_SIZE) {
        return xcpy_dumped_pin(out, obj, ptr, n);
    }
    if (xc_buf_add(&out->buf, ptr, n) != XC_OK) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Appends the opcode with its numbers. */
static int
add_head(xcpy_dumped *out, size_t size, PyObject *buffers)
{
    size_t n = (size_t)PyList_GET_SIZE(buffers);
    if (n > UINT32_MAX || xc_buf_room(&out->buf, 1 + XC_PICKLE_HEAD + n * XC_PICKLE_SIZE) != XC_OK) {
        PyErr_NoMemory();
        return -1;
    }
    unsigned char *p = out->buf.data + out->buf.end;
    *p++ = XC_OP_PICKLE;
    xc_put_u64(p, size);
    xc_put_u32(p + 8, (uint32_t)n);
    p += XC_PICKLE_HEAD;
    for (size_t i = 0; i < n; i++, p += XC_PICKLE_SIZE) {
        xc_put_u64(p, (uint64_t)PyMemoryView_GET_BUFFER(PyList_GET_ITEM(buffers, (Py_ssize_t)i))->len);
    }
    out->buf.end = (size_t)(p - out->buf.data);
    return 0;
}

/* Appends the pickle and the buffers behind the encoded channels; the payload began at byte `from`. */
static int
add_parts(xcpy_dumped *out, size_t from, PyObject *pickle, PyObject *buffers)
{
    static const unsigned char stop = XC_OP_STOP, padding[XC_PICKLE_ALIGN];
    size_t size = (size_t)PyBytes_GET_SIZE(pickle);
    out->buf.end--; /* STOP of the channels */
    if (add_head(out, size, buffers) < 0 || add(out, pickle, PyBytes_AS_STRING(pickle), size) < 0) {
        return -1;
    }
    size_t at = xcpy_dumped_size(out) - from;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(buffers); i++) {
        PyObject *view = PyList_GET_ITEM(buffers, i);
        const Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
        if (add(out, NULL, padding, xc_pickle_align(at) - at) < 0 ||
            add(out, view, buffer->buf, (size_t)buffer->len) < 0) {
            return -1;
        }
        at = xc_pickle_align(at) + (size_t)buffer->len;
    }
    return add(out, NULL, &stop, 1);
}

/* Raises DumpError if the far end is none that can load pickles. A near end asks its gateway, which may wait for the
 * far end's answer to the hello; that of a worker is of its own version. */
static int
check_far_end(GatewayObject *gateway)
{
    if (gateway->is_worker) {
        return 0;
    }
    PyObject *checked = PyObject_CallMethod((PyObject *)gateway, "_check_pickles", NULL);
    Py_XDECREF(checked);
    return checked == NULL ? -1 : 0;
}

int
xcpy_dump_pickled(GatewayObject *gateway, PyObject *obj, xcpy_dumped *out)
{
    xcpy_state *state = gateway->state;
    size_t from = xcpy_dumped_size(out);
    PyObject *helpers = NULL, *packed = NULL; /* both owned */
    PyObject *pickle, *buffers, *channels;    /* all borrowed */
    int result = -1;
    if (check_far_end(gateway) < 0 || (helpers = import_helpers()) == NULL) {
        goto done;
    }
    packed = PyObject_CallMethod(helpers, "packed", "OOO", obj, state->ChannelType, state->DumpError);
    if (packed == NULL ||
        !PyArg_ParseTuple(packed, "SO!O!:packed", &pickle, &PyList_Type, &buffers, &PyTuple_Type, &channels)) {
        goto done;
    }
    if (xcpy_dump(state, channels, 0, out) == 0 && add_parts(out, from, pickle, buffers) == 0) {
        result = 0;
    }
done:
    Py_XDECREF(helpers);
    Py_XDECREF(packed);
    return result;
}

/* ---- the memory of what arrived ---- */

typedef struct {
    PyObject_HEAD void *block; /* owned */
    unsigned char *data;       /* inside it */
    size_t size;
} MemoryObject;

PyObject *
xcpy_memory(xcpy_state *state, void *block, unsigned char *data, size_t size)
{
    PyTypeObject *type = (PyTypeObject *)state->MemoryType;
    MemoryObject *self = (MemoryObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->block = block;
        self->data = data;
        self->size = size;
    }
    return (PyObject *)self;
}

static void
Memory_dealloc(MemoryObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    xc_free(self->block);
    type->tp_free(self);
    Py_DECREF(type);
}

static int
Memory_getbuffer(MemoryObject *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->data, (Py_ssize_t)self->size, 0, flags);
}

static PyType_Slot Memory_slots[] = {
    {Py_tp_doc, "The memory in which an item has arrived."},
    {Py_tp_dealloc, Memory_dealloc},
    {Py_bf_getbuffer, Memory_getbuffer},
    {0, NULL},
};

static PyType_Spec Memory_spec = {
    .name = "execnet_c._core.Memory",
    .basicsize = sizeof(MemoryObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Memory_slots,
};

int
xcpy_memory_setup(PyObject *module, xcpy_state *state)
{
    state->MemoryType = PyType_FromModuleAndSpec(module, &Memory_spec, NULL);
    return state->MemoryType == NULL ? -1 : 0;
}

/* ---- loading ---- */

/* view[begin:end] */
static PyObject *
part_of(PyObject *view, size_t begin, size_t end)
{
    return PySequence_GetSlice(view, (Py_ssize_t)begin, (Py_ssize_t)end);
}

static PyObject *
buffers_of(PyObject *view, const unsigned char *payload, const xc_pickle *pickle)
{
    size_t end = pickle->at + pickle->size;
    PyObject *buffers = PyList_New(pickle->n);
    for (uint32_t i = 0; buffers != NULL && i < pickle->n; i++) {
        size_t begin = xc_pickle_buffer(payload, pickle, i, &end);
        PyObject *part = part_of(view, begin, end);
        if (part == NULL) {
            Py_CLEAR(buffers);
            break;
        }
        PyList_SET_ITEM(buffers, i, part);
    }
    return buffers;
}

/* What the pickle makes; its channels are at the top of the stack. New reference or NULL. */
static PyObject *
unpickle(xcpy_loader *L, const xc_pickle *pickle)
{
    PyObject *memory = NULL, *view = NULL, *bytes = NULL, *buffers = NULL; /* all owned */
    PyObject *result = NULL, *helpers = import_helpers();                  /* owned */
    if (helpers == NULL) {
        (void)xcpy_load_fail_from(L, "bad pickle");
        return NULL;
    }
    if ((memory = L->opts->own(L->opts->arg, pickle->n > 0)) != NULL &&
        (view = PyMemoryView_FromObject(memory)) != NULL &&
        (bytes = part_of(view, pickle->at, pickle->at + pickle->size)) != NULL &&
        (buffers = buffers_of(view, L->data, pickle)) != NULL) {
        result = PyObject_CallMethod(helpers, "unpacked", "OOOO", bytes, buffers, L->top[-1].u.obj,
                                     L->opts->state->LoadError);
    }
    Py_DECREF(helpers);
    Py_XDECREF(buffers);
    Py_XDECREF(bytes);
    Py_XDECREF(view);
    Py_XDECREF(memory);
    return result;
}

xcpy_cursor
xcpy_load_pickle(xcpy_loader *L, xcpy_cursor p)
{
    xc_pickle pickle;
    if (L->opts->make_channel == NULL) {
        return xcpy_load_fail_opcode(L); /* only messages have it */
    }
    if (L->top - L->stack != 1 || (L->stack->tag & KIND) != OBJECT || !PyTuple_CheckExact(L->stack->u.obj)) {
        return xcpy_load_fail(L, "a pickle without its channels");
    }
    if (!xc_pickle_read(L->data, (size_t)(L->end - L->data), (size_t)(p - L->data), &pickle)) {
        return xcpy_load_truncated(L);
    }
    if (L->data + pickle.end == L->end || L->data[pickle.end] != XC_OP_STOP) {
        return xcpy_load_fail(L, "no STOP behind the pickle");
    }
    if (L->opts->own == NULL) {
        return xcpy_load_fail(L, "a pickle, which this side does not load from this far end (payload=pickle in the "
                                 "gateway's spec allows it)");
    }
    PyObject *obj = unpickle(L, &pickle);
    drop_entries(L, L->stack);
    return push(L, L->data + pickle.end, obj, OBJECT | TRACKED);
}
