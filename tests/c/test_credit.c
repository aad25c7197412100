/*
 * Flow control, this side sends: what may go, in which order, what the far end is asked, and that nobody waits for a
 * credit that cannot come. The far end is the test.
 */
#include "credit_rig.h"

/* --- what may go ------------------------------------------------------------------------------------------------ */

static void
the_limit_is_kept(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    CHECK(may_send(&it, chan, UINT64_C(1) << 40)); /* no limit yet, and this counts */
    send_credit(&it, chan->id, UINT64_C(1) << 40, 200);
    settle(&it);
    CHECK(may_send(&it, chan, 100));
    CHECK(!xc_chan_count_sent(chan, 1));
    CHECK(may_send(&it, chan, 100));
    CHECK(!may_send(&it, chan, 1));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK(!may_send(&it, chan, 1)); /* asked once, until there is an answer */
    settle(&it);
    send_credit(&it, chan->id, (UINT64_C(1) << 40) + 100, 200);
    settle(&it);
    CHECK(may_send(&it, chan, 100));
    CHECK(!may_send(&it, chan, 1));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, (UINT64_C(1) << 40) + 100, XC_NO_LIMIT);
    settle(&it);
    CHECK(xc_chan_count_sent(chan, 1) && may_send(&it, chan, UINT64_C(1) << 40));
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
one_that_is_larger_goes_alone(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    CHECK(may_send(&it, chan, 5000));
    CHECK(!may_send(&it, chan, 1));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 5000, 0); /* without room for anything they still go, one by one */
    settle(&it);
    CHECK(may_send(&it, chan, 1));
    CHECK(!may_send(&it, chan, UINT64_MAX)); /* nothing overflows */
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 5001, 200);
    settle(&it);
    CHECK(may_send(&it, chan, 100));
    CHECK(!may_send(&it, chan, 201));
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
what_was_not_sent_does_not_count(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    sender two;
    CHECK(may_send(&it, chan, 200));
    start_sender(&two, &it, chan, 200, 1);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    xc_link_unsent(it.link, chan, 200);
    join_sender(&two);
    xc_link_sent(it.link, chan->id, 100); /* does not wait, and counts */
    xc_link_sent(it.link, 77, 100);       /* unknown */
    CHECK_INT(chan->credit.sent, 300);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- the line --------------------------------------------------------------------------------------------------- */

/* A small one does not pass a large one that came before it, and the far end is asked again when a credit was not
 * enough. */
static void
they_go_in_their_order(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    sender large, small;
    CHECK(may_send(&it, chan, 150));
    start_sender(&large, &it, chan, 180, 1);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    start_sender(&small, &it, chan, 10, 2);
    CHECK(!may_send(&it, chan, 10));
    settle(&it);
    send_credit(&it, chan->id, 50, 200);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0); /* a hundred are under way, and 180 wait */
    CHECK(!large.sent && !small.sent);
    send_credit(&it, chan->id, 150, 200);
    join_sender(&large);
    join_sender(&small);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* The far end is asked for the next one, too, whose turn came without a credit. */
static void
who_gives_up_lets_the_next_one_go(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    xc_claim large = {.cost = 180, .owner = &large};
    sender small, other;
    CHECK(may_send(&it, chan, 150));
    CHECK(!xc_link_claim(it.link, chan, &large));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    small = (sender){.it = &it, .chan = chan, .cost = 10};
    CHECK_INT(pthread_create(&small.thread, NULL, run_sender, &small), 0);
    AWAIT(line_of(&it, chan) == 2 && count_waiters(&it) == 1);
    CHECK(!xc_link_unclaim(it.link, chan, &large));
    join_sender(&small);
    start_sender(&other, &it, chan, 100, 1);
    send_credit(&it, chan->id, 100, 200);
    join_sender(&other);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
the_next_one_asks_for_itself(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    sender one, two;
    CHECK(may_send(&it, chan, 150));
    start_sender(&one, &it, chan, 100, 1);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    start_sender(&two, &it, chan, 120, 2);
    send_credit(&it, chan->id, 100, 200); /* enough for the first */
    join_sender(&one);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 250, 200);
    join_sender(&two);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* One that has to wait on the stack of one that waits: a signal handler sends. */
static void
a_handler_goes_before_who_it_interrupted(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    xc_claim before = {.cost = 150, .owner = &before}, outer = claim_of(100), inner = claim_of(100);
    CHECK(may_send(&it, chan, 100));
    CHECK(!xc_link_claim(it.link, chan, &before));
    CHECK(!xc_link_claim(it.link, chan, &outer));
    CHECK(!xc_link_claim(it.link, chan, &inner));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK(!xc_link_unclaim(it.link, chan, &before));
    CHECK(xc_link_claim(it.link, chan, &inner)); /* not behind `outer`, which it would never see go */
    CHECK(!xc_link_claim(it.link, chan, &outer));
    CHECK(!xc_link_unclaim(it.link, chan, &outer));
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* Credit has come for who waits, and a signal handler of his thread, or a frame that waits for nobody, uses it up
 * first: then he asks again. */
static void
what_goes_before_who_waits(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    xc_claim waits = claim_of(300);
    CHECK(may_send(&it, chan, 150));
    CHECK(!xc_link_claim(it.link, chan, &waits));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 150, 200);
    settle(&it);
    CHECK(may_send(&it, chan, 100)); /* of the same thread */
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK(!xc_link_claim(it.link, chan, &waits));
    send_credit(&it, chan->id, 250, 200);
    settle(&it);
    xc_link_sent(it.link, chan->id, 100);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK(!xc_link_claim(it.link, chan, &waits));
    send_credit(&it, chan->id, 350, 200);
    settle(&it);
    CHECK(xc_link_claim(it.link, chan, &waits));
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
a_wait_has_a_deadline(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    xc_claim claim = claim_of(100);
    size_t space;
    CHECK(may_send(&it, chan, 150));
    CHECK(!xc_link_claim(it.link, chan, &claim));
    xc_wait wait = {.kind = XC_WAIT_CREDIT, .chan = chan, .claim = &claim, .until = xc_after(5 * XC_MS)};
    xc_status rc;
    while ((rc = xc_link_wait_nogil(it.link, &wait, &space)) == XC_INTR) {
    }
    CHECK_RC(rc, XC_TIMEOUT);
    CHECK(!xc_link_unclaim(it.link, chan, &claim));
    CHECK_INT(chan->credit.sent, 150);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- without a thread --------------------------------------------------------------------------------------------- */

static void
a_registration_rings(void)
{
    scene at = scene_open(false);
    send_credit(&at.it, at.chan->id, 0, 200);
    settle(&at.it);
    xc_claim claim = {.cost = 100, .owner = &claim};
    CHECK(may_send(&at.it, at.chan, 150));
    CHECK(!xc_link_claim(at.it.link, at.chan, &claim));
    xc_wait wait = {.kind = XC_WAIT_CREDIT, .chan = at.chan, .claim = &claim, .until = XC_FOREVER};
    xc_registration *registration = xc_link_begin_registration(at.it.link, &wait, at.to.into, 7);
    CHECK(registration != NULL);
    CHECK(!rung(&at.to));
    send_credit(&at.it, at.chan->id, 150, 200);
    CHECK_INT(next_ring(&at.to), 7);
    xc_link_end_registration(at.it.link, registration);
    CHECK(xc_link_claim(at.it.link, at.chan, &claim));
    scene_close(&at);
}

static atomic_int jobs_run;

static void
count_job(xc_job *job)
{
    (void)job;
    atomic_fetch_add(&jobs_run, 1);
}

static void
a_job_is_posted(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200), *dead = limited_chan(&it, 200);
    xc_job job = {.run = count_job}, last = {.run = count_job};
    xc_claim claim = {.cost = 100, .owner = &claim, .job = &job}, late = {.cost = 100, .owner = &late, .job = &last};
    atomic_store(&jobs_run, 0);
    CHECK(may_send(&it, chan, 150));
    CHECK(!xc_link_claim(it.link, chan, &claim));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 10, 200);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK_INT(jobs_run, 0);
    send_credit(&it, chan->id, 100, 200);
    AWAIT(jobs_run == 1);
    send_credit(&it, chan->id, 120, 200); /* not before it has asked again */
    settle(&it);
    CHECK_INT(jobs_run, 1);
    CHECK(xc_link_claim(it.link, chan, &claim));
    claim.cost = 200;
    CHECK(!xc_link_claim(it.link, chan, &claim));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 250, 200);
    AWAIT(jobs_run == 2);
    CHECK(xc_link_unclaim(it.link, chan, &claim));

    CHECK(may_send(&it, dead, 150));
    CHECK(!xc_link_claim(it.link, dead, &late));
    rig_hang_up(&it);
    AWAIT(jobs_run == 3);
    CHECK(xc_link_claim(it.link, dead, &late));
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, dead);
    rig_close(&it);
}

