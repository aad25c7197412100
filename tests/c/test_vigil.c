/*
 * Vigils: waits without a thread. Each is told once, by one number in a pipe, that what it waits for holds or that the
 * link has ended; one that held from the start, or whose pipe is full, is over all the same; one that was ended is
 * never told anything; and none of them ever keeps the reader role from a thread or from the I/O thread.
 */
#include <poll.h>

#include "link_rig.h"

enum { CASE_SECONDS = 10, PROGRAM_SECONDS = 100 };

/* Where vigils ring: as the user of vigils has it, neither end blocks. */
typedef struct {
    int from, into;
} bells;

static bells
bells_open(void)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    return (bells){ends[0], ends[1]};
}

static void
bells_close(bells *it)
{
    close(it->from);
    close(it->into);
}

/* The next number, waited for as long as it takes. */
static uint64_t
next_ring(bells *it)
{
    struct pollfd fd = {.fd = it->from, .events = POLLIN};
    uint64_t number = 0;
    while (poll(&fd, 1, -1) != 1) {
        CHECK_INT(errno, EINTR);
    }
    CHECK_INT(read(it->from, &number, sizeof number), sizeof number);
    return number;
}

static bool
rung(bells *it)
{
    struct pollfd fd = {.fd = it->from, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static xc_vigil *
begin(rig *it, bells *to, xc_wait_kind kind, xc_chan *chan, uint64_t number)
{
    xc_wait wait = {.kind = kind, .chan = chan, .until = XC_FOREVER};
    xc_vigil *vigil = xc_link_begin_vigil(it->link, &wait, to->into, number);
    memset(&wait, 0xee, sizeof wait); /* it was copied */
    CHECK(vigil != NULL);
    return vigil;
}

/* --- each kind ------------------------------------------------------------------------------------------------ */

typedef struct {
    rig it;
    xc_chan *chan; /* counted; has a callback where the kind needs one */
    bells to;
} scene;

static scene
scene_open(bool worker)
{
    scene at = {.it = rig_open(worker), .to = bells_open()};
    at.chan = new_chan(&at.it);
    alarm(CASE_SECONDS);
    return at;
}

static void
scene_close(scene *at)
{
    alarm(PROGRAM_SECONDS);
    xc_link_drop_chan(at->it.link, at->chan);
    rig_close(&at->it);
    bells_close(&at->to);
}

static void
an_item(scene *at)
{
    send_int(&at->it, at->chan->id, 1);
}

static void
far_close(scene *at)
{
    rig_send(&at->it, XC_CLOSE, at->chan->id, NULL, 0);
}

static void
last_message(scene *at)
{
    rig_send(&at->it, XC_LAST_MESSAGE, at->chan->id, NULL, 0);
}

static void
own_close(scene *at)
{
    bool tell;
    (void)xc_link_close_chan(at->it.link, at->chan, &tell, NULL);
}

static void
hang_up(scene *at)
{
    rig_hang_up(&at->it);
}

static void
a_hello(scene *at)
{
    rig_send(&at->it, XC_HELLO, 0, "NQ", 2);
}

static void
a_task(scene *at)
{
    rig_send(&at->it, XC_EXEC, 1, "NQ", 2);
}

static void
run_task(scene *at)
{
    xc_msg *msg;
    xc_chan *chan;
    CHECK_RC(xc_link_take_task(at->it.link, true, &msg, &chan), XC_OK);
    xc_link_free_msg(at->it.link, msg);
    xc_link_drop_chan(at->it.link, chan);
    xc_link_task_done(at->it.link, true);
}

static void
enter(scene *at)
{
    CHECK_RC(xc_link_dispatch_enter(at->it.link), XC_OK);
}

static void
leave(scene *at)
{
    xc_link_dispatch_leave(at->it.link);
}

static void
process_gone(scene *at)
{
    xc_link_peer_gone(at->it.link);
}

static void
goodbye(scene *at)
{
    rig_send(&at->it, XC_TERMINATE, 0, NULL, 0);
}

/* A worker whose link ends without a goodbye would soon be killed: see xc_fate.h. */
static void
end_of(scene *at, bool worker)
{
    (worker ? goodbye : process_gone)(at);
}

static void
before_task(scene *at)
{
    a_task(at);
    AWAIT(is_ready(&at->it, XC_WAIT_TASK, NULL));
}

static void
before_backlog(scene *at)
{
    CHECK(xc_link_set_callback(at->it.link, at->chan));
}

static void
after_backlog(scene *at)
{
    xc_chan *chan;
    enter(at);
    xc_msg *msg = xc_link_backlog_next(at->it.link, &chan);
    CHECK(msg != NULL && chan == at->chan);
    xc_link_free_msg(at->it.link, msg);
    xc_link_drop_chan(at->it.link, chan);
    leave(at);
    xc_link_end_callback(at->it.link, at->chan);
}

static void
before_gone(scene *at)
{
    xc_link_owns_peer(at->it.link);
}

/* What a kind waits for, the scene that it needs, and how it comes about. */
static const struct happening {
    xc_wait_kind kind;
    bool worker;
    void (*before)(scene *at);
    void (*happen)(scene *at);
    void (*after)(scene *at);
} happenings[] = {
    {XC_WAIT_ITEM, false, NULL, an_item, NULL},        {XC_WAIT_ITEM, false, NULL, far_close, NULL},
    {XC_WAIT_ITEM, false, NULL, own_close, NULL},      {XC_WAIT_ITEM, false, NULL, hang_up, NULL},
    {XC_WAIT_CLOSE, false, NULL, far_close, NULL},     {XC_WAIT_CLOSE, false, NULL, last_message, NULL},
    {XC_WAIT_CLOSE, false, NULL, own_close, NULL},     {XC_WAIT_CLOSE, false, NULL, hang_up, NULL},
    {XC_WAIT_FIN, false, NULL, hang_up, NULL},         {XC_WAIT_FIN, false, NULL, process_gone, NULL},
    {XC_WAIT_HELLO, false, NULL, a_hello, NULL},       {XC_WAIT_HELLO, false, NULL, hang_up, NULL},
    {XC_WAIT_TASK, true, NULL, a_task, run_task},      {XC_WAIT_TASK_SPARE, true, NULL, a_task, run_task},
    {XC_WAIT_IDLE, true, before_task, run_task, NULL}, {XC_WAIT_BACKLOG, false, before_backlog, an_item, after_backlog},
    {XC_WAIT_DISPATCH, false, enter, leave, NULL},     {XC_WAIT_GONE, false, before_gone, process_gone, NULL},
};
enum { HAPPENINGS = sizeof happenings / sizeof *happenings };

/* Not over and quiet; then it happens: one number, and no second one when more happens. */
static void
each_kind_rings_once(void)
{
    for (int i = 0; i < HAPPENINGS; i++) {
        const struct happening *what = &happenings[i];
        scene at = scene_open(what->worker);
        if (what->before != NULL) {
            what->before(&at);
        }
        xc_vigil *vigil = begin(&at.it, &at.to, what->kind, at.chan, UINT64_MAX - (unsigned)i);
        CHECK(!xc_vigil_over(at.it.link, vigil));
        CHECK(!rung(&at.to));
        what->happen(&at);
        CHECK(next_ring(&at.to) == UINT64_MAX - (unsigned)i);
        CHECK(xc_vigil_over(at.it.link, vigil));
        if (what->after != NULL) {
            what->after(&at);
        }
        end_of(&at, what->worker);
        await_fin(&at.it);
        CHECK(!rung(&at.to));
        CHECK(xc_vigil_over(at.it.link, vigil));
        xc_link_end_vigil(at.it.link, vigil);
        scene_close(&at);
    }
}

/* It holds before: over at once, and nothing is written, not even when the link ends. */
static void
held_from_the_start(void)
{
    for (int i = 0; i < HAPPENINGS; i++) {
        const struct happening *what = &happenings[i];
        scene at = scene_open(what->worker);
        if (what->before != NULL) {
            what->before(&at);
        }
        what->happen(&at);
        AWAIT(is_ready(&at.it, what->kind, at.chan));
        xc_vigil *vigil = begin(&at.it, &at.to, what->kind, at.chan, 1);
        CHECK(xc_vigil_over(at.it.link, vigil));
        if (what->after != NULL) {
            what->after(&at);
        }
        end_of(&at, what->worker);
        await_fin(&at.it);
        CHECK(xc_vigil_over(at.it.link, vigil));
        xc_link_end_vigil(at.it.link, vigil);
        CHECK(!rung(&at.to));
        scene_close(&at);
    }
}

/* A second number is of a second vigil: what held once is asked for anew. */
static void
one_after_the_other(void)
{
    scene at = scene_open(false);
    for (uint32_t i = 1; i <= 50; i++) {
        xc_vigil *vigil = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, i);
        CHECK(!xc_vigil_over(at.it.link, vigil));
        send_int(&at.it, at.chan->id, i);
        CHECK_INT(next_ring(&at.to), i);
        xc_link_end_vigil(at.it.link, vigil);
        expect_int(&at.it, at.chan, i);
    }
    CHECK(!rung(&at.to));
    scene_close(&at);
}

/* What is not for it does not ring it. */
static void
other_news(void)
{
    scene at = scene_open(false);
    xc_chan *other = new_chan(&at.it);
    xc_vigil *item = begin(&at.it, &at.to, XC_WAIT_ITEM, other, 1);
    xc_vigil *close = begin(&at.it, &at.to, XC_WAIT_CLOSE, at.chan, 2);
    a_hello(&at);
    an_item(&at);
    expect_int(&at.it, at.chan, 1);
    enter(&at);
    leave(&at);
    CHECK(!rung(&at.to));
    CHECK(!xc_vigil_over(at.it.link, item) && !xc_vigil_over(at.it.link, close));
    far_close(&at);
    CHECK_INT(next_ring(&at.to), 2);
    CHECK(!xc_vigil_over(at.it.link, item));
    xc_link_end_vigil(at.it.link, close);
    xc_link_end_vigil(at.it.link, item);
    xc_link_drop_chan(at.it.link, other);
    scene_close(&at);
}

/* --- a full pipe, no memory ------------------------------------------------------------------------------------- */

/* Nobody blocks, the I/O thread least of all; what is over is found by asking. */
static void
a_full_pipe(void)
{
    static const char filler[4096];
    scene at = scene_open(false);
    size_t full = 0;
    for (ssize_t put; (put = write(at.to.into, filler, sizeof filler)) > 0;) {
        full += (size_t)put;
    }
    CHECK_INT(errno, EAGAIN);
    xc_vigil *item = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 1);
    xc_vigil *close = begin(&at.it, &at.to, XC_WAIT_CLOSE, at.chan, 2);
    an_item(&at);
    AWAIT(xc_vigil_over(at.it.link, item));
    CHECK(!xc_vigil_over(at.it.link, close));
    for (char bytes[4096]; full > 0;) {
        ssize_t got = read(at.to.from, bytes, sizeof bytes);
        CHECK(got > 0 && memcmp(bytes, filler, (size_t)got) == 0);
        full -= (size_t)got;
    }
    CHECK(!rung(&at.to)); /* what was not written then is not written later */
    far_close(&at);
    CHECK_INT(next_ring(&at.to), 2);
    CHECK(!rung(&at.to));
    xc_link_end_vigil(at.it.link, item);
    xc_link_end_vigil(at.it.link, close);
    scene_close(&at);
}

