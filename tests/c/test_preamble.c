/*
 * What comes before the marker: passed over however it is cut, kept, bounded; and a stream that ends without one.
 */
#include "link_rig.h"
#include "xc_preamble.h"

enum { PROGRAM_SECONDS = 60, ROUNDS = 3000, LONGEST = 60 };

static unsigned seed = 7;

static unsigned
draw(unsigned below)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % below;
}

/* --- the room alone ------------------------------------------------------------------------------------------- */

/* Feeds `bytes` in pieces of `piece` (0: of any size) as a link does. Returns how many were used, the marker's own
 * included; *found says whether it came. */
static size_t
feed(xc_buf *kept, const unsigned char *bytes, size_t n, size_t piece, bool *found)
{
    size_t start = 0, end = 0;
    *found = false;
    while (end < n && !*found) {
        size_t more = piece != 0 ? piece : 1 + draw(20);
        size_t used;
        xc_err err;
        end = end + more < n ? end + more : n;
        xc_status rc = xc_preamble_skip(kept, bytes + start, end - start, &used, &err);
        CHECK(rc == XC_OK || rc == XC_AGAIN);
        CHECK(used <= end - start);
        CHECK(rc == XC_OK || end - start - used < XC_MARKER_SIZE);
        start += used;
        *found = rc == XC_OK;
    }
    return start;
}

static void
check_fed(const unsigned char *preamble, size_t n, size_t piece)
{
    unsigned char bytes[LONGEST + XC_MARKER_SIZE + 5];
    xc_buf kept = {.data = NULL};
    bool found;
    memcpy(bytes, preamble, n);
    memcpy(bytes + n, XC_MARKER, XC_MARKER_SIZE);
    memcpy(bytes + n + XC_MARKER_SIZE, "after", 5);
    CHECK_INT(feed(&kept, bytes, n + XC_MARKER_SIZE + 5, piece, &found), n + XC_MARKER_SIZE);
    CHECK(found);
    CHECK_INT(xc_buf_size(&kept), n);
    CHECK(n == 0 || memcmp(xc_buf_head(&kept), preamble, n) == 0);
    xc_buf_fini(&kept);
}

static void
cut_anywhere(void)
{
    static const char *const preambles[] = {
        "", "Welcome!\n", "\0", "\0execnet_cx", "\0\0\0", "\0execnet_\0execnet_", "execnet_c\0", "x\0e\0ex\0exe",
    };
    static const size_t sizes[] = {0, 9, 1, 11, 3, 18, 10, 10};
    for (size_t i = 0; i < sizeof preambles / sizeof *preambles; i++) {
        for (size_t piece = 1; piece < 40; piece++) {
            check_fed((const unsigned char *)preambles[i], sizes[i], piece);
        }
    }
}

/* Made of the marker's own parts, so that it often looks like one. */
static size_t
draw_preamble(unsigned char *preamble)
{
    size_t n = 0;
    for (unsigned parts = draw(8); parts > 0; parts--) {
        size_t from = draw(XC_MARKER_SIZE), size = draw((unsigned)(XC_MARKER_SIZE - from));
        if (n + size <= LONGEST) {
            memcpy(preamble + n, &XC_MARKER[from], size);
            n += size;
        }
    }
    return n;
}

static void
random_preamble(void)
{
    unsigned char preamble[LONGEST + XC_MARKER_SIZE];
    int tried = 0;
    while (tried < ROUNDS) {
        size_t n = draw_preamble(preamble);
        memcpy(preamble + n, XC_MARKER,
               XC_MARKER_SIZE - 1); /* the marker must not begin earlier than where it is put */
        if (memmem(preamble, n + XC_MARKER_SIZE - 1, XC_MARKER, XC_MARKER_SIZE) == NULL) {
            check_fed(preamble, n, 0);
            tried++;
        }
    }
}

/* As much as is allowed, and one byte more. */
static void
too_much(void)
{
    size_t n = XC_PREAMBLE_MAX, used;
    unsigned char *bytes = malloc(n + 1 + XC_MARKER_SIZE);
    xc_buf kept = {.data = NULL};
    xc_err err;
    CHECK(bytes != NULL);
    fill_pattern(bytes, n, 1, 1);
    for (size_t i = 0; i < n; i++) {
        bytes[i] |= 1; /* no zero: nothing looks like a marker */
    }
    memcpy(bytes + n, XC_MARKER, XC_MARKER_SIZE);
    CHECK_RC(xc_preamble_skip(&kept, bytes, n + XC_MARKER_SIZE, &used, &err), XC_OK);
    CHECK_INT(used, n + XC_MARKER_SIZE);
    CHECK(xc_buf_size(&kept) == n && memcmp(xc_buf_head(&kept), bytes, n) == 0);
    xc_buf_fini(&kept);
    bytes[n] = 'x';
    memcpy(bytes + n + 1, XC_MARKER, XC_MARKER_SIZE);
    CHECK_RC(xc_preamble_skip(&kept, bytes, 1000, &used, &err), XC_AGAIN);
    CHECK_RC(xc_preamble_skip(&kept, bytes + 1000, n + 1 + XC_MARKER_SIZE - 1000, &used, &err), XC_BAD);
    CHECK(strstr(err.detail, "64 KiB of other output came first") != NULL);
    CHECK(xc_buf_size(&kept) == n && memcmp(xc_buf_head(&kept), bytes, n) == 0);
    xc_preamble_rest(&kept, bytes, 5); /* there is no room for it */
    CHECK_INT(xc_buf_size(&kept), n);
    xc_buf_fini(&kept);
    free(bytes);
}

