/*
 * Long messages at their receiver: pieces of several in any order, lent memory, messages that are dropped, lost or cut
 * off by the end of the connection, and everything that a far end must not send.
 */
#include "link_rig.h"
#include "xc_scan.h"

enum { LARGE = XC_BIG + 70000 };

static void
add_long(wire *to, uint32_t number, int code, uint32_t chan, uint64_t size)
{
    unsigned char payload[XC_LONG_SIZE];
    xc_long_frame message = {.code = (uint8_t)code, .chan = chan, .size = size};
    xc_long_pack(payload, &message);
    wire_add(to, XC_LONG, number, payload, sizeof payload);
}

/* A message whose pieces are added one by one. */
struct source {
    uint32_t number;
    wire payload;
    size_t at;
};

static struct source
begin_source(wire *to, uint32_t number, int code, uint32_t chan, wire payload)
{
    add_long(to, number, code, chan, payload.n);
    return (struct source){number, payload, 0};
}

static void
add_piece(wire *to, struct source *source, size_t size)
{
    size_t left = source->payload.n - source->at;
    size = size < left ? size : left;
    wire_add(to, XC_PIECE, source->number, source->payload.data + source->at, size);
    source->at += size;
}

/* A payload that is one bytes object. */
static wire
bytes_payload(uint32_t who, size_t size)
{
    wire payload = {NULL, 0, 0};
    unsigned char *at = wire_room(&payload, size + 6);
    at[0] = 'A';
    put32(at + 1, (uint32_t)size);
    fill_pattern(at + 5, size, who, 1);
    at[size + 5] = 'Q';
    return payload;
}

static wire
text_payload(const char *text)
{
    wire payload = {NULL, 0, 0};
    memcpy(wire_room(&payload, strlen(text)), text, strlen(text));
    return payload;
}

static void
expect_bytes(rig *it, xc_chan *chan, uint32_t who, size_t size)
{
    wire payload = bytes_payload(who, size);
    expect_item(it, chan, payload.data, payload.n);
    wire_free(&payload);
}

static void *
write_in_thread(void *arg)
{
    void **args = arg;
    rig_send_wire(args[0], args[1]);
    return NULL;
}

/* --- what is put together ------------------------------------------------------------------------------------- */

/* Whatever the pieces are, and wherever a read ends: byte by byte. */
static void
in_the_smallest_steps(void)
{
    static const size_t sizes[] = {1, 2, 5, 40};
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    for (int i = 0; i < 4; i++) {
        wire frames = {NULL, 0, 0}, payload = {NULL, 0, 0};
        fill_pattern(wire_room(&payload, 40), 40, 1, 1);
        struct source source = begin_source(&frames, 0xfffffff0, XC_DATA, chan->id, payload);
        while (source.at < 40) {
            add_piece(&frames, &source, 0);
            add_piece(&frames, &source, sizes[i]);
        }
        for (size_t at = 0; at < frames.n; at++) {
            CHECK(!is_ready(&it, XC_WAIT_ITEM, chan));
            write_all(it.to, frames.data + at, 1);
            (void)wait_for(&it, XC_WAIT_ITEM, chan, xc_after(XC_MS / 20));
        }
        expect_item(&it, chan, payload.data, 40);
        wire_free(&payload);
        wire_free(&frames);
    }
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* Frames between pieces take effect before the message does, also those of its own channel. */
static void
others_pass(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *other = new_chan(&it);
    wire frames = {NULL, 0, 0};
    unsigned char payload[6];
    struct source source = begin_source(&frames, 3, XC_DATA, chan->id, bytes_payload(1, LARGE));
    for (uint32_t i = 0; source.at < source.payload.n; i++) {
        add_piece(&frames, &source, 100000);
        wire_add(&frames, XC_DATA, i % 2 == 0 ? chan->id : other->id, payload, put_int(payload, i));
    }
    pthread_t thread;
    void *args[] = {&it, &frames};
    CHECK_INT(pthread_create(&thread, NULL, write_in_thread, args), 0);
    expect_int(&it, chan, 0);
    expect_int(&it, chan, 2);
    expect_int(&it, other, 1);
    expect_bytes(&it, chan, 1, LARGE);
    expect_int(&it, other, 3);
    CHECK_INT(pthread_join(thread, NULL), 0);
    wire_free(&source.payload);
    wire_free(&frames);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, other);
    rig_close(&it);
}