static void
without_memory(void)
{
    scene at = scene_open(false);
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = at.chan, .until = XC_FOREVER};
    atomic_store(&until_failure, 1);
    xc_set_alloc_hook(fail_one);
    CHECK(xc_link_begin_vigil(at.it.link, &wait, at.to.into, 1) == NULL);
    xc_set_alloc_hook(NULL);
    CHECK_INT(count_waiters(&at.it), 0);
    an_item(&at);
    expect_int(&at.it, at.chan, 1);
    CHECK(!rung(&at.to));
    scene_close(&at);
}

/* --- ends ------------------------------------------------------------------------------------------------------- */

static void
nonsense(scene *at)
{
    write_all(at->it.to, "\x09\0\0\0\1\0\0\0\0", 9);
}

static void
link_hang_up(scene *at)
{
    xc_link_hang_up(at->it.link);
}

/* All vigils are rung, once each, whatever they wait for: DISPATCH and GONE, too, which do not hold. */
static void
rings_all(void (*end)(scene *at))
{
    static const xc_wait_kind kinds[] = {XC_WAIT_ITEM,    XC_WAIT_CLOSE,      XC_WAIT_FIN,
                                         XC_WAIT_HELLO,   XC_WAIT_TASK,       XC_WAIT_GONE,
                                         XC_WAIT_BACKLOG, XC_WAIT_TASK_SPARE, XC_WAIT_DISPATCH};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    xc_vigil *vigils[KINDS];
    uint64_t seen = 0;
    scene at = scene_open(false);
    xc_link_owns_peer(at.it.link);
    enter(&at);
    for (unsigned i = 0; i < KINDS; i++) {
        vigils[i] = begin(&at.it, &at.to, kinds[i], at.chan, i);
        CHECK(!xc_vigil_over(at.it.link, vigils[i]));
    }
    CHECK(!rung(&at.to));
    end(&at);
    for (unsigned i = 0; i < KINDS; i++) {
        seen |= UINT64_C(1) << next_ring(&at.to);
    }
    CHECK_INT(seen, (1 << KINDS) - 1);
    for (unsigned i = 0; i < KINDS; i++) {
        CHECK(xc_vigil_over(at.it.link, vigils[i]));
    }
    leave(&at);
    await_fin(&at.it);
    xc_link_peer_gone(at.it.link);
    CHECK(!rung(&at.to));
    for (unsigned i = 0; i < KINDS; i++) {
        xc_link_end_vigil(at.it.link, vigils[i]);
    }
    scene_close(&at);
}

