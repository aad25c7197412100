/*
 * Long messages at their sender: others have the role between two pieces, several go side by side, one that is given up
 * is dropped and its number free again, a signal handler may send inside one.
 */
#include <poll.h>

#include "writer_rig.h"

enum {
    LARGE = 3 * XC_PIECE_SIZE + 4083, /* its last but one piece leaves no room in a page for the last one */
    STREAM = LARGE + XC_LONG_SIZE + 6 * XC_HEADER_SIZE, /* bytes on the wire */
    MOST_LONGS = XC_LONG_COUNT + 8,
    CASE_SECONDS = 20,
    PROGRAM_SECONDS = 100
};

/* A long message and what is needed to send it. */
struct load {
    unsigned who;
    unsigned char *payload; /* owned */
    struct iovec room[3];
    xc_long_sending sending;
};

/* Where frames are read. */
static int see_fd;

static void
open_all(void)
{
    rig_open();
    see_fd = far;
}

static void
load_up(struct load *load, unsigned who)
{
    xc_long_frame message = {.code = XC_DATA, .chan = who, .size = LARGE};
    memset(load, 0, sizeof *load);
    load->who = who;
    load->payload = malloc(LARGE);
    CHECK(load->payload != NULL);
    fill_pattern(load->payload, LARGE, who, 0);
    load->room[1] = (struct iovec){load->payload, LARGE / 3};
    load->room[2] = (struct iovec){load->payload + LARGE / 3, LARGE - LARGE / 3};
    xc_long_begin(&load->sending, &message, load->room + 1);
}

static void
unload(struct load *load)
{
    memset(load->payload, 0xee, LARGE); /* whatever was kept of it was copied */
    free(load->payload);
}

static xc_status
send_long(struct load *load, int64_t until)
{
    xc_err err;
    return xc_writer_send_long_nogil(&writer, &load->sending, until, &err);
}

static void *
send_all(void *arg)
{
    struct load load;
    load_up(&load, *(unsigned *)arg);
    CHECK_RC(send_long(&load, XC_FOREVER), XC_OK);
    unload(&load);
    return NULL;
}

/* --- what arrives --------------------------------------------------------------------------------------------- */

struct arriving {
    bool live;
    uint32_t chan;
    size_t got, size;
    unsigned char *bytes; /* owned */
};

struct seen {
    struct arriving by_number[XC_LONG_COUNT];
    unsigned live, most_live;
    unsigned complete, dropped; /* messages */
    unsigned last;              /* channel of the latest that was complete or a frame of its own */
    unsigned frames, longs;
};

static void
end_arrival(struct seen *seen, struct arriving *one)
{
    free(one->bytes);
    *one = (struct arriving){.live = false};
    seen->live--;
}

/* Reads a frame; XC_LONG and XC_PIECE of it, too, are as they must be. Returns its code. */
static int
see_one(struct seen *seen)
{
    xc_frame frame;
    unsigned char *got;
    xc_err err;
    CHECK(read_frame(see_fd, &frame, &got));
    seen->frames++;
    struct arriving *one = seen->by_number + frame.chan % XC_LONG_COUNT;
    if (frame.code < XC_LONG) {
        CHECK(has_pattern(got, frame.size, frame.chan, 0));
        seen->last = frame.chan;
        free(got);
        return frame.code;
    }
    CHECK(frame.chan < XC_LONG_COUNT);
    CHECK(one->live == (frame.code != XC_LONG));
    if (frame.code == XC_LONG) {
        xc_long_frame message;
        CHECK_RC(xc_long_unpack(got, &message, &err), XC_OK);
        CHECK_INT(message.code, XC_DATA);
        *one = (struct arriving){true, message.chan, 0, (size_t)message.size, malloc((size_t)message.size)};
        CHECK(one->bytes != NULL);
        seen->live++;
        seen->longs++;
        seen->most_live = seen->live > seen->most_live ? seen->live : seen->most_live;
    }
    else if (frame.code == XC_PIECE) {
        CHECK(frame.size <= one->size - one->got);
        memcpy(one->bytes + one->got, got, frame.size);
        one->got += frame.size;
        if (one->got == one->size) {
            CHECK(has_pattern(one->bytes, one->size, one->chan, 0));
            seen->complete++;
            seen->last = one->chan;
            end_arrival(seen, one);
        }
    }
    else {
        seen->dropped++;
        end_arrival(seen, one);
    }
    free(got);
    return frame.code;
}

