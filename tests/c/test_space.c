/*
 * Large payloads: memory that the receiver lends, deadlines in the middle of one, a reader that takes over, memory
 * that comes too late, and payloads for which there is none.
 */
#include <sys/mman.h>

#include "link_rig.h"
#include "xc_pages.h"

enum { LARGE = 3 << 20 }; /* bytes of the object: larger than any pipe */

/* A frame whose payload is one bytes object; `head`: the bytes of its opcode and length, 5 or 9. */
static wire
object_frame(uint32_t chan, size_t head, size_t size, unsigned seq)
{
    wire frame = {NULL, 0, 0};
    unsigned char *at = wire_room(&frame, XC_HEADER_SIZE + head + size + 1);
    xc_frame_pack(at, XC_DATA, chan, (uint32_t)(head + size + 1));
    at += XC_HEADER_SIZE;
    memset(at, 0, head);
    at[0] = head == 5 ? 'A' : 'U';
    put32(at + head - 4, (uint32_t)size);
    fill_pattern(at + head, size, chan, seq);
    at[head + size] = 'Q';
    return frame;
}

static wire
bytes_frame(uint32_t chan, size_t size, unsigned seq)
{
    return object_frame(chan, 5, size, seq);
}

struct sender {
    pthread_t thread;
    rig *it;
    bool at_once; /* else when a thread reads, so that the pump is not the first to see it */
    const unsigned char *bytes;
    size_t n;
};

static void *
send_bytes(void *arg)
{
    struct sender *sender = arg;
    if (!sender->at_once) {
        await_reader(sender->it);
    }
    write_all(sender->it->to, sender->bytes, sender->n);
    return NULL;
}

static void
start_sending(struct sender *sender, rig *it, bool at_once, const unsigned char *bytes, size_t n)
{
    *sender = (struct sender){.it = it, .at_once = at_once, .bytes = bytes, .n = n};
    CHECK_INT(pthread_create(&sender->thread, NULL, send_bytes, sender), 0);
}

/* Waits for the announcement and lends memory; what is lent. */
static unsigned char *
lend(rig *it, xc_chan *chan, size_t want)
{
    size_t space;
    stop_pump();
    CHECK_RC(wait_giving(it, chan, XC_FOREVER, &space), XC_SPACE);
    CHECK_INT(space, want + 1);
    unsigned char *memory = malloc(space);
    CHECK(memory != NULL);
    CHECK(!xc_link_give_space(it->link, memory, memory, space - 1)); /* not what was asked for */
    CHECK(xc_link_give_space(it->link, memory, memory, space));
    CHECK(!xc_link_give_space(it->link, memory, memory, space)); /* it has some */
    let_pump_go();
    return memory;
}

static void
expect_lent(rig *it, xc_chan *chan, unsigned char *memory, size_t size, unsigned seq)
{
    xc_msg *msg = take(it, chan);
    CHECK(msg != NULL && msg->space == memory && msg->data == memory && !msg->lost);
    CHECK_INT(msg->chan, chan->id);
    CHECK_INT(msg->size, size + 1);
    CHECK(has_pattern(memory, size, chan->id, seq));
    CHECK_INT(memory[size], 'Q');
    msg->space = NULL; /* ours again */
    free(memory);
    xc_link_free_msg(it->link, msg);
}

static void
expect_copied(rig *it, xc_chan *chan, size_t size, unsigned seq)
{
    xc_msg *msg = take(it, chan);
    CHECK(msg != NULL && msg->space == NULL && !msg->lost);
    CHECK_INT(msg->size, size + 6);
    CHECK(msg->data[0] == 'A' && has_pattern(msg->data + 5, size, chan->id, seq) && msg->data[size + 5] == 'Q');
    xc_link_free_msg(it->link, msg);
}