static void
a_job_is_posted_by_a_close(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    xc_job job = {.run = count_job};
    xc_claim claim = {.cost = 100, .owner = &claim, .job = &job};
    atomic_store(&jobs_run, 0);
    CHECK(may_send(&it, chan, 150));
    CHECK(!xc_link_claim(it.link, chan, &claim));
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    CHECK_INT(jobs_run, 0);
    rig_send(&it, XC_CLOSE, chan->id, NULL, 0);
    AWAIT(jobs_run == 1);
    CHECK(xc_link_claim(it.link, chan, &claim));
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* --- nobody waits for what cannot come ------------------------------------------------------------------------------
 */

static void
close_by_far_end(rig *it, xc_chan *chan)
{
    rig_send(it, XC_CLOSE, chan->id, NULL, 0);
}

static void
fail_by_far_end(rig *it, xc_chan *chan)
{
    rig_send(it, XC_CLOSE_ERROR, chan->id, "N\0\0\0\1xQ", 7);
}

static void
close_here(rig *it, xc_chan *chan)
{
    bool tell;
    CHECK_RC(xc_link_close_chan(it->link, chan, &tell, NULL), XC_OK);
}

static void
end_of_all(rig *it, xc_chan *chan)
{
    (void)chan;
    rig_hang_up(it);
}

static void
no_limit_any_more(rig *it, xc_chan *chan)
{
    send_credit(it, chan->id, 0, XC_NO_LIMIT);
}

static void
goodbye(rig *it, xc_chan *chan)
{
    (void)chan;
    xc_link_goodbye(it->link);
}

static void (*const ways[])(rig *it, xc_chan *chan) = {close_by_far_end, fail_by_far_end, close_here,
                                                       end_of_all,       goodbye,         no_limit_any_more};

/* `half`: the far end has said that it sends nothing more. `behind`: a callback runs, so a close takes effect later. */
static void
check_ends(void (*way)(rig *it, xc_chan *chan), bool half, bool behind)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200), *other = new_chan(&it);
    sender one, two;
    if (half) {
        rig_send(&it, XC_LAST_MESSAGE, chan->id, NULL, 0);
        settle(&it);
        CHECK_INT(state_of(&it).channels, 1);
    }
    if (behind) {
        CHECK_RC(xc_link_dispatch_enter(it.link), XC_OK);
    }
    CHECK(may_send(&it, chan, 150));
    start_sender(&one, &it, chan, 500, 1);
    start_sender(&two, &it, chan, 600, 2);
    way(&it, chan);
    join_sender(&one);
    join_sender(&two);
    bool by_far_end = way == close_by_far_end || way == fail_by_far_end;
    CHECK_INT(xc_link_chan_state(it.link, chan).closed, way == close_here || (by_far_end && !half && !behind));
    if (behind) {
        xc_link_dispatch_leave(it.link);
    }
    xc_link_drop_chan(it.link, other);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
