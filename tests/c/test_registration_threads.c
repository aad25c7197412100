/*
 * Registrations among threads: none of them ever keeps the reader role from a thread or from the pump; those that
 * were ended are never told anything, whoever rings just then; and many threads with many registrations miss nothing.
 */
#include "registration_rig.h"

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

/* Registrations stand in front of, between and behind the threads: the role passes them by and they are rung for
 * nothing. A registration that got it would leave the next thread asleep for ever, the pump being held up
 * meanwhile. */
static void
the_role_passes_registrations_by(void)
{
    enum { LINE = 4 };
    struct waiter line[LINE];
    xc_chan *chans[LINE];
    xc_registration *registrations[LINE + 1];
    scene at = scene_open(false);
    registrations[0] = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 0);
    for (int i = 0; i < LINE; i++) {
        chans[i] = new_chan(&at.it);
        start(&line[i], &at.it, chans[i], XC_FOREVER);
        registrations[i + 1] =
            begin(&at.it, &at.to, i % 2 == 0 ? XC_WAIT_ITEM : XC_WAIT_TASK, at.chan, (uint64_t)i + 1);
    }
    await_reader(&at.it);
    stop_pump();
    for (int i = 0; i < LINE; i++) {
        send_int(&at.it, chans[i]->id, (uint32_t)i);
        finish(&line[i], XC_OK);
    }
    CHECK(!rung(&at.to));
    let_pump_go();
    an_item(&at); /* no thread is left: the pump reads for the registrations */
    for (int i = 0, seen = 0; i < LINE / 2 + 1; i++) {
        seen |= 1 << next_ring(&at.to);
        CHECK(i < LINE / 2 || seen == (1 | 1 << 1 | 1 << 3));
    }
    CHECK(!rung(&at.to));
    for (int i = 0; i <= LINE; i++) {
        xc_link_end_registration(at.it.link, registrations[i]);
    }
    for (int i = 0; i < LINE; i++) {
        xc_link_drop_chan(at.it.link, chans[i]);
    }
    scene_close(&at);
}

/* The thread that reads rings for what it reads, and stays. */
static void
a_reader_rings_registrations(void)
{
    struct waiter reader;
    scene at = scene_open(false);
    xc_chan *silent = new_chan(&at.it);
    xc_registration *registration = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, 7);
    start(&reader, &at.it, silent, XC_FOREVER);
    await_reader(&at.it);
    stop_pump();
    an_item(&at);
    CHECK_INT(next_ring(&at.to), 7);
    CHECK_INT(count_waiters(&at.it), 2);
    xc_link_end_registration(at.it.link, registration);
    send_int(&at.it, silent->id, 2);
    finish(&reader, XC_OK);
    let_pump_go();
    xc_link_drop_chan(at.it.link, silent);
    scene_close(&at);
}

/* The last thread leaves because its time is up: the pump reads again, for the registration alone. */
static void
the_last_thread_leaves(void)
{
    struct waiter hurried;
    scene at = scene_open(false);
    for (uint32_t i = 0; i < 5; i++) {
        xc_chan *silent = new_chan(&at.it);
        xc_registration *registration = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, i);
        hurried = (struct waiter){.it = &at.it, .chan = silent, .until = xc_after(10 * XC_MS)};
        CHECK_INT(pthread_create(&hurried.thread, NULL, wait_once, &hurried), 0);
        finish(&hurried, XC_TIMEOUT);
        CHECK(!rung(&at.to));
        an_item(&at);
        CHECK_INT(next_ring(&at.to), i);
        xc_link_end_registration(at.it.link, registration);
        expect_int(&at.it, at.chan, 1);
        xc_link_drop_chan(at.it.link, silent);
    }
    scene_close(&at);
}

/* --- ended registrations
 * ----------------------------------------------------------------------------------------------- */

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

/* Begun and ended in any order while the pump rings: each was told at most once, and nothing when it is ended. */
static void
ended_ones_are_never_rung(void)
{
    enum { CHANS = 8, EACH = 8, ROUNDS = 40 };
    xc_chan *chans[CHANS];
    xc_registration *registrations[CHANS * EACH];
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
            registrations[i] = begin(&at.it, &at.to, i % 5 == 0 ? XC_WAIT_CLOSE : XC_WAIT_ITEM, chans[i % CHANS], i);
        }
        for (unsigned left = CHANS * EACH; left > 0; left--) {
            unsigned i = (unsigned)rand_r(&seed) % (CHANS * EACH);
            while (registrations[i] == NULL) {
                i = (i + 1) % (CHANS * EACH);
            }
            over[i] = xc_registration_over(at.it.link, registrations[i]);
            xc_link_end_registration(at.it.link, registrations[i]);
            registrations[i] = NULL;
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

/* A registration may end before anything was said, when it was told, and in the middle of the list. */
static void
ended_at_once(void)
{
    scene at = scene_open(false);
    xc_registration *registrations[5];
    for (unsigned i = 0; i < 5; i++) {
        registrations[i] = begin(&at.it, &at.to, XC_WAIT_ITEM, at.chan, i);
    }
    xc_link_end_registration(at.it.link, registrations[2]);
    xc_link_end_registration(at.it.link, registrations[0]);
    xc_link_end_registration(at.it.link, registrations[4]);
    CHECK_INT(count_waiters(&at.it), 2);
    an_item(&at);
    CHECK_INT(next_ring(&at.to), 1);
    CHECK_INT(next_ring(&at.to), 3);
    CHECK(!rung(&at.to));
    xc_link_end_registration(at.it.link, registrations[3]);
    xc_link_end_registration(at.it.link, registrations[1]);
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

/* As a thread with greenlets does: one registration for each channel at a time, and one sleep for all of them. */
static void *
watcher(void *arg)
{
    xc_chan **chans = crowd.chans[*(int *)arg];
    uint32_t next[CHANS_EACH] = {0};
    xc_registration *registrations[CHANS_EACH] = {NULL};
    bells to = bells_open();
    uint64_t serial = 0;
    bool told[MOST + 1] = {false};
    for (int open = CHANS_EACH; open > 0;) {
        bool check = false;
        for (int i = 0; i < CHANS_EACH; i++) {
            if (registrations[i] == NULL && chans[i] != NULL) {
                CHECK(serial < MOST); /* each was over for an item or for the end */
                registrations[i] = begin(&crowd.it, &to, XC_WAIT_ITEM, chans[i], ++serial);
                check = check || xc_registration_over(crowd.it.link, registrations[i]);
            }
        }
        if (!check) {
            uint64_t number = next_ring(&to);
            CHECK(number >= 1 && number <= serial && !told[number]);
            told[number] = true;
        }
        for (int i = 0; i < CHANS_EACH; i++) {
            if (registrations[i] == NULL || !xc_registration_over(crowd.it.link, registrations[i])) {
                continue;
            }
            xc_link_end_registration(crowd.it.link, registrations[i]);
            registrations[i] = NULL;
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

/* Every item and every end is noticed by those who have only registrations, whoever reads just then. */
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
            check_pause_ms((long)(seq / 16 % 3) * 6); /* at times longer than the pump waits */
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
    check_io_begin("registration_threads", PROGRAM_SECONDS);
    RUN_IO(the_role_passes_registrations_by);
    RUN_IO(a_reader_rings_registrations);
    RUN_IO(the_last_thread_leaves);
    RUN_IO(ended_ones_are_never_rung);
    RUN_IO(ended_at_once);
    RUN_IO(a_crowd);
    return check_end();
}