static void
the_end_rings_all(void)
{
    rings_all(hang_up);
    rings_all(goodbye);
    rings_all(nonsense);
    rings_all(link_hang_up);
}

/* The end waits behind a callback: vigils are told of it, and those that begin then, when it has taken effect. */
static void
an_end_behind_a_callback(void)
{
    scene at = scene_open(false);
    xc_chan *none;
    CHECK(xc_link_set_callback(at.it.link, at.chan));
    xc_vigil *before = begin(&at.it, &at.to, XC_WAIT_FIN, NULL, 1);
    hang_up(&at);
    CHECK_INT(next_ring(&at.to), 1);
    CHECK(xc_vigil_over(at.it.link, before) && !state_of(&at.it).fin);
    xc_vigil *since = begin(&at.it, &at.to, XC_WAIT_FIN, NULL, 2);
    CHECK(!xc_vigil_over(at.it.link, since));
    enter(&at);
    xc_msg *fin = xc_link_backlog_next(at.it.link, &none);
    CHECK(fin != NULL && fin->code == XC_FIN && none == NULL);
    CHECK(!rung(&at.to));
    xc_link_end_callback(at.it.link, at.chan);
    xc_link_settle(at.it.link, fin);
    CHECK_INT(next_ring(&at.to), 2);
    leave(&at);
    CHECK(!rung(&at.to));
    xc_link_end_vigil(at.it.link, since);
    xc_link_end_vigil(at.it.link, before);
    scene_close(&at);
}