ends_of_all_kinds(void)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (int how = 0; how < 4; how++) {
            check_ends(ways[i], (how & 1) != 0, (how & 2) != 0);
        }
    }
}

/* Only a callback listens there: the channel is closed in one direction, and credit for the other still counts. */
static void
credit_for_a_half_closed_channel(void)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    sender one;
    rig_send(&it, XC_LAST_MESSAGE, chan->id, NULL, 0);
    settle(&it);
    CHECK(may_send(&it, chan, 150));
    start_sender(&one, &it, chan, 100, 1);
    expect_frame(it.from, XC_WAITS, chan->id, NULL, 0);
    send_credit(&it, chan->id, 150, 200);
    join_sender(&one);

    /* It comes anew in an item, and is half closed once more: the first one's limit is lifted. */
    xc_chan *other = new_chan(&it);
    send_chan(&it, other->id, chan->id);
    send_credit(&it, chan->id, 250, 200); /* for both; the new one has never sent that much */
    rig_send(&it, XC_LAST_MESSAGE, chan->id, NULL, 0);
    settle(&it);
    CHECK(!chan->credit.limited);
    CHECK_RC(state_of(&it).ended_by.code, XC_OK);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, other);
    rig_close(&it);
}

/* --- credit that cannot be ---------------------------------------------------------------------------------------- */