static void
without_memory(void)
{
    xc_buf kept = {.data = NULL};
    xc_err err;
    size_t used;
    atomic_store(&check_allowed, 0);
    xc_set_alloc_hook(check_allow_some);
    CHECK_RC(xc_preamble_skip(&kept, (const unsigned char *)"noise", 5, &used, &err), XC_NOMEM);
    xc_preamble_rest(&kept, (const unsigned char *)"noise", 5);
    CHECK_RC(xc_preamble_skip(&kept, (const unsigned char *)XC_MARKER, XC_MARKER_SIZE, &used, &err), XC_OK);
    xc_set_alloc_hook(NULL);
    CHECK_INT(xc_buf_size(&kept), 0);
}

/* --- a link that expects it ----------------------------------------------------------------------------------- */

static rig
open_marked(void)
{
    xc_link_opts opts = rig_opts(false);
    opts.marked = true;
    return rig_open_with(opts);
}

static void
check_preamble(rig *it, const void *want, size_t n)
{
    unsigned char preamble[XC_PREAMBLE_MAX];
    CHECK_INT(xc_link_preamble(it->link, preamble, sizeof preamble), n);
    CHECK(n == 0 || memcmp(preamble, want, n) == 0);
    CHECK_INT(xc_link_preamble(it->link, NULL, 0), n);
}

/* Noise, marker and frames in one write, and byte by byte. */
static void
frames_behind_the_marker(void)
{
    static const unsigned char head[] = "motd\n\0exec\0\0execnet_\0execnet_c"; /* its own 0 ends it, and the marker */
    enum { PREAMBLE = sizeof head - XC_MARKER_SIZE };
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        rig it = open_marked();
        xc_chan *chan = new_chan(&it);
        wire stream = {NULL, 0, 0};
        memcpy(wire_room(&stream, sizeof head), head, sizeof head);
        wire_add_pattern(&stream, chan->id, 50, 0);
        wire_add_pattern(&stream, chan->id, 100000, 1);
        for (size_t i = 0; by_bytes && i < sizeof head + 30; i++) {
            write_all(it.to, stream.data + i, 1);
            CHECK_RC(wait_for(&it, XC_WAIT_ITEM, chan, 1), XC_TIMEOUT);
        }
        size_t done = by_bytes ? sizeof head + 30 : 0;
        write_all(it.to, stream.data + done, stream.n - done);
        for (unsigned i = 0; i < 2; i++) {
            xc_msg *msg = take(&it, chan);
            CHECK(msg != NULL && has_pattern(msg->data, msg->size, chan->id, i));
            xc_link_free_msg(it.link, msg);
        }
        check_preamble(&it, head, PREAMBLE);
        wire_free(&stream);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* The pump passes over it, too. */
static void
nobody_reads(void)
{
    rig it = open_marked();
    xc_chan *chan = new_chan(&it);
    write_all(it.to, "hi", 2);
    AWAIT(xc_link_preamble(it.link, NULL, 0) == 2);
    write_all(it.to, XC_MARKER, XC_MARKER_SIZE - 3);
    check_pause_ms(20);
    write_all(it.to, &XC_MARKER[XC_MARKER_SIZE - 3], 3);
    send_int(&it, chan->id, 5);
    AWAIT(is_ready(&it, XC_WAIT_ITEM, chan));
    expect_int(&it, chan, 5);
    check_preamble(&it, "hi", 2);
    rig_hang_up(&it);
    await_fin(&it);
    check_preamble(&it, "hi", 2);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
ends_before_the_marker(void)
{
    static const char said[] = "sh: python7: not found\n\0execnet_"; /* with the 0 behind it: no start of a marker */
    for (size_t n = 0; n <= sizeof said; n++) {
        rig it = open_marked();
        write_all(it.to, said, n);
        rig_hang_up(&it);
        CHECK_RC(wait_for(&it, XC_WAIT_FIN, NULL, XC_FOREVER), XC_OK);
        CHECK_RC(state_of(&it).ended_by.code, XC_EOF);
        check_preamble(&it, said, n);
        rig_close(&it);
    }
}

static void
never_a_marker(void)
{
    rig it = open_marked();
    unsigned char *bytes = malloc(XC_PREAMBLE_MAX + 1);
    CHECK(bytes != NULL);
    memset(bytes, 'y', XC_PREAMBLE_MAX + 1);
    write_all(it.to, bytes, XC_PREAMBLE_MAX);
    AWAIT(xc_link_preamble(it.link, NULL, 0) == XC_PREAMBLE_MAX);
    CHECK(!state_of(&it).fin);
    write_all(it.to, "y", 1);
    CHECK_RC(wait_for(&it, XC_WAIT_HELLO, NULL, XC_FOREVER), XC_OK);
    xc_link_state state = state_of(&it);
    CHECK(state.fin);
    CHECK_RC(state.ended_by.code, XC_BAD);
    CHECK(strstr(state.ended_by.detail, "no far end of ours") != NULL);
    check_preamble(&it, bytes, XC_PREAMBLE_MAX);
    xc_err err;
    xc_chan *chan;
    CHECK_RC(xc_link_new_chan(it.link, &chan, &err), XC_CLOSED);
    free(bytes);
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("preamble", PROGRAM_SECONDS);
    RUN(cut_anywhere);
    RUN(random_preamble);
    RUN(too_much);
    RUN(without_memory);
    RUN_IO(frames_behind_the_marker);
    RUN_IO(nobody_reads);
    RUN_IO(ends_before_the_marker);
    RUN_IO(never_a_marker);
    return check_end();
}
