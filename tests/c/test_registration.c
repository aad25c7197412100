/*
 * Registrations: waits without a thread. Each is told once, by one number in a pipe, that what it waits for holds or
 * that the link has ended; one that held from the start, or whose pipe is full, is over all the same.
 */
#include "registration_rig.h"

/* --- each kind ------------------------------------------------------------------------------------------------ */

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
    rig_peer_gone(&at->it);
}

static void
goodbye(scene *at)
{
    rig_send(&at->it, XC_TERMINATE, 0, NULL, 0);
}

/* A worker whose link ends without a goodbye would soon be killed: see xc_exit_policy.h. */
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
        xc_registration *registration = begin(&at.it, &at.to, what->kind, at.chan, UINT64_MAX - (unsigned)i);
        CHECK(!xc_registration_over(at.it.link, registration));
        CHECK(!rung(&at.to));
        what->happen(&at);
        CHECK(next_ring(&at.to) == UINT64_MAX - (unsigned)i);
        CHECK(xc_registration_over(at.it.link, registration));
        if (what->after != NULL) {
            what->after(&at);
        }
        end_of(&at, what->worker);
        await_fin(&at.it);
        CHECK(!rung(&at.to));
        CHECK(xc_registration_over(at.it.link, registration));
        xc_link_end_registration(at.it.link, registration);
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
        xc_registration *registration = begin(&at.it, &at.to, what->kind, at.chan, 1);
        CHECK(xc_registration_over(at.it.link, registration));
        if (what->after != NULL) {
            what->after(&at);
        }
        end_of(&at, what->worker);
        await_fin(&at.it);
        CHECK(xc_registration_over(at.it.link, registration));
        xc_link_end_registration(at.it.link, registration);
        CHECK(!rung(&at.to));
        scene_close(&at);
    }
}

/* A second number is of a second registration: what held once is asked for anew. */
static void
one_after_the_other(void)
{
    scene at = scene_open(false);
    for (uint32_t i = 1; i <= 50; i++) {
        xc_registration *registration = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, i);
        CHECK(!xc_registration_over(at.it.link, registration));
        send_int(&at.it, at.chan->id, i);
        CHECK_INT(next_ring(&at.to), i);
        xc_link_end_registration(at.it.link, registration);
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
    xc_registration *item = begin(&at.it, &at.to, XC_WAIT_ITEM, other, 1);
    xc_registration *close = begin(&at.it, &at.to, XC_WAIT_CLOSE, at.chan, 2);
    a_hello(&at);
    an_item(&at);
    expect_int(&at.it, at.chan, 1);
    enter(&at);
    leave(&at);
    CHECK(!rung(&at.to));
    CHECK(!xc_registration_over(at.it.link, item) && !xc_registration_over(at.it.link, close));
    far_close(&at);
    CHECK_INT(next_ring(&at.to), 2);
    CHECK(!xc_registration_over(at.it.link, item));
    xc_link_end_registration(at.it.link, close);
    xc_link_end_registration(at.it.link, item);
    xc_link_drop_chan(at.it.link, other);
    scene_close(&at);
}

/* --- a full pipe, no memory ------------------------------------------------------------------------------------- */

/* Nobody blocks, the pump least of all; what is over is found by asking. */
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
    xc_registration *item = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 1);
    xc_registration *close = begin(&at.it, &at.to, XC_WAIT_CLOSE, at.chan, 2);
    an_item(&at);
    AWAIT(xc_registration_over(at.it.link, item));
    CHECK(!xc_registration_over(at.it.link, close));
    for (char bytes[4096]; full > 0;) {
        ssize_t got = read(at.to.from, bytes, sizeof bytes);
        CHECK(got > 0 && memcmp(bytes, filler, (size_t)got) == 0);
        full -= (size_t)got;
    }
    CHECK(!rung(&at.to)); /* what was not written then is not written later */
    far_close(&at);
    CHECK_INT(next_ring(&at.to), 2);
    CHECK(!rung(&at.to));
    xc_link_end_registration(at.it.link, item);
    xc_link_end_registration(at.it.link, close);
    scene_close(&at);
}

