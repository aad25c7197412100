/*
 * Frames that come in cuts, to one reader and to a crowd of threads that share the reader role.
 */
#include "link_rig.h"

enum { CASE_SECONDS = 10, PROGRAM_SECONDS = 100 };

/* --- cuts ----------------------------------------------------------------------------------------------------- */

static const size_t cut_sizes[] = {1, 0, 30, 9, 5};

static void
expect_cut_items(rig *it, xc_chan *chan)
{
    for (unsigned seq = 0; seq < 5; seq++) {
        expect_pattern(it, chan, cut_sizes[seq], seq);
    }
    xc_msg *none;
    CHECK_RC(xc_link_take_item(it->link, chan, &none), XC_AGAIN);
}

static void
cut_at_every_byte(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    wire stream = {NULL, 0, 0};
    for (unsigned seq = 0; seq < 5; seq++) {
        wire_add_pattern(&stream, chan->id, cut_sizes[seq], seq);
    }
    for (size_t cut = 0; cut <= stream.n; cut++) {
        write_all(it.to, stream.data, cut);
        (void)wait_for(&it, XC_WAIT_CLOSE, chan, cut % 3 == 0 ? 0 : xc_after(XC_MS / 5));
        write_all(it.to, stream.data + cut, stream.n - cut);
        expect_cut_items(&it, chan);
    }
    for (size_t at = 0; at < stream.n; at++) {
        write_all(it.to, stream.data + at, 1);
        CHECK_RC(wait_for(&it, XC_WAIT_CLOSE, chan, 0), XC_TIMEOUT);
    }
    expect_cut_items(&it, chan);
    /* The pump alone, a byte now and then. */
    for (size_t at = 0; at < stream.n; at++) {
        write_all(it.to, stream.data + at, 1);
        check_pause_ms(1);
    }
    AWAIT(is_ready(&it, XC_WAIT_ITEM, chan));
    expect_cut_items(&it, chan);
    wire_free(&stream);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* Payloads around the size of the buffer, cut near their ends and in the middle, with a frame before and behind. */
static void
large_frames_in_cuts(void)
{
    static const size_t sizes[] = {XC_INBUF - 10, XC_INBUF - 9, XC_INBUF - 8, XC_INBUF, 200000, 400000};
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        wire stream = {NULL, 0, 0};
        wire_add_pattern(&stream, chan->id, 20, 0);
        size_t head = stream.n;
        wire_add_pattern(&stream, chan->id, sizes[i], 1);
        size_t tail = stream.n;
        wire_add_pattern(&stream, chan->id, 20, 2);
        size_t cuts[] = {0,        head + 1, head + 8,      head + 9,     head + 10,    head + 14,
                         tail - 1, tail,     head + 100000, head + 65536, tail - 65536, tail + 1};
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            size_t cut = cuts[c] < stream.n ? cuts[c] : 0;
            write_all(it.to, stream.data, cut);
            (void)wait_for(&it, XC_WAIT_CLOSE, chan, c % 2 == 0 ? 0 : xc_after(XC_MS));
            write_all(it.to, stream.data + cut, stream.n - cut);
            expect_pattern(&it, chan, 20, 0);
            expect_pattern(&it, chan, sizes[i], 1);
            expect_pattern(&it, chan, 20, 2);
        }
        wire_free(&stream);
    }
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- many threads, many channels ------------------------------------------------------------------------------ */

enum { READERS = 8, CHANS_EACH = 3, ITEMS = 120 };

static struct {
    rig it;
    xc_chan *chans[READERS][CHANS_EACH];
    atomic_int received;
} crowd;

static size_t
crowd_size(uint32_t chan, unsigned seq)
{
    static const size_t sizes[] = {0, 1, 6, 100, 3000, 4, 66000, 17, 300000, 5};
    return sizes[(chan + seq) % (seq % 20 == 19 ? 10 : 6)];
}

static void *
crowd_reader(void *arg)
{
    int me = *(int *)arg;
    unsigned next[CHANS_EACH] = {0};
    for (int left = CHANS_EACH * ITEMS, round = 0; left > 0; round++) {
        int at = round % CHANS_EACH;
        xc_chan *chan = crowd.chans[me][at];
        xc_msg *msg;
        if (next[at] == ITEMS) {
            continue;
        }
        int64_t until = round % 4 == 0 ? XC_FOREVER : xc_after(round % 4 * XC_MS / 10);
        xc_status rc = wait_for(&crowd.it, XC_WAIT_ITEM, chan, until);
        CHECK(rc == XC_OK || rc == XC_TIMEOUT);
        while (xc_link_take_item(crowd.it.link, chan, &msg) == XC_OK) {
            CHECK(!msg->lost);
            CHECK_INT(msg->size, crowd_size(chan->id, next[at]));
            CHECK(has_pattern(msg->data, msg->size, chan->id, next[at]));
            next[at]++;
            left--;
            atomic_fetch_add(&crowd.received, 1);
            xc_link_free_msg(crowd.it.link, msg);
        }
    }
    return NULL;
}

/* Everything arrives, in order and once, though the stream comes in odd cuts with pauses and waiters come and go. */
static void
a_crowd_of_readers(void)
{
    pthread_t threads[READERS];
    int names[READERS];
    wire stream = {NULL, 0, 0};
    crowd.it = rig_open(false);
    atomic_store(&crowd.received, 0);
    for (int i = 0; i < READERS * CHANS_EACH; i++) {
        crowd.chans[i % READERS][i / READERS] = new_chan(&crowd.it);
    }
    for (unsigned seq = 0; seq < ITEMS; seq++) {
        for (int i = 0; i < READERS * CHANS_EACH; i++) {
            uint32_t id = crowd.chans[i % READERS][i / READERS]->id;
            wire_add_pattern(&stream, id, crowd_size(id, seq), seq);
        }
    }
    for (int i = 0; i < READERS; i++) {
        names[i] = i;
        CHECK_INT(pthread_create(&threads[i], NULL, crowd_reader, &names[i]), 0);
    }
    static const size_t cuts[] = {1, 8, 9, 10, 333, 4096, 17, 70000, 65536, 65545, 2, 25000};
    for (size_t at = 0, i = 0; at < stream.n; i++) {
        size_t n = cuts[i % 12] < stream.n - at ? cuts[i % 12] : stream.n - at;
        write_all(crowd.it.to, stream.data + at, n);
        at += n;
        if (i % 12 == 5) {
            check_pause_ms((long)(i % 3) * 4); /* at times longer than the pump waits */
        }
    }
    for (int i = 0; i < READERS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    CHECK_INT(atomic_load(&crowd.received), READERS * CHANS_EACH * ITEMS);
    for (int i = 0; i < READERS * CHANS_EACH; i++) {
        xc_link_drop_chan(crowd.it.link, crowd.chans[i % READERS][i / READERS]);
    }
    wire_free(&stream);
    rig_close(&crowd.it);
}

int
main(void)
{
    check_io_begin("link_cuts", PROGRAM_SECONDS);
    RUN_IO(cut_at_every_byte);
    RUN_IO(large_frames_in_cuts);
    RUN_IO(a_crowd_of_readers);
    return check_end();
}
