#include "xc_preamble.h"

#include <string.h>

/* Where the marker stands, or its first bytes at the end; `n` if nowhere. */
static size_t
find_marker(const unsigned char *bytes, size_t n)
{
    const unsigned char *at = bytes, *end = bytes + n;
    while (at < end && (at = memchr(at, XC_MARKER[0], (size_t)(end - at))) != NULL) {
        size_t here = (size_t)(end - at);
        if (memcmp(at, XC_MARKER, here < XC_MARKER_SIZE ? here : XC_MARKER_SIZE) == 0) {
            return (size_t)(at - bytes);
        }
        at++;
    }
    return n;
}

void
xc_preamble_rest(xc_buf *kept, const unsigned char *bytes, size_t n)
{
    XC_ASSERT(xc_buf_size(kept) <= XC_PREAMBLE_MAX);
    size_t room = XC_PREAMBLE_MAX - xc_buf_size(kept);
    (void)xc_buf_add(kept, bytes, n < room ? n : room);
}

xc_status
xc_preamble_too_much(xc_err *err)
{
    return xc_failf(err, XC_BAD, "read",
                    "64 KiB of other output came first: a login or site that prints too much, or no far end of ours");
}

xc_status
xc_preamble_skip(xc_buf *kept, const unsigned char *bytes, size_t n, size_t *used, xc_err *err)
{
    XC_ASSERT(xc_buf_size(kept) <= XC_PREAMBLE_MAX);
    size_t preamble = find_marker(bytes, n);
    *used = preamble;
    if (preamble > XC_PREAMBLE_MAX - xc_buf_size(kept)) {
        xc_preamble_rest(kept, bytes, preamble);
        return xc_preamble_too_much(err);
    }
    if (preamble > 0 && xc_buf_add(kept, bytes, preamble) != XC_OK) {
        return xc_fail(err, XC_NOMEM, 0, "keep what came before the far end's first frame");
    }
    if (n - preamble < XC_MARKER_SIZE) {
        return XC_AGAIN;
    }
    *used = preamble + XC_MARKER_SIZE;
    return XC_OK;
}
