/*
 * A worker whose main thread alone takes tasks: who waits too long for it is refused, one after the other; who is about
 * to be taken is not, and nothing else is held up.
 */
#include "link_rig.h"
#include "xc_opcodes.h"

static const char refusal[] = "concurrent remote_exec would cause deadlock for main_thread_only execmodel";

static rig
open_lone(void)
{
    rig it = rig_open(true);
    CHECK(xc_link_model(it.link) == XC_MODEL_THREAD);
    xc_link_set_model(it.link, XC_MODEL_MAIN_ONLY);
    CHECK(xc_link_model(it.link) == XC_MODEL_MAIN_ONLY);
    return it;
}

/* The worker's goodbye first: else its process, which is this one, ends with the connection. */
static void
close_lone(rig *it)
{
    rig_send(it, XC_TERMINATE, 0, NULL, 0);
    await_fin(it);
    rig_close(it);
}

static void
send_task(rig *it, uint32_t id)
{
    rig_send(it, XC_EXEC, id, "LQ", 2);
}

static void
begin_task(rig *it, uint32_t id)
{
    xc_msg *msg;
    xc_chan *chan;
    while (xc_link_take_task(it->link, true, &msg, &chan) == XC_AGAIN) {
        (void)wait_for(it, XC_WAIT_TASK, NULL, XC_FOREVER);
    }
    CHECK_INT(msg->chan, id);
    xc_link_free_msg(it->link, msg);
    xc_link_drop_chan(it->link, chan);
    /* Nobody holds its channel: not what this is about. */
    expect_frame(it->from, XC_CLOSE_ERROR, id, "N\0\0\0\x24how the task ended could not be toldQ", 42);
}

static void
await_executing(rig *it, uint32_t n)
{
    AWAIT(state_of(it).executing == n);
}

static void
expect_refusal(rig *it, uint32_t id)
{
    unsigned char payload[5 + sizeof refusal];
    payload[0] = XC_OP_STR;
    put32(payload + 1, sizeof refusal - 1);
    memcpy(payload + 5, refusal, sizeof refusal - 1);
    payload[sizeof payload - 1] = XC_OP_STOP;
    expect_frame(it->from, XC_CLOSE_ERROR, id, payload, sizeof payload);
}

static void
who_waits_too_long_is_refused(void)
{
    rig it = open_lone();
    send_task(&it, 1);
    begin_task(&it, 1);
    int64_t began = xc_now();
    for (uint32_t id = 3; id <= 7; id += 2) {
        send_task(&it, id);
    }
    await_executing(&it, 4);
    CHECK_INT(state_of(&it).channels, 3);
    for (uint32_t n = 1; n <= 3; n++) {
        expect_refusal(&it, 1 + 2 * n);
        CHECK(xc_now() - began >= (int64_t)n * XC_S);
        await_executing(&it, 4 - n);
    }
    CHECK_INT(state_of(&it).channels, 0);
    xc_link_task_done(it.link, true);
    send_task(&it, 9); /* the main thread is free again */
    begin_task(&it, 9);
    xc_link_task_done(it.link, true);
    await_executing(&it, 0);
    close_lone(&it);
}

static void
the_next_in_the_line_has_a_second_of_its_own(void)
{
    rig it = open_lone();
    send_task(&it, 1);
    begin_task(&it, 1);
    send_task(&it, 3);
    await_executing(&it, 2);
    check_pause_ms(700);
    send_task(&it, 5);
    await_executing(&it, 3);
    xc_link_task_done(it.link, true);
    int64_t began = xc_now();
    begin_task(&it, 3);
    expect_refusal(&it, 5);
    CHECK(xc_now() - began >= XC_S);
    xc_link_task_done(it.link, true);
    close_lone(&it);
}

static void
who_is_about_to_be_taken_is_not_refused(void)
{
    rig it = open_lone();
    send_task(&it, 1);
    send_task(&it, 3); /* the main thread is free, and slow */
    await_executing(&it, 2);
    check_pause_ms(1300);
    begin_task(&it, 1);
    xc_link_task_done(it.link, true);
    check_pause_ms(1300);
    begin_task(&it, 3);
    xc_link_task_done(it.link, true);
    close_lone(&it);
}

static void
the_channels_among_its_arguments_are_closed(void)
{
    unsigned char payload[32];
    rig it = open_lone();
    send_task(&it, 1);
    begin_task(&it, 1);
    xc_chan *known = chan_of(&it, 7);
    rig_send(&it, XC_EXEC, 3, payload, put_chans(payload, 5, 2, 3));
    expect_refusal(&it, 3);
    expect_frame(it.from, XC_CLOSE, 5, NULL, 0);
    expect_frame(it.from, XC_CLOSE, 9, NULL, 0); /* 7 is somebody else's, too */
    xc_link_drop_chan(it.link, known);
    expect_frame(it.from, XC_CLOSE, 7, NULL, 0);
    xc_link_task_done(it.link, true);
    close_lone(&it);
}

static void
whose_channel_is_closed_is_told_nothing(void)
{
    rig it = open_lone();
    send_task(&it, 1);
    begin_task(&it, 1);
    send_task(&it, 3);
    rig_send(&it, XC_CLOSE, 3, NULL, 0);
    send_task(&it, 5);
    expect_refusal(&it, 5);
    await_executing(&it, 1);
    xc_link_task_done(it.link, true);
    close_lone(&it);
}

static void
others_wait_for_ever(void)
{
    rig it = rig_open(true);
    send_task(&it, 1);
    begin_task(&it, 1);
    send_task(&it, 3);
    await_executing(&it, 2);
    check_pause_ms(1300);
    CHECK_INT(state_of(&it).executing, 2);
    begin_task(&it, 3);
    xc_link_task_done(it.link, true);
    xc_link_task_done(it.link, false);
    close_lone(&it);
}

static void
the_end_comes_while_one_waits(void)
{
    rig it = open_lone();
    send_task(&it, 1);
    begin_task(&it, 1);
    send_task(&it, 3);
    await_executing(&it, 2);
    rig_send(&it, XC_TERMINATE, 0, NULL, 0);
    await_fin(&it);
    check_pause_ms(1300);
    CHECK_INT(state_of(&it).executing, 2); /* nobody is told any more: it is the main thread's as ever */
    xc_link_task_done(it.link, true);
    xc_msg *msg;
    xc_chan *chan;
    CHECK_RC(xc_link_take_task(it.link, true, &msg, &chan), XC_OK);
    xc_link_free_msg(it.link, msg);
    xc_link_drop_chan(it.link, chan);
    xc_link_task_done(it.link, true);
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("task_timeout", 100);
    RUN_IO(who_waits_too_long_is_refused);
    RUN_IO(the_next_in_the_line_has_a_second_of_its_own);
    RUN_IO(who_is_about_to_be_taken_is_not_refused);
    RUN_IO(the_channels_among_its_arguments_are_closed);
    RUN_IO(whose_channel_is_closed_is_told_nothing);
    RUN_IO(others_wait_for_ever);
    RUN_IO(the_end_comes_while_one_waits);
    return check_end();
}
