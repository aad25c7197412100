/*
 * Interrupts: the channel of a task is marked, and whoever runs the task takes the mark, once. The main thread is sent
 * SIGURG as long as it has not.
 */
#include <signal.h>

#include "link_rig.h"

static atomic_int kicks;

static void
count_kick(int number)
{
    (void)number;
    atomic_fetch_add(&kicks, 1);
}

typedef struct {
    rig it;
    xc_msg *msg;
    xc_chan *chan;
} tasked;

static void
take_task(tasked *t, bool primary)
{
    while (xc_link_take_task(t->it.link, primary, &t->msg, &t->chan) == XC_AGAIN) {
        (void)wait_for(&t->it, primary ? XC_WAIT_TASK : XC_WAIT_TASK_SPARE, NULL, XC_FOREVER);
    }
}

/* A worker to which a task was sent. */
static tasked
open_tasked(xc_model model)
{
    tasked t = {.it = rig_open(true)};
    xc_link_set_model(t.it.link, model);
    rig_send(&t.it, XC_EXEC, 1, "LQ", 2);
    AWAIT(state_of(&t.it).executing == 1);
    atomic_store(&kicks, 0);
    return t;
}

static void
close_tasked(tasked *t, bool primary)
{
    rig_send(&t->it, XC_TERMINATE, 0, NULL, 0); /* first: else this process ends with the connection */
    await_fin(&t->it);
    xc_link_free_msg(t->it.link, t->msg);
    xc_link_drop_chan(t->it.link, t->chan);
    xc_link_task_done(t->it.link, primary);
    rig_close(&t->it);
}

static void
interrupt_it(tasked *t, uint32_t id)
{
    rig_send(&t->it, XC_INTERRUPT, id, NULL, 0);
}

/* All that was sent has arrived. */
static void
await_arrival(tasked *t)
{
    xc_frame frame = {.code = XC_STATUS};
    rig_send(&t->it, XC_STATUS, 99, NULL, 0);
    while (frame.code != XC_CLOSE) {
        unsigned char *payload;
        CHECK(read_frame(t->it.from, &frame, &payload));
        free(payload);
    }
}

static void
the_main_thread_is_kicked_until_it_has_looked(void)
{
    tasked t = open_tasked(XC_MODEL_THREAD);
    take_task(&t, true);
    interrupt_it(&t, 1);
    AWAIT(atomic_load(&kicks) >= 3);
    CHECK(xc_link_take_interrupt(t.it.link, t.chan));
    CHECK(!xc_link_take_interrupt(t.it.link, t.chan));
    check_pause_ms(100);
    int before = atomic_load(&kicks);
    check_pause_ms(200);
    CHECK_INT(atomic_load(&kicks), before);
    CHECK(xc_link_next_interrupt(t.it.link) == NULL);
    close_tasked(&t, true);
}

static void
a_spare_thread_gets_that_of_another(void)
{
    tasked t = open_tasked(XC_MODEL_THREAD);
    take_task(&t, false);
    interrupt_it(&t, 1);
    interrupt_it(&t, 1);
    CHECK_RC(wait_for(&t.it, XC_WAIT_TASK_SPARE, NULL, XC_FOREVER), XC_OK);
    await_arrival(&t);
    xc_msg *msg = xc_link_next_interrupt(t.it.link);
    CHECK(msg != NULL && msg->chan == 1);
    xc_link_free_msg(t.it.link, msg);
    CHECK(xc_link_next_interrupt(t.it.link) == NULL);
    CHECK(xc_link_take_interrupt(t.it.link, t.chan));
    interrupt_it(&t, 1); /* another one, once the first is taken */
    await_arrival(&t);
    CHECK(xc_link_take_interrupt(t.it.link, t.chan));
    CHECK_RC(xc_link_interrupt(t.it.link, t.chan), XC_OK); /* by this side */
    CHECK(xc_link_take_interrupt(t.it.link, t.chan));
    CHECK_INT(atomic_load(&kicks), 0);
    close_tasked(&t, false);
}

static void
one_that_waits_is_marked(void)
{
    for (int alone = 0; alone < 2; alone++) {
        tasked t = open_tasked(alone ? XC_MODEL_MAIN_ONLY : XC_MODEL_THREAD);
        interrupt_it(&t, 1);
        await_arrival(&t);
        xc_msg *msg = xc_link_next_interrupt(t.it.link);
        CHECK_INT(msg == NULL, alone); /* the main thread alone has nobody who would take it */
        xc_link_free_msg(t.it.link, msg);
        take_task(&t, true);
        CHECK(xc_link_take_interrupt(t.it.link, t.chan));
        close_tasked(&t, true);
    }
}

static void
what_is_no_task_is_not(void)
{
    tasked t = open_tasked(XC_MODEL_THREAD);
    xc_chan *other;
    xc_err err;
    take_task(&t, true);
    CHECK_RC(xc_link_chan(t.it.link, 3, &other, &err), XC_OK);
    interrupt_it(&t, 3);
    interrupt_it(&t, 4711);
    await_arrival(&t);
    CHECK(!xc_link_take_interrupt(t.it.link, other));
    CHECK(!xc_link_take_interrupt(t.it.link, t.chan));
    CHECK_INT(atomic_load(&kicks), 0);
    xc_link_drop_chan(t.it.link, other);
    close_tasked(&t, true);
}

int
main(void)
{
    struct sigaction action = {.sa_handler = count_kick, .sa_flags = SA_RESTART};
    check_io_begin("interrupt", 100);
    CHECK(sigaction(SIGURG, &action, NULL) == 0);
    RUN_IO(the_main_thread_is_kicked_until_it_has_looked);
    RUN_IO(a_spare_thread_gets_that_of_another);
    RUN_IO(one_that_waits_is_marked);
    RUN_IO(what_is_no_task_is_not);
    return check_end();
}