/* The process has ended, what it wrote is still to be read: that is no news for who waits for an item of it. */
static void
a_process_gone_is_not_the_end(void)
{
    scene at = scene_open(false);
    xc_link_owns_peer(at.it.link);
    xc_chan *other = new_chan(&at.it);
    xc_vigil *item = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 1);
    xc_vigil *gone = begin(&at.it, &at.to, XC_WAIT_GONE, NULL, 2);
    xc_vigil *close = begin(&at.it, &at.to, XC_WAIT_CLOSE, other, 3);
    stop_pump();
    an_item(&at);
    xc_link_peer_gone(at.it.link);
    CHECK_INT(next_ring(&at.to), 2);
    CHECK(!rung(&at.to));
    CHECK(!xc_vigil_over(at.it.link, item) && !xc_vigil_over(at.it.link, close));
    let_pump_go();
    CHECK_INT(next_ring(&at.to), 1);
    CHECK_INT(next_ring(&at.to), 3);
    expect_int(&at.it, at.chan, 1);
    xc_link_end_vigil(at.it.link, gone);
    xc_link_end_vigil(at.it.link, close);
    xc_link_end_vigil(at.it.link, item);
    xc_link_drop_chan(at.it.link, other);
    scene_close(&at);
}

/* --- beside threads that wait and read -------------------------------------------------------------------------- */