static void
check_refused(uint64_t taken, uint64_t limit, const char *why)
{
    rig it = rig_open(false);
    xc_chan *chan = limited_chan(&it, 200);
    CHECK(may_send(&it, chan, 100));
    send_credit(&it, chan->id, 50, 200);
    send_credit(&it, chan->id, taken, limit);
    await_fin(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_BAD);
    CHECK(strcmp(state_of(&it).ended_by.detail, why) == 0);
    CHECK(may_send(&it, chan, 1000)); /* whoever sends learns of the end by that */
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

static void
lies(void)
{
    check_refused(101, 200, "credit for bytes that were never sent");
    check_refused(UINT64_MAX, 200, "credit for bytes that were never sent");
    check_refused(101, XC_NO_LIMIT, "credit for bytes that were never sent");
    check_refused(49, 200, "credit for fewer bytes than before");
    check_refused(0, 1, "credit for fewer bytes than before");
}

/* Its length is known from the header. */
static void
another_size(void)
{
    for (uint32_t size = 0; size < 40; size++) {
        for (int code = XC_CREDIT; code <= XC_WAITS; code++) {
            unsigned char payload[40] = {0};
            rig it = rig_open(false);
            xc_chan *chan = new_chan(&it);
            rig_send(&it, code, chan->id, payload, size);
            if (size == (code == XC_CREDIT ? XC_CREDIT_SIZE : 0)) {
                AWAIT(code == XC_WAITS || chan->credit.limited);
                CHECK_RC(state_of(&it).ended_by.code, XC_OK);
            }
            else {
                await_fin(&it);
                CHECK_RC(state_of(&it).ended_by.code, XC_BAD);
                CHECK(strstr(state_of(&it).ended_by.detail, "wrong payload length") != NULL);
            }
            xc_link_drop_chan(it.link, chan);
            rig_close(&it);
        }
    }
}

/* Their counts may have begun at one end only. */
static void
channels_that_were_not_made_here(void)
{
    for (int how = 0; how < 3; how++) {
        rig it = rig_open(false);
        xc_chan *chan = how == 0 ? chan_of(&it, 2) : new_chan(&it);
        if (how == 1) { /* dropped, and comes back in an item that was on its way */
            uint32_t id = chan->id;
            xc_chan *other = new_chan(&it);
            xc_link_drop_chan(it.link, chan);
            expect_frame(it.from, XC_CLOSE, id, NULL, 0);
            send_chan(&it, other->id, id);
            xc_msg *msg = take(&it, other);
            CHECK(msg != NULL && msg->n_ids == 1);
            chan = xc_link_carried(it.link, msg, 0, id);
            CHECK(chan != NULL);
            xc_link_free_msg(it.link, msg);
            xc_link_drop_chan(it.link, other);
            expect_frame(it.from, XC_CLOSE, id + 2, NULL, 0);
        }
        if (how == 2) { /* only a callback listens here, and the far end may drop it unsaid */
            CHECK(xc_link_set_callback(it.link, chan));
            xc_link_drop_chan(it.link, chan);
            expect_frame(it.from, XC_LAST_MESSAGE, chan->id, NULL, 0);
            chan = chan_of(&it, chan->id);
        }
        send_credit(&it, chan->id, 5000, 200);
        settle(&it);
        CHECK(xc_chan_count_sent(chan, 1000));
        send_credit(&it, chan->id, 1, 1); /* and so it stays */
        settle(&it);
        CHECK(xc_chan_count_sent(chan, 1000));
        CHECK_RC(state_of(&it).ended_by.code, XC_OK);
        if (how == 2) {
            xc_link_end_callback(it.link, chan);
        }
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
}

static void
credit_for_nobody(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    uint32_t id = chan->id;
    send_credit(&it, 99, 5, 5);
    send_credit(&it, 0, 5, 5);
    xc_link_drop_chan(it.link, chan);
    expect_frame(it.from, XC_CLOSE, id, NULL, 0);
    send_credit(&it, id, 5, 5);
    settle(&it);
    CHECK_RC(state_of(&it).ended_by.code, XC_OK);
    rig_close(&it);
}

/* Without memory for it the link ends: a sender might wait for just this. */
static void
no_memory_for_a_credit(void)
{
    bool ended = false;
    for (int n = 1; n < 4; n++) {
        rig it = rig_open(false);
        xc_chan *chan = limited_chan(&it, 200);
        CHECK(may_send(&it, chan, 150));
        stop_pump();
        send_credit(&it, chan->id, 150, 200);
        atomic_store(&until_failure, n);
        xc_set_alloc_hook(fail_one);
        (void)wait_for(&it, XC_WAIT_ITEM, chan, xc_after(20 * XC_MS));
        xc_set_alloc_hook(NULL);
        let_pump_go();
        bool bad = state_of(&it).ended_by.code == XC_NOMEM;
        CHECK(bad || may_send(&it, chan, 150));
        ended = ended || bad;
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
    }
    CHECK(ended);
}

int
main(void)
{
    check_io_begin("credit", 30);
    RUN_IO(the_limit_is_kept);
    RUN_IO(one_that_is_larger_goes_alone);
    RUN_IO(what_was_not_sent_does_not_count);
    RUN_IO(they_go_in_their_order);
    RUN_IO(who_gives_up_lets_the_next_one_go);
    RUN_IO(the_next_one_asks_for_itself);
    RUN_IO(a_handler_goes_before_who_it_interrupted);
    RUN_IO(what_goes_before_who_waits);
    RUN_IO(a_wait_has_a_deadline);
    RUN_IO(a_registration_rings);
    RUN_IO(a_job_is_posted);
    RUN_IO(a_job_is_posted_by_a_close);
    RUN_IO(ends_of_all_kinds);
    RUN_IO(credit_for_a_half_closed_channel);
    RUN_IO(lies);
    RUN_IO(another_size);
    RUN_IO(channels_that_were_not_made_here);
    RUN_IO(credit_for_nobody);
    RUN_IO(no_memory_for_a_credit);
    return check_end();
}
