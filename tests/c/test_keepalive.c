/*
 * A far end that gives no sign of life ends the link in time, whoever reads or writes; one that answers, or only takes
 * what we send slowly, does not.
 */
#include "link_rig.h"

#define SHORT (200 * XC_MS)
#define LONG  XC_S /* where the machine's load must not be taken for silence */

static atomic_int given_up;

static void
count_giving_up(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void
keep_alive(rig *it, int64_t silence)
{
    atomic_store(&given_up, 0);
    xc_link_keepalive(it->link, silence, count_giving_up, &given_up);
}

static void
check_silent(rig *it, const char *text)
{
    xc_link_state state = state_of(it);
    CHECK_RC(state.ended_by.code, XC_SILENT);
    CHECK(strcmp(state.ended_by.detail, text) == 0);
    AWAIT(atomic_load(&given_up) > 0);
    CHECK_INT(atomic_load(&given_up), 1);
}

static void
nobody_reads(void)
{
    rig it = rig_open(false);
    int64_t began = xc_now();
    keep_alive(&it, SHORT);
    await_fin(&it);
    CHECK(xc_now() - began >= SHORT * 3 / 4);
    check_silent(&it, "the far end was silent for 0.2 seconds");
    expect_frame(it.from, XC_STATUS, 0, NULL, 0); /* once, and no more */
    expect_end(it.from);
    keep_alive(&it, SHORT);
    xc_link_keepalive(it.link, 0, NULL, NULL);
    check_pause_ms(2 * SHORT / XC_MS);
    CHECK_INT(atomic_load(&given_up), 0);
    rig_close(&it);
}

static void *
wait_for_close(void *arg)
{
    rig *it = arg;
    xc_chan *chan = new_chan(it);
    while (wait_for(it, XC_WAIT_CLOSE, chan, XC_FOREVER) == XC_INTR) {
    }
    xc_link_drop_chan(it->link, chan);
    return NULL;
}

static void
a_reader_sleeps(void)
{
    rig it = rig_open(false);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, wait_for_close, &it), 0);
    }
    await_reader(&it);
    await_waiters(&it, 2);
    keep_alive(&it, SHORT);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    check_silent(&it, "the far end was silent for 0.2 seconds");
    rig_close(&it);
}

/* --- far ends that live --------------------------------------------------------------------------------------- */

struct far_end {
    rig *it;
    int questions;
    size_t items; /* bytes of them */
};

/* Reads frames in bites of this size, with pauses; answers questions. Until the near end's goodbye. */
static void
live(struct far_end *far, size_t bite, long pause_ms)
{
    size_t have = 0, cap = 8 << 20;
    unsigned char *buf = malloc(cap);
    CHECK(buf != NULL);
    for (bool more = true; more;) {
        ssize_t got = read(far->it->from, buf + have, bite < cap - have ? bite : cap - have);
        CHECK(got > 0);
        have += (size_t)got;
        size_t at = 0;
        for (xc_frame frame; have - at >= XC_HEADER_SIZE; at += XC_HEADER_SIZE + frame.size) {
            CHECK_RC(xc_frame_unpack(buf + at, &frame, NULL), XC_OK);
            if (have - at - XC_HEADER_SIZE < frame.size) {
                break;
            }
            if (frame.code == XC_STATUS && frame.chan == 0) {
                far->questions++;
                rig_send(far->it, XC_DATA, 0, "LQ", 2);
                rig_send(far->it, XC_CLOSE, 0, NULL, 0);
            }
            far->items += frame.code == XC_DATA ? frame.size : 0;
            more = more && frame.code != XC_TERMINATE;
        }
        memmove(buf, buf + at, have - at);
        have -= at;
        check_pause_ms(pause_ms);
    }
    free(buf);
}

static void *
answer(void *arg)
{
    live(arg, 65536, 0);
    return NULL;
}

static void *
read_slowly(void *arg)
{
    live(arg, 16384, 20);
    return NULL;
}

static void
one_that_answers_lives(void)
{
    rig it = rig_open(false);
    struct far_end far = {.it = &it};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, answer, &far), 0);
    keep_alive(&it, LONG);
    check_pause_ms(5 * LONG / XC_MS);
    CHECK_RC(state_of(&it).ended_by.code, XC_OK);
    CHECK_INT(state_of(&it).channels, 0); /* the answers have made none */
    xc_link_goodbye(it.link);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK(far.questions >= 5 && far.questions <= 20);
    CHECK_INT(atomic_load(&given_up), 0);
    rig_close(&it);
}

static void
switched_off_none_is_judged(void)
{
    rig it = rig_open(false);
    keep_alive(&it, 4 * SHORT);
    xc_link_keepalive(it.link, 0, NULL, NULL);
    check_pause_ms(6 * SHORT / XC_MS);
    CHECK_RC(state_of(&it).ended_by.code, XC_OK);
    keep_alive(&it, SHORT);
    await_fin(&it);
    check_silent(&it, "the far end was silent for 0.2 seconds");
    rig_close(&it);
}

/* --- items on their way ------------------------------------------------------------------------------------------ */

enum { ITEM = 4 << 20 };

struct sender {
    rig *it;
    xc_status rc;
};