struct waiter {
    pthread_t thread;
    rig *it;
    xc_chan *chan;
    int64_t until;
    xc_status rc;
};

static void *
wait_once(void *arg)
{
    struct waiter *waiter = arg;
    waiter->rc = wait_for(waiter->it, XC_WAIT_ITEM, waiter->chan, waiter->until);
    return NULL;
}

static void
start(struct waiter *waiter, rig *it, xc_chan *chan, int64_t until)
{
    int n = count_waiters(it);
    *waiter = (struct waiter){.it = it, .chan = chan, .until = until};
    CHECK_INT(pthread_create(&waiter->thread, NULL, wait_once, waiter), 0);
    await_waiters(it, n + 1);
}

static void
finish(struct waiter *waiter, xc_status want)
{
    CHECK_INT(pthread_join(waiter->thread, NULL), 0);
    CHECK_RC(waiter->rc, want);
}

/* Vigils stand in front of, between and behind the threads: the role passes them by and they are rung for nothing. A
 * vigil that got it would leave the next thread asleep for ever, the I/O thread being held up meanwhile. */
static void
the_role_passes_vigils_by(void)
{
    enum { LINE = 4 };
    struct waiter line[LINE];
    xc_chan *chans[LINE];
    xc_vigil *vigils[LINE + 1];
    scene at = scene_open(false);
    vigils[0] = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 0);
    for (int i = 0; i < LINE; i++) {
        chans[i] = new_chan(&at.it);
        start(&line[i], &at.it, chans[i], XC_FOREVER);
        vigils[i + 1] = begin(&at.it, &at.to, i % 2 == 0 ? XC_WAIT_ITEM : XC_WAIT_TASK, at.chan, (uint64_t)i + 1);
    }
    await_reader(&at.it);
    stop_pump();
    for (int i = 0; i < LINE; i++) {
        send_int(&at.it, chans[i]->id, (uint32_t)i);
        finish(&line[i], XC_OK);
    }
    CHECK(!rung(&at.to));
    let_pump_go();
    an_item(&at); /* no thread is left: the I/O thread reads for the vigils */
    for (int i = 0, seen = 0; i < LINE / 2 + 1; i++) {
        seen |= 1 << next_ring(&at.to);
        CHECK(i < LINE / 2 || seen == (1 | 1 << 1 | 1 << 3));
    }
    CHECK(!rung(&at.to));
    for (int i = 0; i <= LINE; i++) {
        xc_link_end_vigil(at.it.link, vigils[i]);
    }
    for (int i = 0; i < LINE; i++) {
        xc_link_drop_chan(at.it.link, chans[i]);
    }
    scene_close(&at);
}