/* As many as may be, their pieces in a row; each has the effect of its code. */
static void
many_at_once(void)
{
    rig it = rig_open(true);
    xc_chan *chan = chan_of(&it, 1), *failed = chan_of(&it, 3);
    struct source sources[XC_LONG_COUNT];
    wire frames = {NULL, 0, 0};
    CHECK(xc_link_object(it.link, chan, &it, rig_keep) == (void *)&it);
    CHECK(xc_link_object(it.link, failed, &it, rig_keep) == (void *)&it);
    for (uint32_t i = 0; i < XC_LONG_COUNT; i++) {
        sources[i] = i == 0   ? begin_source(&frames, i, XC_EXEC, 5, text_payload("a task"))
                     : i == 1 ? begin_source(&frames, i, XC_CLOSE_ERROR, 3, text_payload("an error"))
                              : begin_source(&frames, i * 1000, XC_DATA, 1, bytes_payload(i, 1000 * i));
    }
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < XC_LONG_COUNT; i++) {
            if (sources[i].at < sources[i].payload.n) {
                add_piece(&frames, &sources[i], i < 2 ? 3 : 250 * i);
                more = true;
            }
        }
    }
    pthread_t thread;
    void *args[] = {&it, &frames};
    CHECK_INT(pthread_create(&thread, NULL, write_in_thread, args), 0);
    for (uint32_t i = 2; i < XC_LONG_COUNT; i++) { /* each has five pieces, the last one of six bytes */
        expect_bytes(&it, chan, i, 1000 * i);
    }
    CHECK_INT(pthread_join(thread, NULL), 0);
    xc_msg *task, *error = xc_link_take_error(it.link, failed);
    xc_chan *own;
    CHECK(error != NULL && error->size == 8 && memcmp(error->data, "an error", 8) == 0);
    xc_link_free_msg(it.link, error);
    CHECK_RC(xc_link_take_task(it.link, true, &task, &own), XC_OK);
    CHECK(task->size == 6 && memcmp(task->data, "a task", 6) == 0 && own->id == 5);
    xc_link_drop_chan(it.link, own);
    xc_link_free_msg(it.link, task);
    CHECK(state_of(&it).executing == 1 && it.link->reader.longs == NULL && it.link->reader.n_longs == 0);
    for (uint32_t i = 0; i < XC_LONG_COUNT; i++) {
        wire_free(&sources[i].payload);
    }
    wire_free(&frames);
    xc_link_drop_object(it.link, chan, chan->object);
    xc_link_drop_object(it.link, failed, failed->object);
    rig_close(&it);
}

/* --- lent memory ---------------------------------------------------------------------------------------------- */

/* Waits for an item at chan; lends memory to all that ask. */
static void
wait_lending(rig *it, xc_chan *chan, unsigned *lent)
{
    size_t space;
    xc_status rc;
    while ((rc = wait_giving(it, chan, XC_FOREVER, &space)) != XC_OK) {
        CHECK(rc == XC_SPACE || rc == XC_INTR);
        if (rc == XC_SPACE) {
            unsigned char *memory = malloc(space);
            CHECK(memory != NULL);
            CHECK(!xc_link_give_space(it->link, memory, memory, space + 1));
            CHECK(xc_link_give_space(it->link, memory, memory, space));
            CHECK(!xc_link_give_space(it->link, memory, memory, space));
            (*lent)++;
        }
    }
}

