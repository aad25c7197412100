/*
 * Bytes that grow.
 *
 * The bytes are moved to the front only if at least as many have been taken from the front as have to be moved;
 * otherwise the memory grows. So adding and taking n bytes costs O(n), and the memory stays within about three times
 * the largest size that the buffer ever had.
 */
#include "xc_buf.h"

#include <string.h>

enum { SMALLEST = 256, KEPT_WHEN_EMPTY = 64 * 1024 };

void
xc_buf_fini(xc_buf *buf)
{
    xc_free(buf->data);
    *buf = (xc_buf){0};
}

static void
move_to_front(xc_buf *buf)
{
    size_t size = xc_buf_size(buf);
    memmove(buf->data, buf->data + buf->start, size);
    buf->start = 0;
    buf->end = size;
}

/* realloc would copy the bytes that were taken, too, so it is used only if there are none. */
static bool
grow_to(xc_buf *buf, size_t cap)
{
    size_t size = xc_buf_size(buf);
    unsigned char *data;
    if (buf->start == 0) {
        data = xc_realloc(buf->data, cap);
        if (data == NULL) {
            return false;
        }
    }
    else {
        data = xc_alloc(cap);
        if (data == NULL) {
            return false;
        }
        memcpy(data, buf->data + buf->start, size);
        xc_free(buf->data);
    }
    *buf = (xc_buf){.data = data, .end = size, .cap = cap};
    return true;
}

xc_status
xc_buf_begin(xc_buf *buf, size_t cap, size_t head)
{
    XC_ASSERT(head <= cap);
    *buf = (xc_buf){.data = xc_alloc(cap)};
    if (buf->data == NULL) {
        return XC_NOMEM;
    }
    buf->end = head;
    buf->cap = cap;
    return XC_OK;
}

xc_status
xc_buf_grow(xc_buf *buf, size_t n)
{
    size_t size = xc_buf_size(buf);
    if (n > SIZE_MAX / 2 - size) {
        return XC_NOMEM;
    }
    bool fits = size + n <= buf->cap;
    if (fits && buf->start >= size) {
        move_to_front(buf);
        return XC_OK;
    }
    size_t cap = buf->cap + buf->cap / 2;
    cap = cap < SMALLEST ? SMALLEST : cap;
    cap = cap < size + n ? size + n : cap;
    if (grow_to(buf, cap)) {
        return XC_OK;
    }
    if (fits) {
        move_to_front(buf);
        return XC_OK;
    }
    return XC_NOMEM;
}

xc_status
xc_buf_add(xc_buf *buf, const void *bytes, size_t n)
{
    if (n == 0) {
        return XC_OK;
    }
    xc_status rc = xc_buf_room(buf, n);
    if (rc == XC_OK) {
        memcpy(buf->data + buf->end, bytes, n);
        buf->end += n;
    }
    return rc;
}

void
xc_buf_take(xc_buf *buf, size_t n)
{
    XC_ASSERT(n <= xc_buf_size(buf));
    buf->start += n;
    if (buf->start < buf->end) {
        return;
    }
    buf->start = buf->end = 0;
    if (buf->cap > KEPT_WHEN_EMPTY) {
        xc_buf_fini(buf);
    }
}