/* The thread that reads rings for what it reads, and stays. */
static void
a_reader_rings_vigils(void)
{
    struct waiter reader;
    scene at = scene_open(false);
    xc_chan *silent = new_chan(&at.it);
    xc_vigil *vigil = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 7);
    start(&reader, &at.it, silent, XC_FOREVER);
    await_reader(&at.it);
    stop_pump();
    an_item(&at);
    CHECK_INT(next_ring(&at.to), 7);
    CHECK_INT(count_waiters(&at.it), 2);
    xc_link_end_vigil(at.it.link, vigil);
    send_int(&at.it, silent->id, 2);
    finish(&reader, XC_OK);
    let_pump_go();
    xc_link_drop_chan(at.it.link, silent);
    scene_close(&at);
}

/* The last thread leaves because its time is up: the I/O thread reads again, for the vigil alone. */
static void
the_last_thread_leaves(void)
{
    struct waiter hurried;
    scene at = scene_open(false);
    for (uint32_t i = 0; i < 5; i++) {
        xc_chan *silent = new_chan(&at.it);
        xc_vigil *vigil = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, i);
        hurried = (struct waiter){.it = &at.it, .chan = silent, .until = xc_after(10 * XC_MS)};
        CHECK_INT(pthread_create(&hurried.thread, NULL, wait_once, &hurried), 0);
        finish(&hurried, XC_TIMEOUT);
        CHECK(!rung(&at.to));
        an_item(&at);
        CHECK_INT(next_ring(&at.to), i);
        xc_link_end_vigil(at.it.link, vigil);
        expect_int(&at.it, at.chan, 1);
        xc_link_drop_chan(at.it.link, silent);
    }
    scene_close(&at);
}

/* --- ended vigils ----------------------------------------------------------------------------------------------- */

static atomic_bool sending;

static void *
send_to_all(void *arg)
{
    rig *it = arg;
    for (uint32_t i = 0; atomic_load(&sending); i++) {
        send_int(it, 1 + 2 * (i % 8), i);
        if (i % 64 == 0) {
            check_pause_ms(1);
        }
    }
    return NULL;
}

static void
drop_items(rig *it, xc_chan *chan)
{
    for (xc_msg *msg; xc_link_take_item(it->link, chan, &msg) == XC_OK;) {
        xc_link_free_msg(it->link, msg);
    }
}

/* Begun and ended in any order while the I/O thread rings: each was told at most once, and nothing when it is ended. */
static void
ended_ones_are_never_rung(void)
{
    enum { CHANS = 8, EACH = 8, ROUNDS = 40 };
    xc_chan *chans[CHANS];
    xc_vigil *vigils[CHANS * EACH];
    unsigned char told[CHANS * EACH];
    unsigned seed = 99;
    pthread_t sender;
    scene at = scene_open(false);
    alarm(PROGRAM_SECONDS);
    chans[0] = at.chan;
    for (int i = 1; i < CHANS; i++) {
        chans[i] = new_chan(&at.it);
    }
    atomic_store(&sending, true);
    CHECK_INT(pthread_create(&sender, NULL, send_to_all, &at.it), 0);
    for (int round = 0; round < ROUNDS; round++) {
        bool over[CHANS * EACH] = {false};
        memset(told, 0, sizeof told);
        for (unsigned i = 0; i < CHANS * EACH; i++) {
            drop_items(&at.it, chans[i % CHANS]);
            vigils[i] = begin(&at.it, &at.to, i % 5 == 0 ? XC_WAIT_CLOSE : XC_WAIT_ITEM, chans[i % CHANS], i);
        }
        for (unsigned left = CHANS * EACH; left > 0; left--) {
            unsigned i = (unsigned)rand_r(&seed) % (CHANS * EACH);
            while (vigils[i] == NULL) {
                i = (i + 1) % (CHANS * EACH);
            }
            over[i] = xc_vigil_over(at.it.link, vigils[i]);
            xc_link_end_vigil(at.it.link, vigils[i]);
            vigils[i] = NULL;
        }
        while (rung(&at.to)) {
            told[next_ring(&at.to)]++;
        }
        for (unsigned i = 0; i < CHANS * EACH; i++) {
            CHECK(told[i] <= 1);
            CHECK(i % 5 != 0 || (told[i] == 0 && !over[i]));
        }
        check_pause_ms(round % 4);
        CHECK(!rung(&at.to)); /* though items go on arriving */
    }
    atomic_store(&sending, false);
    CHECK_INT(pthread_join(sender, NULL), 0);
    for (int i = 1; i < CHANS; i++) {
        xc_link_drop_chan(at.it.link, chans[i]);
    }
    scene_close(&at);
}