static void
see_until(struct seen *seen, unsigned complete, unsigned dropped)
{
    while (seen->complete < complete || seen->dropped < dropped) {
        see_one(seen);
    }
    CHECK_INT(seen->complete, complete);
    CHECK_INT(seen->dropped, dropped);
}

static void
see_frame(struct seen *seen, unsigned who)
{
    while (see_one(seen) != XC_DATA) {
    }
    CHECK_INT(seen->last, who);
}

/* --- the role ------------------------------------------------------------------------------------------------------
 */

static void
one_alone(void)
{
    unsigned who = 1;
    pthread_t thread;
    struct seen seen = {.frames = 0};
    open_all();
    CHECK_INT(pthread_create(&thread, NULL, send_all, &who), 0);
    see_until(&seen, 1, 0);
    CHECK_INT(seen.frames, 1 + 5);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_INT(writer.numbers, 0);
    rig_close();
}

static void *
send_small(void *arg)
{
    struct parcel parcel;
    xc_err err;
    pack(&parcel, *(unsigned *)arg, 0, SMALL);
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, XC_FOREVER, &err), XC_OK);
    unpack(&parcel);
    return NULL;
}

/* All that waited before a piece is out goes before the next one: posts, and who stood in the line. */
static void
between_two_pieces(void)
{
    enum { OTHERS = 6 };
    unsigned who = 1, names[OTHERS];
    pthread_t thread, others[OTHERS];
    struct seen seen = {.frames = 0};
    alarm(CASE_SECONDS);
    open_all();
    CHECK_INT(pthread_create(&thread, NULL, send_all, &who), 0);
    AWAIT(waiting() == 1); /* for room */
    for (unsigned i = 0; i < OTHERS; i++) {
        names[i] = 10 + i;
        CHECK_INT(pthread_create(&others[i], NULL, send_small, &names[i]), 0);
        AWAIT(waiting() == 2 + i);
    }
    post(30, 0, SMALL, XC_OK);
    CHECK_INT(see_one(&seen), XC_LONG);
    CHECK_INT(see_one(&seen), XC_PIECE);
    for (unsigned i = 0; i < OTHERS + 1; i++) {
        CHECK_INT(see_one(&seen), XC_DATA);
        CHECK_INT(seen.last, i == 0 ? 30 : 10 + i - 1);
    }
    see_until(&seen, 1, 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; i < OTHERS; i++) {
        CHECK_INT(pthread_join(others[i], NULL), 0);
    }
    alarm(PROGRAM_SECONDS);
    rig_close();
}

/* More of them than there are numbers: some wait, all arrive. Their pieces take turns: the first to begin is not the
 * first to end, by far. */