/* Whoever waits lends for all of them, and each is read into its own. */
static void
lent_to_several(void)
{
    enum { N = 3 };
    static const size_t firsts[] = {XC_BYTES_HEAD_MAX, 10, 1000, 100000};
    for (int i = 0; i < 4; i++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        struct source sources[N];
        wire frames = {NULL, 0, 0};
        unsigned lent = 0;
        for (uint32_t j = 0; j < N; j++) {
            sources[j] = begin_source(&frames, j, XC_DATA, chan->id, bytes_payload(j, LARGE));
            add_piece(&frames, &sources[j], firsts[i]);
        }
        while (sources[N - 1].at < sources[N - 1].payload.n) {
            for (uint32_t j = 0; j < N; j++) {
                add_piece(&frames, &sources[j], sources[j].payload.n - sources[j].at - (sources[j].at < LARGE));
            }
        }
        stop_pump();
        pthread_t thread;
        void *args[] = {&it, &frames};
        CHECK_INT(pthread_create(&thread, NULL, write_in_thread, args), 0);
        for (uint32_t j = 0; j < N; j++) {
            wait_lending(&it, chan, &lent);
            xc_msg *msg = take(&it, chan);
            CHECK(msg->space == msg->data && !msg->lost && msg->size == LARGE + 1);
            CHECK(has_pattern(msg->data, LARGE, j, 1) && msg->data[LARGE] == 'Q');
            free(msg->space);
            msg->space = NULL;
            xc_link_free_msg(it.link, msg);
            wire_free(&sources[j].payload);
        }
        CHECK_INT(lent, N);
        CHECK_INT(pthread_join(thread, NULL), 0);
        let_pump_go();
        wire_free(&frames);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* Nothing is asked for what is no single bytes object, or says too late that it is one. */
static void
nothing_to_lend_for(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    for (int i = 0; i < 5; i++) {
        wire frames = {NULL, 0, 0}, payload = bytes_payload(1, i == 0 ? XC_BIG - 7 : LARGE);
        unsigned lent = 0;
        if (i == 1) {
            payload.data[0] = 'N';
        }
        if (i == 2) {
            payload.data[4] ^= 1; /* not as long as it says */
        }
        struct source source = begin_source(&frames, 1, i == 3 ? XC_CLOSE_ERROR : XC_DATA, chan->id, payload);
        for (size_t step = i == 4 ? 4 : LARGE; source.at < payload.n; step = LARGE) {
            add_piece(&frames, &source, step);
        }
        CHECK(xc_link_object(it.link, chan, &it, rig_keep) == (void *)&it);
        pthread_t thread;
        void *args[] = {&it, &frames};
        CHECK_INT(pthread_create(&thread, NULL, write_in_thread, args), 0);
        if (i == 3) {
            size_t space;
            xc_wait wait = {.kind = XC_WAIT_CLOSE, .chan = chan, .until = XC_FOREVER, .can_give = true};
            CHECK_RC(xc_link_wait_nogil(it.link, &wait, &space), XC_OK);
            xc_msg *error = xc_link_take_error(it.link, chan);
            CHECK(error != NULL && error->size == payload.n);
            xc_link_free_msg(it.link, error);
            xc_link_drop_object(it.link, chan, chan->object);
            chan = new_chan(&it);
        }
        else {
            wait_lending(&it, chan, &lent);
            CHECK_INT(lent, 0);
            expect_item(&it, chan, payload.data, payload.n);
        }
        CHECK_INT(pthread_join(thread, NULL), 0);
        wire_free(&payload);
        wire_free(&frames);
    }
    xc_link_drop_object(it.link, chan, chan->object);
    rig_close(&it);
}

/* --- what is never complete ------------------------------------------------------------------------------------ */

/* Dropped, or cut off by the end of the link, with memory of every kind: what was complete stays, the rest is given
 * back, and a dropped one's number is free. */
static void
forgotten(void)
{
    for (int how = 0; how < 3; how++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        struct source sources[4];
        wire frames = {NULL, 0, 0};
        unsigned lent = 0;
        unsigned char payload[6];
        for (uint32_t i = 0; i < 4; i++) {
            sources[i] = begin_source(&frames, i, XC_DATA, chan->id, bytes_payload(i, i == 0 ? 100 : LARGE));
            if (i < 3) { /* of the last one nothing comes but its head */
                add_piece(&frames, &sources[i], 1000);
            }
        }
        wire_add(&frames, XC_DATA, chan->id, payload, put_int(payload, 7));
        stop_pump();
        rig_send_wire(&it, &frames);
        wait_lending(&it, chan, &lent);
        expect_bytes(&it, chan, 0, 100);
        wait_lending(&it, chan, &lent);
        expect_int(&it, chan, 7);
        CHECK_INT(lent, 2);
        let_pump_go();
        wire next = {NULL, 0, 0};
        if (how == 0) {
            for (uint32_t i = 1; i < 4; i++) {
                wire_add(&next, XC_DROP, i, NULL, 0);
                add_long(&next, i, XC_DATA, chan->id, 6);
                wire_add(&next, XC_PIECE, i, payload, put_int(payload, 10 + i));
            }
            rig_send_wire(&it, &next);
            for (uint32_t i = 1; i < 4; i++) {
                expect_int(&it, chan, 10 + i);
            }
            CHECK_INT(atomic_load(&rig_dropped), 2);
            CHECK_INT(it.link->reader.n_longs, 0);
        }
        else if (how == 1) {
            rig_hang_up(&it);
            await_fin(&it);
            CHECK_INT(atomic_load(&rig_dropped), 2);
            CHECK_RC(state_of(&it).ended_by.code, XC_EOF);
            CHECK(take(&it, chan) == NULL);
        }
        wire_free(&next);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it); /* given up before it has ended, where `how` is 2 */
        AWAIT(atomic_load(&rig_dropped) == 2);
        for (uint32_t i = 0; i < 4; i++) {
            wire_free(&sources[i].payload);
        }
        wire_free(&frames);
    }
}

/* The second allocation is the payload's: without it the item is lost, and only that. Without the first one, the note
 * that it exists, the link ends. */
static void
without_memory(void)
{
    for (int nth = 1; nth <= 2; nth++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire frames = {NULL, 0, 0};
        unsigned char payload[6];
        struct source source = begin_source(&frames, 1, XC_DATA, chan->id, bytes_payload(1, LARGE));
        while (source.at < source.payload.n) {
            add_piece(&frames, &source, 100000);
        }
        wire_add(&frames, XC_DATA, chan->id, payload, put_int(payload, 7));
        atomic_store(&until_failure, nth);
        xc_set_alloc_hook(fail_one);
        pthread_t thread;
        void *args[] = {&it, &frames};
        if (nth == 2) {
            CHECK_INT(pthread_create(&thread, NULL, write_in_thread, args), 0);
        }
        else {
            write_all(it.to, frames.data, XC_HEADER_SIZE + XC_LONG_SIZE);
        }
        xc_msg *msg = take(&it, chan);
        if (nth == 2) {
            CHECK(msg != NULL && msg->lost && msg->size == LARGE + 6);
            xc_link_free_msg(it.link, msg);
            expect_int(&it, chan, 7);
            CHECK_INT(pthread_join(thread, NULL), 0);
        }
        else {
            CHECK(msg == NULL);
            CHECK_RC(state_of(&it).ended_by.code, XC_NOMEM);
        }
        xc_set_alloc_hook(NULL);
        wire_free(&source.payload);
        wire_free(&frames);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* --- what is refused --------------------------------------------------------------------------------------------- */

static void
add_piece_of(wire *to, uint32_t number, size_t size)
{
    static const unsigned char zeros[100000];
    wire_add(to, XC_PIECE, number, zeros, size);
}

/* Behind a good item; an item behind it does not count. `why`: what is said about it. */
static void
refused(const wire *frames, const char *why)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    wire all = {NULL, 0, 0};
    unsigned char payload[6];
    wire_add(&all, XC_DATA, chan->id, payload, put_int(payload, 1));
    memcpy(wire_room(&all, frames->n), frames->data, frames->n);
    wire_add(&all, XC_DATA, chan->id, payload, put_int(payload, 2));
    pthread_t thread;
    void *args[] = {&it, &all};
    CHECK_INT(pthread_create(&thread, NULL, write_in_thread, args), 0);
    expect_int(&it, chan, 1);
    CHECK(take(&it, chan) == NULL);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_RC(state_of(&it).ended_by.code, XC_BAD);
    CHECK(strstr(state_of(&it).ended_by.detail, why) != NULL);
    wire_free(&all);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
hostile_frames(void)
{
    static const struct {
        uint32_t piece_of;
        size_t announced, sizes[3];
        const char *why;
    } pieces[] = {
        {1, 10, {1, 0, 0}, "a piece of long message 1, and there is none"},
        {0, 10, {11, 0, 0}, "a piece of 11 bytes, of which long message 0 lacks 10"},
        {0, 10, {4, 7, 0}, "a piece of 7 bytes, of which long message 0 lacks 6"},
        {0, 10, {4, 6, 1}, "a piece of long message 0, and there is none"},
        {0, 100000, {99999, 2, 0}, "a piece of 2 bytes, of which long message 0 lacks 1"},
    };
    for (int i = 0; i < 5; i++) {
        wire frames = {NULL, 0, 0};
        add_long(&frames, 0, XC_DATA, 77, pieces[i].announced);
        for (int j = 0; j < 3; j++) {
            add_piece_of(&frames, pieces[i].piece_of, pieces[i].sizes[j]);
        }
        refused(&frames, pieces[i].why);
        wire_free(&frames);
    }
    wire frames = {NULL, 0, 0};
    add_long(&frames, 8, XC_DATA, 1, 10);
    add_long(&frames, 8, XC_DATA, 1, 10);
    refused(&frames, "long message 8 begins, and there is one");
    frames.n = 0;
    add_long(&frames, 8, XC_DATA, 1, 10);
    wire_add(&frames, XC_DROP, 8, NULL, 0);
    wire_add(&frames, XC_DROP, 8, NULL, 0);
    refused(&frames, "long message 8 is dropped, and there is none");
    frames.n = 0;
    for (uint32_t i = 0; i <= XC_LONG_COUNT; i++) {
        add_long(&frames, i, XC_DATA, 1, XC_MAX_LONG); /* that costs nothing as long as nothing of it comes */
    }
    refused(&frames, "more than 64 long messages at a time");
    static const uint64_t sizes[] = {0, XC_MAX_LONG + 1, UINT64_MAX};
    for (int i = 0; i < 3; i++) {
        frames.n = 0;
        add_long(&frames, 0, XC_DATA, 1, sizes[i]);
        refused(&frames, " bytes");
    }
    for (int code = XC_LONG; code < 256; code += 41) {
        frames.n = 0;
        add_long(&frames, 0, code, 1, 10);
        refused(&frames, "cannot travel in pieces");
    }
    wire_free(&frames);
}

/* A goodbye ends it, even one in pieces; hellos are counted. */
static void
codes_without_payload(void)
{
    rig it = rig_open(false);
    wire frames = {NULL, 0, 0};
    for (uint32_t i = 0; i < XC_UNREAD_HELLOS; i++) {
        add_long(&frames, i, XC_HELLO, 0, 3);
        add_piece_of(&frames, i, 3);
    }
    add_long(&frames, 0, XC_TERMINATE, 0, 1);
    add_piece_of(&frames, 0, 1);
    add_long(&frames, 0, XC_LONG, 0, 0);
    rig_send_wire(&it, &frames);
    await_fin(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_CLOSED);
    CHECK(state_of(&it).heard_goodbye);
    rig_close(&it);
    frames.n = 0;
    for (uint32_t i = 0; i <= XC_UNREAD_HELLOS; i++) {
        add_long(&frames, i, XC_HELLO, 0, 3);
        add_piece_of(&frames, i, 3);
    }
    refused(&frames, "hellos");
    wire_free(&frames);
}

int
main(void)
{
    check_io_begin("pieces", 100);
    RUN_IO(in_the_smallest_steps);
    RUN_IO(others_pass);
    RUN_IO(many_at_once);
    RUN_IO(lent_to_several);
    RUN_IO(nothing_to_lend_for);
    RUN_IO(forgotten);
    RUN_IO(without_memory);
    RUN_IO(hostile_frames);
    RUN_IO(codes_without_payload);
    return check_end();
}