static void
without_memory(void)
{
    scene at = scene_open(false);
    xc_wait wait = {.kind = XC_WAIT_ITEM, .chan = at.chan, .until = XC_FOREVER};
    atomic_store(&until_failure, 1);
    xc_set_alloc_hook(fail_one);
    CHECK(xc_link_begin_registration(at.it.link, &wait, at.to.into, 1) == NULL);
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

/* All registrations are rung, once each, whatever they wait for: DISPATCH and GONE, too, which do not hold. */
static void
rings_all(void (*end)(scene *at))
{
    static const xc_wait_kind kinds[] = {XC_WAIT_ITEM,    XC_WAIT_CLOSE,      XC_WAIT_FIN,
                                         XC_WAIT_HELLO,   XC_WAIT_TASK,       XC_WAIT_GONE,
                                         XC_WAIT_BACKLOG, XC_WAIT_TASK_SPARE, XC_WAIT_DISPATCH};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    xc_registration *registrations[KINDS];
    uint64_t seen = 0;
    scene at = scene_open(false);
    xc_link_owns_peer(at.it.link);
    enter(&at);
    for (unsigned i = 0; i < KINDS; i++) {
        registrations[i] = begin(&at.it, &at.to, kinds[i], at.chan, i);
        CHECK(!xc_registration_over(at.it.link, registrations[i]));
    }
    CHECK(!rung(&at.to));
    end(&at);
    for (unsigned i = 0; i < KINDS; i++) {
        seen |= UINT64_C(1) << next_ring(&at.to);
    }
    CHECK_INT(seen, (1 << KINDS) - 1);
    for (unsigned i = 0; i < KINDS; i++) {
        CHECK(xc_registration_over(at.it.link, registrations[i]));
    }
    leave(&at);
    await_fin(&at.it);
    rig_peer_gone(&at.it);
    CHECK(!rung(&at.to));
    for (unsigned i = 0; i < KINDS; i++) {
        xc_link_end_registration(at.it.link, registrations[i]);
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

/* The end waits behind a callback: registrations are told of it, and those that begin then, when it has taken effect.
 */
static void
an_end_behind_a_callback(void)
{
    scene at = scene_open(false);
    xc_chan *none;
    CHECK(xc_link_set_callback(at.it.link, at.chan));
    xc_registration *before = begin(&at.it, &at.to, XC_WAIT_FIN, NULL, 1);
    hang_up(&at);
    CHECK_INT(next_ring(&at.to), 1);
    CHECK(xc_registration_over(at.it.link, before) && !state_of(&at.it).fin);
    xc_registration *since = begin(&at.it, &at.to, XC_WAIT_FIN, NULL, 2);
    CHECK(!xc_registration_over(at.it.link, since));
    enter(&at);
    xc_msg *fin = xc_link_backlog_next(at.it.link, &none);
    CHECK(fin != NULL && fin->code == XC_FIN && none == NULL);
    CHECK(!rung(&at.to));
    xc_link_end_callback(at.it.link, at.chan);
    xc_link_settle(at.it.link, fin);
    CHECK_INT(next_ring(&at.to), 2);
    leave(&at);
    CHECK(!rung(&at.to));
    xc_link_end_registration(at.it.link, since);
    xc_link_end_registration(at.it.link, before);
    scene_close(&at);
}

/* The process has ended, what it wrote is still to be read: that is no news for who waits for an item of it. */
static void
a_process_gone_is_not_the_end(void)
{
    scene at = scene_open(false);
    xc_link_owns_peer(at.it.link);
    xc_chan *other = new_chan(&at.it);
    xc_registration *item = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 1);
    xc_registration *gone = begin(&at.it, &at.to, XC_WAIT_GONE, NULL, 2);
    xc_registration *close = begin(&at.it, &at.to, XC_WAIT_CLOSE, other, 3);
    stop_pump();
    an_item(&at);
    rig_peer_gone(&at.it);
    CHECK_INT(next_ring(&at.to), 2);
    CHECK(!rung(&at.to));
    CHECK(!xc_registration_over(at.it.link, item) && !xc_registration_over(at.it.link, close));
    let_pump_go();
    CHECK_INT(next_ring(&at.to), 1);
    CHECK_INT(next_ring(&at.to), 3);
    expect_int(&at.it, at.chan, 1);
    xc_link_end_registration(at.it.link, gone);
    xc_link_end_registration(at.it.link, close);
    xc_link_end_registration(at.it.link, item);
    xc_link_drop_chan(at.it.link, other);
    scene_close(&at);
}

int
main(void)
{
    check_io_begin("registration", PROGRAM_SECONDS);
    RUN_IO(each_kind_rings_once);
    RUN_IO(held_from_the_start);
    RUN_IO(one_after_the_other);
    RUN_IO(other_news);
    RUN_IO(a_full_pipe);
    RUN_IO(without_memory);
    RUN_IO(the_end_rings_all);
    RUN_IO(an_end_behind_a_callback);
    RUN_IO(a_process_gone_is_not_the_end);
    return check_end();
}