/* A vigil may end before anything was said, when it was told, and in the middle of the list. */
static void
ended_at_once(void)
{
    scene at = scene_open(false);
    xc_vigil *vigils[5];
    for (unsigned i = 0; i < 5; i++) {
        vigils[i] = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, i);
    }
    xc_link_end_vigil(at.it.link, vigils[2]);
    xc_link_end_vigil(at.it.link, vigils[0]);
    xc_link_end_vigil(at.it.link, vigils[4]);
    CHECK_INT(count_waiters(&at.it), 2);
    an_item(&at);
    CHECK_INT(next_ring(&at.to), 1);
    CHECK_INT(next_ring(&at.to), 3);
    CHECK(!rung(&at.to));
    xc_link_end_vigil(at.it.link, vigils[3]);
    xc_link_end_vigil(at.it.link, vigils[1]);
    CHECK_INT(count_waiters(&at.it), 0);
    hang_up(&at);
    await_fin(&at.it);
    CHECK(!rung(&at.to));
    scene_close(&at);
}

/* --- many threads ----------------------------------------------------------------------------------------------- */

enum { WATCHERS = 6, READERS = 2, CHANS_EACH = 3, ITEMS = 150, MOST = CHANS_EACH * (ITEMS + 2) };

static struct {
    rig it;
    xc_chan *chans[WATCHERS + READERS][CHANS_EACH];
} crowd;

/* Takes what is there. False: nothing more will come. */
static bool
take_all(xc_chan *chan, uint32_t *next)
{
    unsigned char payload[6];
    xc_msg *msg;
    xc_status rc;
    while ((rc = xc_link_take_item(crowd.it.link, chan, &msg)) == XC_OK) {
        CHECK_INT(msg->size, put_int(payload, (*next)++));
        CHECK(memcmp(msg->data, payload, msg->size) == 0);
        xc_link_free_msg(crowd.it.link, msg);
    }
    return rc == XC_AGAIN;
}

/* As a thread with greenlets does: one vigil for each channel at a time, and one sleep for all of them. */
static void *
watcher(void *arg)
{
    xc_chan **chans = crowd.chans[*(int *)arg];
    uint32_t next[CHANS_EACH] = {0};
    xc_vigil *vigils[CHANS_EACH] = {NULL};
    bells to = bells_open();
    uint64_t serial = 0;
    bool told[MOST + 1] = {false};
    for (int open = CHANS_EACH; open > 0;) {
        bool look = false;
        for (int i = 0; i < CHANS_EACH; i++) {
            if (vigils[i] == NULL && chans[i] != NULL) {
                CHECK(serial < MOST); /* each was over for an item or for the end */
                vigils[i] = begin(&crowd.it, &to, XC_WAIT_ITEM, chans[i], ++serial);
                look = look || xc_vigil_over(crowd.it.link, vigils[i]);
            }
        }
        if (!look) {
            uint64_t number = next_ring(&to);
            CHECK(number >= 1 && number <= serial && !told[number]);
            told[number] = true;
        }
        for (int i = 0; i < CHANS_EACH; i++) {
            if (vigils[i] == NULL || !xc_vigil_over(crowd.it.link, vigils[i])) {
                continue;
            }
            xc_link_end_vigil(crowd.it.link, vigils[i]);
            vigils[i] = NULL;
            if (!take_all(chans[i], &next[i])) {
                CHECK_INT(next[i], ITEMS);
                chans[i] = NULL;
                open--;
            }
        }
    }
    while (rung(&to)) { /* what was seen before it was read */
        uint64_t number = next_ring(&to);
        CHECK(number >= 1 && number <= serial && !told[number]);
        told[number] = true;
    }
    bells_close(&to);
    return NULL;
}