static void
read_into_lent_memory(void)
{
    static const size_t sizes[] = {XC_BIG - 6, XC_BIG, LARGE};
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    for (unsigned i = 0; i < 6; i++) {
        struct sender sender;
        size_t size = sizes[i % 3];
        wire frames = object_frame(chan->id, i < 3 ? 5 : 9, size, i);
        unsigned char payload[6];
        wire_add(&frames, XC_DATA, chan->id, payload, put_int(payload, i));
        start_sending(&sender, &it, false, frames.data, frames.n);
        unsigned char *memory = lend(&it, chan, size);
        expect_lent(&it, chan, memory, size, i);
        expect_int(&it, chan, i);
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
        wire_free(&frames);
    }
    /* One byte less than large, and what only looks like bytes: read in the ordinary way. */
    size_t space;
    wire small = bytes_frame(chan->id, XC_BIG - 7, 0);
    rig_send_wire(&it, &small);
    CHECK_RC(wait_giving(&it, chan, XC_FOREVER, &space), XC_OK);
    expect_copied(&it, chan, XC_BIG - 7, 0);
    wire_free(&small);
    wire other = bytes_frame(chan->id, XC_BIG, 0);
    other.data[XC_HEADER_SIZE] = 'N';
    rig_send_wire(&it, &other);
    CHECK_RC(wait_giving(&it, chan, XC_FOREVER, &space), XC_OK);
    xc_link_free_msg(it.link, take(&it, chan));
    other.data[XC_HEADER_SIZE] = 'A';
    other.data[XC_HEADER_SIZE + 4] ^= 1; /* its length is not what the frame says */
    rig_send_wire(&it, &other);
    CHECK_RC(wait_giving(&it, chan, XC_FOREVER, &space), XC_OK);
    xc_link_free_msg(it.link, take(&it, chan));
    wire_free(&other);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* Cut inside the header, inside the object's head, and behind the longest head that there is. */
static void
in_cuts(size_t head)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    wire frame = object_frame(chan->id, head, XC_BIG, 5);
    for (size_t cut = 1; cut < 24; cut++) {
        struct sender sender;
        unsigned char *memory;
        if (cut >= XC_HEADER_SIZE + 9) {
            start_sending(&sender, &it, false, frame.data, cut);
            memory = lend(&it, chan, XC_BIG);
            CHECK_INT(pthread_join(sender.thread, NULL), 0);
            start_sending(&sender, &it, true, frame.data + cut, frame.n - cut);
        }
        else {
            size_t space;
            write_all(it.to, frame.data, cut); /* too little for anybody to take it as a whole */
            CHECK_RC(wait_giving(&it, chan, xc_after(XC_MS), &space), XC_TIMEOUT);
            start_sending(&sender, &it, false, frame.data + cut, frame.n - cut);
            memory = lend(&it, chan, XC_BIG);
        }
        expect_lent(&it, chan, memory, XC_BIG, 5);
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
    }
    wire_free(&frame);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
announced_in_cuts(void)
{
    in_cuts(5);
    in_cuts(9);
}

static void *
wait_in_thread(void *arg)
{
    rig *it = ((void **)arg)[0];
    CHECK_RC(wait_for(it, XC_WAIT_ITEM, ((void **)arg)[1], XC_FOREVER), XC_OK);
    return NULL;
}

/* The lender's time is up in the middle: another thread goes on, or the pump does. */
static void
another_goes_on(void)
{
    for (int by_pump = 0; by_pump < 2; by_pump++) {
        struct sender sender;
        pthread_t other;
        size_t space;
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire frame = bytes_frame(chan->id, LARGE, 1);
        start_sending(&sender, &it, false, frame.data, LARGE / 2);
        unsigned char *memory = lend(&it, chan, LARGE);
        CHECK_RC(wait_giving(&it, chan, xc_after(20 * XC_MS), &space), XC_TIMEOUT);
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
        void *args[] = {&it, chan};
        if (!by_pump) {
            CHECK_INT(pthread_create(&other, NULL, wait_in_thread, args), 0);
        }
        start_sending(&sender, &it, true, frame.data + LARGE / 2, frame.n - LARGE / 2);
        if (!by_pump) {
            CHECK_INT(pthread_join(other, NULL), 0);
        }
        AWAIT(is_ready(&it, XC_WAIT_ITEM, chan));
        expect_lent(&it, chan, memory, LARGE, 1);
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
        wire_free(&frame);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* Announced, but nothing lent: whoever reads next does without, and the memory that comes then is refused. */
static void
too_late(void)
{
    for (int by_pump = 0; by_pump < 2; by_pump++) {
        struct sender sender;
        size_t space;
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire frame = bytes_frame(chan->id, LARGE, 2);
        unsigned char *memory = malloc(LARGE + 1);
        CHECK(memory != NULL);
        CHECK(!xc_link_give_space(it.link, memory, memory, LARGE + 1)); /* never asked for */
        start_sending(&sender, &it, false, frame.data, frame.n);
        CHECK_RC(wait_giving(&it, chan, XC_FOREVER, &space), XC_SPACE);
        if (by_pump) {
            AWAIT(is_ready(&it, XC_WAIT_ITEM, chan));
        }
        else {
            CHECK_RC(wait_for(&it, XC_WAIT_ITEM, chan, XC_FOREVER), XC_OK);
        }
        CHECK(!xc_link_give_space(it.link, memory, memory, space));
        expect_copied(&it, chan, LARGE, 2);
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
        free(memory);
        wire_free(&frame);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* The stream ends, the link is given up, or the item is never received: the lent memory goes back. */
static void
lent_memory_is_given_back(void)
{
    for (int how = 0; how < 4; how++) {
        struct sender sender;
        size_t space;
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire frame = bytes_frame(chan->id, LARGE, 3);
        start_sending(&sender, &it, false, frame.data, how < 2 ? LARGE / 2 : frame.n);
        (void)lend(&it, chan, LARGE);
        if (how >= 2) {
            CHECK_RC(wait_giving(&it, chan, XC_FOREVER, &space), XC_OK);
        }
        else {
            CHECK_RC(wait_giving(&it, chan, xc_after(10 * XC_MS), &space), XC_TIMEOUT);
        }
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
        if (how == 1) {
            rig_hang_up(&it);
            await_fin(&it);
            CHECK_INT(atomic_load(&rig_dropped), 1);
            CHECK(!xc_link_give_space(it.link, &it, (unsigned char *)&it, LARGE + 1));
        }
        if (how == 3) { /* the item in the queue keeps the link's memory: the channel is dropped with the link */
            CHECK(xc_link_set_callback(it.link, chan));
        }
        xc_link_drop_chan(it.link, chan);
        if (how == 2) {
            CHECK_INT(atomic_load(&rig_dropped), 1);
        }
        rig_close(&it);
        AWAIT(atomic_load(&rig_dropped) == 1);
        wire_free(&frame);
    }
}

/* --- no memory ------------------------------------------------------------------------------------------------ */

/* The first allocation that reading makes is the message of the first frame. */
static void
a_lost_payload(void)
{
    static const size_t sizes[] = {0, 100, XC_INBUF, XC_BIG, LARGE};
    for (int i = 0; i < 5; i++) {
        struct sender sender;
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire frames = bytes_frame(chan->id, sizes[i], 1), next = bytes_frame(chan->id, 100, 2);
        memcpy(wire_room(&frames, next.n), next.data, next.n);
        atomic_store(&until_failure, 1);
        xc_set_alloc_hook(fail_one);
        start_sending(&sender, &it, false, frames.data, frames.n);
        xc_msg *msg = take(&it, chan);
        CHECK(msg != NULL && msg->lost);
        CHECK_INT(msg->size, sizes[i] + 6); /* so much could not be kept */
        xc_link_free_msg(it.link, msg);
        expect_copied(&it, chan, 100, 2);
        xc_set_alloc_hook(NULL);
        CHECK_INT(pthread_join(sender.thread, NULL), 0);
        wire_free(&frames);
        wire_free(&next);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

static bool
allow_none(void)
{
    return false;
}

/* Not even for the note that something was lost: the link ends, says why, and nobody waits for ever. */
static void
no_memory_at_all(void)
{
    static const size_t sizes[] = {100, LARGE};
    for (int i = 0; i < 2; i++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        wire frame = bytes_frame(chan->id, sizes[i], 1);
        (void)wait_for(&it, XC_WAIT_ITEM, chan, 0);
        xc_set_alloc_hook(allow_none);
        write_all(it.to, frame.data, 50);
        if (i == 0) {
            write_all(it.to, frame.data + 50, frame.n - 50);
        }
        CHECK(take(&it, chan) == NULL);
        xc_set_alloc_hook(NULL);
        CHECK_RC(state_of(&it).ended_by.code, XC_NOMEM);
        CHECK(state_of(&it).ended_by.step[0] != '\0');
        CHECK(state_of(&it).fin);
        wire_free(&frame);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

/* --- pages ---------------------------------------------------------------------------------------------------- */

/* Moving keeps every byte, whatever the edges are; dropping takes whole pages only, so the neighbours stay. */
static void
pages(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = 9 << 20;
    unsigned char *from = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(from != MAP_FAILED);
    static const size_t starts[] = {0, 1, 100, 4095}, sizes[] = {0, 1, 4096, 1 << 20, (8 << 20) + 77};
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 5; j++) {
            unsigned char *into = malloc(sizes[j] + 1);
            CHECK(into != NULL);
            memset(from, 0xaa, room);
            fill_pattern(from + starts[i], sizes[j], 1, 2);
            xc_pages_move(into, from + starts[i], sizes[j]);
            CHECK(has_pattern(into, sizes[j], 1, 2));
            for (size_t k = 0; k < starts[i]; k++) {
                CHECK(from[k] == 0xaa);
            }
            for (size_t k = starts[i] + sizes[j]; k < room; k += 13) {
                CHECK(from[k] == 0xaa);
            }
            free(into);
        }
    }
    memset(from, 0xbb, room);
    xc_pages_drop(from + 1, 3 * page);
#if defined(__linux__)
    CHECK(from[page] == 0 && from[3 * page - 1] == 0);
#endif
    CHECK(from[page - 1] == 0xbb && from[3 * page] == 0xbb);
    xc_pages_fill(from, room);
    CHECK(from[page - 1] == 0xbb);
    munmap(from, room);
}

int
main(void)
{
    check_io_begin("space", 100);
    RUN_IO(read_into_lent_memory);
    RUN_IO(announced_in_cuts);
    RUN_IO(another_goes_on);
    RUN_IO(too_late);
    RUN_IO(lent_memory_is_given_back);
    RUN_IO(a_lost_payload);
    RUN_IO(no_memory_at_all);
    RUN_IO(pages);
    return check_end();
}