static void
many_side_by_side(void)
{
    unsigned names[MOST_LONGS];
    pthread_t threads[MOST_LONGS];
    struct seen seen = {.frames = 0};
    open_all();
    for (unsigned i = 0; i < MOST_LONGS; i++) {
        names[i] = i;
        CHECK_INT(pthread_create(&threads[i], NULL, send_all, &names[i]), 0);
    }
    AWAIT(waiting() == XC_LONG_COUNT);
    see_until(&seen, MOST_LONGS, 0);
    CHECK_INT(seen.most_live, XC_LONG_COUNT);
    for (unsigned i = 0; i < MOST_LONGS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    CHECK_INT(writer.numbers, 0);
    rig_close();
}

static atomic_bool all_sent;

static void *
send_in_slices(void *arg)
{
    struct load load;
    xc_status rc;
    load_up(&load, *(unsigned *)arg);
    while ((rc = send_long(&load, xc_after(XC_MS / 5))) == XC_TIMEOUT) {
    }
    CHECK_RC(rc, XC_OK);
    unload(&load);
    return NULL;
}

static void *
send_many_small(void *arg)
{
    while (!atomic_load(&all_sent)) {
        send_small(arg);
    }
    return NULL;
}

/* Its sender's time is up again and again, and others always wait: it keeps its place in the line. */
static void
a_place_in_the_line_is_kept(void)
{
    enum { OTHERS = 4 };
    unsigned names[OTHERS + 1];
    pthread_t thread, others[OTHERS];
    struct seen seen = {.frames = 0};
    alarm(CASE_SECONDS);
    open_all();
    atomic_store(&all_sent, false);
    for (unsigned i = 0; i <= OTHERS; i++) {
        names[i] = i;
        if (i < OTHERS) {
            CHECK_INT(pthread_create(&others[i], NULL, send_many_small, &names[i]), 0);
        }
    }
    CHECK_INT(pthread_create(&thread, NULL, send_in_slices, &names[OTHERS]), 0);
    see_until(&seen, 1, 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    atomic_store(&all_sent, true);
    post(99, 0, SMALL, XC_OK);
    for (unsigned ended = 0; ended < OTHERS;) {
        struct pollfd poller = {.fd = see_fd, .events = POLLIN};
        if (poll(&poller, 1, 10) == 1) {
            see_one(&seen);
        }
        else if (pthread_tryjoin_np(others[ended], NULL) == 0) {
            ended++;
        }
    }
    alarm(PROGRAM_SECONDS);
    rig_close();
}

/* --- giving up -------------------------------------------------------------------------------------------------- */

/* Everything up to the end of the stream, as a file to be read from its beginning. */
static int
keep_rest(const wire *before)
{
    unsigned char some[4096];
    ssize_t got;
    FILE *file = tmpfile();
    CHECK(file != NULL);
    int fd = dup(fileno(file));
    fclose(file);
    write_all(fd, before->data, before->n);
    while ((got = read(far, some, sizeof some)) > 0) {
        write_all(fd, some, (size_t)got);
    }
    CHECK_INT(got, 0);
    CHECK_INT(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/* Sends until so many bytes were read at the other end. True: all of it was written. */
static bool
send_until(struct load *load, size_t stop, wire *got)
{
    for (;;) {
        xc_status rc = send_long(load, xc_after(XC_MS / 4));
        struct pollfd poller = {.fd = far, .events = POLLIN};
        if (rc == XC_OK) {
            return true;
        }
        CHECK_RC(rc, XC_TIMEOUT);
        if (got->n == stop) {
            return false;
        }
        while (got->n < stop && poll(&poller, 1, 0) == 1) {
            size_t most = stop - got->n < 4096 ? stop - got->n : 4096;
            unsigned char *at = wire_room(got, most);
            ssize_t some = read(far, at, most);
            CHECK(some > 0);
            got->n -= most - (size_t)some;
        }
    }
}

/* The sender goes away after `stop` bytes were read: it is dropped, or all of it has come; the next one arrives.
 * Returns whether only the last byte's frame was missing. */
static bool
give_up_at(size_t stop)
{
    struct load load, next;
    struct seen seen = {.frames = 0};
    wire got = {NULL, 0, 0};
    open_all();
    load_up(&load, 2);
    bool sent = send_until(&load, stop, &got);
    bool last = load.sending.cut.message.size == 0 && load.sending.frame.n > 0 && !load.sending.frame.started;
    if (!sent) {
        CHECK(!xc_writer_drop(&writer, &load.sending));
        CHECK(!xc_writer_drop(&writer, &load.sending)); /* harmless */
    }
    unload(&load);
    CHECK_INT(writer.numbers, 0);
    load_up(&next, 3);
    bool next_sent = send_until(&next, stop + 2 * STREAM, &got);
    CHECK(next_sent);
    unload(&next);
    xc_writer_end(&writer);
    see_fd = keep_rest(&got);
    see_until(&seen, sent ? 2 : 1, sent ? 0 : 1);
    CHECK_INT(seen.last, 3);
    CHECK_INT(seen.live, 0);
    expect_goodbye(see_fd);
    close(see_fd);
    wire_free(&got);
    rig_close();
    return last;
}

/* Wherever that is: in a head, in a piece, before the last byte. */
static void
given_up_anywhere(void)
{
    static const size_t stops[] = {0, 1, 22, 100, 300000, XC_PIECE_SIZE, XC_PIECE_SIZE + 40, 2 * XC_PIECE_SIZE};
    bool last = false;
    for (int i = 0; i < 8; i++) {
        CHECK(!give_up_at(stops[i]));
    }
    for (size_t more = 0; more < 10000; more += 500) {
        last = give_up_at(STREAM - PIPE_SIZE + more) || last;
    }
    CHECK(last);
}

/* While something else is in the way nothing is sent, and its number is free. */
static void
given_up_in_the_line(void)
{
    struct load load;
    struct parcel first;
    open_all();
    pack(&first, 1, 0, 2 * PIPE_SIZE);
    CHECK_RC(xc_writer_try(&writer, &first.sending, NULL), XC_AGAIN);
    xc_writer_spill(&writer, &first.sending);
    unpack(&first);
    load_up(&load, 2);
    CHECK_RC(send_long(&load, xc_after(XC_MS)), XC_TIMEOUT);
    CHECK(load.sending.numbered);
    CHECK(!xc_writer_drop(&writer, &load.sending));
    unload(&load);
    CHECK_INT(writer.numbers, 0);
    post(3, 0, SMALL, XC_OK);
    expect_parcel(1, 0, 2 * PIPE_SIZE);
    expect_parcel(3, 0, SMALL);
    rig_close();
}

static void
dropped_without_memory(void)
{
    struct load load;
    struct parcel next;
    wire got = {NULL, 0, 0};
    xc_err err;
    open_all();
    load_up(&load, 2);
    CHECK(!send_until(&load, 1000, &got));
    wire_free(&got);
    xc_set_alloc_hook(check_allow_some);
    atomic_store(&check_allowed, 0);
    CHECK(!xc_writer_drop(&writer, &load.sending));
    xc_set_alloc_hook(NULL);
    unload(&load);
    pack(&next, 3, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &next.sending, &err), XC_NOMEM);
    unpack(&next);
    rig_close();
}

/* --- one inside another one ------------------------------------------------------------------------------------- */

static void *
see_four(void *arg)
{
    struct seen *seen = arg;
    see_until(seen, 2, 0);
    while (seen->frames < 2 * 6 + 2) {
        see_one(seen);
    }
    return NULL;
}

/* As a signal handler does that sends while its thread is in the middle of a piece, and others wait for the role. */
static void
a_long_inside_a_long(void)
{
    enum { OTHERS = 2 };
    struct load outer, inner;
    struct seen seen = {.frames = 0};
    unsigned names[OTHERS] = {5, 6};
    pthread_t others[OTHERS], reader;
    alarm(CASE_SECONDS);
    open_all();
    load_up(&outer, 1);
    CHECK_RC(send_long(&outer, xc_after(XC_MS)), XC_TIMEOUT);
    CHECK(outer.sending.frame.mine);
    for (unsigned i = 0; i < OTHERS; i++) {
        CHECK_INT(pthread_create(&others[i], NULL, send_small, &names[i]), 0);
    }
    AWAIT(waiting() == OTHERS);
    CHECK_INT(pthread_create(&reader, NULL, see_four, &seen), 0);
    load_up(&inner, 2);
    CHECK_RC(send_long(&inner, XC_FOREVER), XC_OK);
    unload(&inner);
    CHECK_RC(send_long(&outer, XC_FOREVER), XC_OK);
    unload(&outer);
    CHECK_INT(pthread_join(reader, NULL), 0);
    CHECK_INT(seen.longs, 2);
    for (unsigned i = 0; i < OTHERS; i++) {
        CHECK_INT(pthread_join(others[i], NULL), 0);
    }
    alarm(PROGRAM_SECONDS);
    rig_close();
}

/* The same where the inner one cannot finish either: both are dropped. */
static void
both_are_given_up(void)
{
    struct load outer, inner;
    struct seen seen = {.frames = 0};
    open_all();
    load_up(&outer, 1);
    CHECK_RC(send_long(&outer, xc_after(XC_MS)), XC_TIMEOUT);
    load_up(&inner, 2);
    CHECK_RC(send_long(&inner, xc_after(XC_MS)), XC_TIMEOUT);
    CHECK(inner.sending.frame.mine && !outer.sending.frame.mine);
    CHECK(!xc_writer_drop(&writer, &inner.sending)); /* nothing of it was begun */
    CHECK(!xc_writer_drop(&writer, &outer.sending));
    unload(&outer);
    unload(&inner);
    post(9, 0, SMALL, XC_OK);
    see_frame(&seen, 9);
    CHECK_INT(seen.dropped, 1);
    CHECK_INT(seen.longs, 1);
    CHECK_INT(writer.numbers, 0);
    rig_close();
}

/* The same while others, who wait for the role, have all the numbers. */
static void
inside_a_long_without_a_number(void)
{
    struct load outer, inner;
    open_all();
    load_up(&outer, 1);
    CHECK_RC(send_long(&outer, xc_after(XC_MS)), XC_TIMEOUT);
    CHECK(outer.sending.frame.mine);
    uint64_t numbers = writer.numbers;
    writer.numbers = UINT64_MAX;
    load_up(&inner, 2);
    CHECK_RC(send_long(&inner, xc_after(XC_MS)), XC_TIMEOUT);
    CHECK(!inner.sending.numbered && !outer.sending.frame.mine);
    writer.numbers = numbers;
    CHECK(!xc_writer_drop(&writer, &inner.sending));
    CHECK(!xc_writer_drop(&writer, &outer.sending));
    unload(&outer);
    unload(&inner);
    rig_close();
}

/* --- ends --------------------------------------------------------------------------------------------------------- */

/* A goodbye does not wait for a long message: that ends where it is. A break ends it, too. */
static void
an_end_in_the_middle(void)
{
    for (int broken = 0; broken < 2; broken++) {
        struct load load;
        wire got = {NULL, 0, 0};
        xc_err why;
        open_all();
        load_up(&load, 1);
        CHECK(!send_until(&load, 1000, &got));
        post(2, 0, SMALL, XC_OK);
        if (broken) {
            (void)xc_fail(&why, XC_EOF, 0, "read");
            xc_writer_break(&writer, &why);
            CHECK_RC(send_long(&load, XC_FOREVER), XC_EOF);
        }
        else {
            xc_writer_end(&writer);
            CHECK(!send_until(&load, XC_PIECE_SIZE + XC_LONG_SIZE + 2 * XC_HEADER_SIZE - PIPE_SIZE - 5000, &got));
            struct seen seen = {.frames = 0};
            size_t before = got.n;
            ssize_t some = read(far, wire_room(&got, PIPE_SIZE), PIPE_SIZE); /* room for the rest of the piece */
            CHECK(some > 0);
            got.n = before + (size_t)some;
            CHECK_RC(send_long(&load, XC_FOREVER), XC_CLOSED);
            see_fd = keep_rest(&got);
            CHECK_INT(see_one(&seen), XC_LONG);
            CHECK_INT(see_one(&seen), XC_PIECE);
            CHECK_INT(see_one(&seen), XC_DATA);
            expect_goodbye(see_fd);
            close(see_fd);
            free(seen.by_number[0].bytes);
        }
        CHECK(!xc_writer_drop(&writer, &load.sending));
        unload(&load);
        wire_free(&got);
        rig_close();
    }
}

int
main(void)
{
    check_io_begin("writer_long", PROGRAM_SECONDS);
    RUN_IO(one_alone);
    RUN_IO(between_two_pieces);
    RUN_IO(many_side_by_side);
    RUN_IO(a_place_in_the_line_is_kept);
    RUN_IO(given_up_anywhere);
    RUN_IO(given_up_in_the_line);
    RUN_IO(dropped_without_memory);
    RUN_IO(a_long_inside_a_long);
    RUN_IO(both_are_given_up);
    RUN_IO(inside_a_long_without_a_number);
    RUN_IO(an_end_in_the_middle);
    return check_end();
}