static void *
reader(void *arg)
{
    xc_chan **chans = crowd.chans[*(int *)arg];
    uint32_t next[CHANS_EACH] = {0};
    for (int i = 0; i < CHANS_EACH; i++) {
        do {
            (void)wait_for(&crowd.it, XC_WAIT_ITEM, chans[i], xc_after(3 * XC_MS));
        } while (take_all(chans[i], &next[i]));
        CHECK_INT(next[i], ITEMS);
    }
    return NULL;
}

/* Every item and every end is noticed by those who have only vigils, whoever reads just then. */
static void
a_crowd(void)
{
    enum { ALL = WATCHERS + READERS };
    xc_chan *mine[ALL][CHANS_EACH];
    pthread_t threads[ALL];
    int names[ALL];
    crowd.it = rig_open(false);
    for (int i = 0; i < ALL * CHANS_EACH; i++) {
        mine[i % ALL][i / ALL] = crowd.chans[i % ALL][i / ALL] = new_chan(&crowd.it);
    }
    for (int i = 0; i < ALL; i++) {
        names[i] = i;
        CHECK_INT(pthread_create(&threads[i], NULL, i < WATCHERS ? watcher : reader, &names[i]), 0);
    }
    for (uint32_t seq = 0; seq < ITEMS; seq++) {
        for (int i = 0; i < ALL * CHANS_EACH; i++) {
            send_int(&crowd.it, mine[i % ALL][i / ALL]->id, seq);
        }
        if (seq % 16 == 5) {
            check_pause_ms((long)(seq / 16 % 3) * 6); /* at times longer than the I/O thread waits */
        }
    }
    for (int i = 0; i < ALL * CHANS_EACH / 2; i++) {
        rig_send(&crowd.it, XC_CLOSE, mine[i % ALL][i / ALL]->id, NULL, 0);
    }
    rig_hang_up(&crowd.it);
    for (int i = 0; i < ALL; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    CHECK_INT(count_waiters(&crowd.it), 0);
    for (int i = 0; i < ALL * CHANS_EACH; i++) {
        xc_link_drop_chan(crowd.it.link, mine[i % ALL][i / ALL]);
    }
    rig_close(&crowd.it);
}

int
main(void)
{
    check_io_begin("vigil", PROGRAM_SECONDS);
    signal(SIGPIPE, SIG_IGN);
    RUN_IO(each_kind_rings_once);
    RUN_IO(held_from_the_start);
    RUN_IO(one_after_the_other);
    RUN_IO(other_news);
    RUN_IO(a_full_pipe);
    RUN_IO(without_memory);
    RUN_IO(the_end_rings_all);
    RUN_IO(an_end_behind_a_callback);
    RUN_IO(a_process_gone_is_not_the_end);
    RUN_IO(the_role_passes_vigils_by);
    RUN_IO(a_reader_rings_vigils);
    RUN_IO(the_last_thread_leaves);
    RUN_IO(ended_ones_are_never_rung);
    RUN_IO(ended_at_once);
    RUN_IO(a_crowd);
    return check_end();
}