static void *
send_large(void *arg)
{
    struct sender *sender = arg;
    unsigned char head[XC_HEADER_SIZE], *item = calloc(1, ITEM);
    CHECK(item != NULL);
    xc_frame_pack(head, XC_DATA, 1, ITEM);
    struct iovec parts[] = {{head, sizeof head}, {item, ITEM}};
    xc_sending sending = {.parts = parts, .n = 2};
    xc_writer *writer = xc_link_writer(sender->it->link);
    while ((sender->rc = xc_writer_send_nogil(writer, &sending, XC_FOREVER, NULL)) == XC_INTR) {
    }
    free(item);
    return NULL;
}

/* Some seconds for the item, in which nothing comes back: the question stands behind it. */
static void
one_that_takes_slowly_lives(void)
{
    rig it = rig_open(false);
    struct far_end far = {.it = &it};
    struct sender sender = {.it = &it, .rc = XC_AGAIN};
    pthread_t reader, writer;
    keep_alive(&it, LONG);
    CHECK_INT(pthread_create(&writer, NULL, send_large, &sender), 0);
    CHECK_INT(pthread_create(&reader, NULL, read_slowly, &far), 0);
    CHECK_INT(pthread_join(writer, NULL), 0);
    CHECK_RC(sender.rc, XC_OK);
    CHECK_RC(state_of(&it).ended_by.code, XC_OK);
    xc_link_goodbye(it.link);
    CHECK_INT(pthread_join(reader, NULL), 0);
    CHECK_RC(state_of(&it).ended_by.code, XC_OK);
    CHECK_INT(far.items, ITEM);
    CHECK_INT(atomic_load(&given_up), 0);
    rig_close(&it);
}

static void
one_that_takes_nothing_more_is_silent(void)
{
    rig it = rig_open(false);
    struct sender sender = {.it = &it, .rc = XC_AGAIN};
    unsigned char bite[4096];
    pthread_t writer;
    CHECK_INT(pthread_create(&writer, NULL, send_large, &sender), 0);
    CHECK(read_all(it.from, bite, sizeof bite));
    keep_alive(&it, SHORT);
    CHECK_INT(pthread_join(writer, NULL), 0);
    CHECK_RC(sender.rc, XC_SILENT);
    await_fin(&it);
    check_silent(&it, "the far end was silent for 0.2 seconds");
    rig_close(&it);
}

/* What has arrived speaks for the far end, also if nobody has come to read it. */
static void
what_waits_to_be_read_is_a_sign_of_life(void)
{
    rig it = rig_open(false);
    bool had = true;
    while (had) {
        xc_lock(&it.link->mu);
        had = it.link->wait.reading;
        it.link->wait.reading = true;
        xc_unlock(&it.link->mu);
    }
    rig_send(&it, XC_CLOSE, 0, NULL, 0);
    keep_alive(&it, SHORT);
    check_pause_ms(4 * SHORT / XC_MS);
    CHECK(!atomic_load(&it.link->keepalive.silent));
    xc_lock(&it.link->mu);
    it.link->wait.reading = false;
    xc_unlock(&it.link->mu);
    xc_poll_soon(it.link);
    await_fin(&it); /* once it is read, nothing more comes */
    check_silent(&it, "the far end was silent for 0.2 seconds");
    rig_close(&it);
}

/* --- the other side, and ends ------------------------------------------------------------------------------------ */

/* A callback that computes holds up every frame but the question. */
static void
answered_beside_a_callback(void)
{
    static const char status[] = "JN\0\0\0\13numchannelsF\0\0\0\0PN\0\0\0\14numexecutingF\0\0\0\0P"
                                 "N\0\0\0\11execmodelN\0\0\0\6threadPQ";
    rig it = rig_open(true);
    CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    rig_send(&it, XC_STATUS, 2, NULL, 0);
    rig_send(&it, XC_STATUS, 0, NULL, 0);
    expect_frame(it.from, XC_DATA, 0, status, sizeof status - 1);
    expect_frame(it.from, XC_CLOSE, 0, NULL, 0);
    xc_link_dispatch_leave(it.link);
    expect_frame(it.from, XC_DATA, 2, status, sizeof status - 1);
    expect_frame(it.from, XC_CLOSE, 2, NULL, 0);
    rig_close(&it);
}

/* The timer goes with the link, whatever it was about to do. */
static void
released_at_any_moment(void)
{
    for (int round = 0; round < 40; round++) {
        rig it = rig_open(false);
        keep_alive(&it, round % 4 * 2 * XC_MS + 1);
        check_pause_ms(round % 5);
        if (round % 3 == 0) {
            rig_hang_up(&it);
        }
        rig_close(&it);
    }
}

/* The process has ended: the link ends by that, and nobody is given up who may not be there any more. */
static void
the_end_of_the_process_comes_first(void)
{
    rig it = rig_open(false);
    xc_link_owns_peer(it.link);
    keep_alive(&it, SHORT);
    rig_peer_gone(&it);
    await_fin(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_EOF);
    check_pause_ms(2 * SHORT / XC_MS);
    CHECK_INT(atomic_load(&given_up), 0);
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("keepalive", 100);
    RUN_IO(nobody_reads);
    RUN_IO(a_reader_sleeps);
    RUN_IO(one_that_answers_lives);
    RUN_IO(switched_off_none_is_judged);
    RUN_IO(one_that_takes_slowly_lives);
    RUN_IO(one_that_takes_nothing_more_is_silent);
    RUN_IO(what_waits_to_be_read_is_a_sign_of_life);
    RUN_IO(answered_beside_a_callback);
    RUN_IO(released_at_any_moment);
    RUN_IO(the_end_of_the_process_comes_first);
    return check_end();
}
