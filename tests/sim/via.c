/*
 * A connection that goes through another one: what src/py/relay.c and execnet_c/near/via.py do at the near end, and the
 * task of the process in between. What that knows of the process that it starts is here, too, in the place of
 * xc_launch.c.
 */
#include <errno.h>
#include <signal.h>

#include "ends.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"
#include "xc_relay.h"

/* --- the near end ------------------------------------------------------------------------------------------------- */

static bool
has_link(const void *what)
{
    return ((const side *)what)->link != NULL || ((const side *)what)->leaves;
}

static bool
open_channels(connection *on, side *outer, xc_err *err)
{
    xc_chan **chans[] = {&on->stream, &on->control, &on->start};
    for (int i = 0; i < 3; i++) {
        if (xc_link_new_chan(outer->link, chans[i], err) != XC_OK) {
            return false;
        }
        (void)xc_link_object(outer->link, *chans[i], chans[i], keep);
    }
    on->stream_id = on->stream->id;
    on->control_id = on->control->id;
    return true;
}

static void
drop(side *at, xc_chan **chan)
{
    xc_chan *dropped = *chan;
    *chan = NULL;
    if (dropped != NULL) {
        xc_link_drop_object(at->link, dropped, chan);
    }
}

static void
ask_for_worker(connection *on, side *outer)
{
    unsigned char payload[] = {XC_OP_BYTES,
                               0,
                               0,
                               0,
                               1,
                               (unsigned char)(VIA_TASK + on->number),
                               XC_OP_CHANNEL,
                               0,
                               0,
                               0,
                               0,
                               XC_OP_CHANNEL,
                               0,
                               0,
                               0,
                               0,
                               XC_OP_TUPLE,
                               0,
                               0,
                               0,
                               3,
                               XC_OP_STOP};
    xc_put_u32(payload + 7, on->stream_id);
    xc_put_u32(payload + 12, on->control_id);
    if (xc_link_post(outer->link, XC_EXEC, on->start->id, payload, sizeof payload) == XC_OK) {
        world.connections[0].tasks_sent++;
    }
}

/* (status or None, end of its stderr) */
static void
take_last_word(connection *on, side *outer)
{
    xc_msg *msg;
    xc_status rc = xc_link_take_item(outer->link, on->control, &msg);
    if (rc == XC_CLOSED && on->started && !world.connections[0].may_end) {
        sim_fail("how the process of connection %d ended was never told", on->number);
    }
    if (rc == XC_CLOSED) {
        return;
    }
    if (rc != XC_OK || msg->lost || msg->data[0] != XC_OP_INT || (int)xc_get_u32(msg->data + 1) != -SIGKILL) {
        if (rc != XC_OK || !on->faulty) {
            sim_fail("how the process of connection %d ended was not told", on->number);
        }
    }
    if (!on->started || sim_is_alive(on->ends[1].process)) {
        sim_fail("the process of connection %d has not ended, and that was told", on->number);
    }
    xc_link_free_msg(outer->link, msg);
}

/* Listens to what is told of the worker's process. */
static void
run_control(void *arg)
{
    connection *on = arg;
    side *outer = &world.connections[0].ends[0];
    const actor who = {.at = outer};
    op_wait_for_chan(&who, XC_WAIT_CLOSE, on->start, on);
    drop(outer, &on->start);
    op_wait_for_chan(&who, XC_WAIT_ITEM, on->control, on);
    take_last_word(on, outer);
    drop(outer, &on->control);
    drop(outer, &on->stream);
    world.connections[0].callers--;
    leave(outer);
}

/* False: the task was refused. Then nobody tells how the process ends, which never began. */
static bool
await_start(connection *on, side *outer)
{
    const actor who = {.at = outer};
    op_wait_for_chan(&who, XC_WAIT_CLOSE, on->start, on);
    xc_msg *error = xc_link_take_error(outer->link, on->start);
    if (error != NULL) {
        xc_link_free_msg(outer->link, error);
    }
    return error == NULL;
}

xc_link *
via_make_link(side *at, const xc_link_opts *opts, xc_err *err)
{
    connection *on = at->on;
    side *outer = &world.connections[0].ends[0];
    xc_link *link = NULL;
    (void)sim_block(outer, SIM_NEVER, false, has_link);
    outer->users++;
    if (outer->link != NULL && open_channels(on, outer, err) &&
        xc_relay_link(outer->link, on->stream, opts, &link, err) == XC_OK) {
        /* It may have ended by now: no pipes then. */
        on->pipes[DOWN] = sim_pipe_of(link->outgoing.out, true);
        on->last_pipes[UP] = sim_pipe_of(link->incoming.in, false);
        ask_for_worker(on, outer);
        if (sim_chance(2)) { /* else an object of it lives as long as the near end */
            drop(outer, &on->stream);
        }
    }
    if (link != NULL && (world.may_carry ? sim_chance(2) : true) && !await_start(on, outer)) {
        xc_link_release(link);
        link = NULL;
    }
    if (link != NULL) {
        (void)start_beside(outer, "control", run_control, on);
    }
    else {
        drop(outer, &on->stream);
        drop(outer, &on->control);
        drop(outer, &on->start);
        world.connections[0].callers--;
    }
    leave(outer);
    return link;
}

void
via_finish(side *at)
{
    at->on->unfinished = false;
    sim_look();
    drop(&world.connections[0].ends[0], &at->on->stream);
}

/* --- the process in between: the task ----------------------------------------------------------------------------- */

void
via_run_task(const actor *who, xc_msg *msg, xc_chan *chan, bool primary)
{
    connection *on = &world.connections[msg->data[5] - VIA_TASK];
    xc_link *link = who->at->link;
    xc_chan *carried[] = {xc_link_carried(link, msg, 0, on->stream_id), xc_link_carried(link, msg, 1, on->control_id)};
    xc_err err;
    pid_t pid;
    bool tell;
    for (int i = 0; i < 2; i++) {
        (void)xc_link_object(link, carried[i], &carried[i], keep);
    }
    xc_link_free_msg(link, msg);
    xc_status rc = xc_relay_process(link, carried[0], carried[1], (const xc_program *)on, &pid, &err);
    if (rc != XC_OK && !on->may_end) {
        sim_fail("no process: %s", err.step);
    }
    for (int i = 0; i < 2; i++) {
        xc_link_drop_object(link, carried[i], &carried[i]);
    }
    if (primary) {
        xc_link_task_done(link, true);
    }
    if (xc_link_chan_state(link, chan).may_tell) {
        (void)op_send_frame(who, XC_CLOSE, chan->id, "", 0);
    }
    (void)xc_link_close_chan(link, chan, &tell, NULL);
    xc_link_drop_chan(link, chan);
    on->start_over = true;
    if (!primary) {
        xc_link_task_done(link, false);
    }
}

/* --- the process in between: its child -----------------------------------------------------------------------------
 */

struct xc_launch {
    connection *on;
    atomic_uint refs; /* who asked for it, and who watches it */
    void (*over)(void *arg);
    void *arg;
    xc_job job;
};

xc_status
xc_launch_spawn(const xc_program *program, xc_launch **out, pid_t *pid, int *fd_in, int *fd_out, xc_err *err)
{
    connection *on = (connection *)program;
    side *at = &on->ends[1];
    int in[2], to[2];
    sim_pipe *pipes[2];
    if (on->faulty && sim_chance(4)) {
        return xc_fail(err, XC_SYS, ENOENT, "start a process");
    }
    xc_launch *launch = xc_alloc(sizeof *launch);
    if (launch == NULL || xc_pump_join(err) != XC_OK) {
        xc_free(launch);
        return xc_fail(err, XC_NOMEM, 0, "start a process");
    }
    *launch = (xc_launch){.on = on};
    atomic_init(&launch->refs, 2);
    sim_connect(sim_the_machine.room, false, in, to, pipes);
    on->last_pipes[DOWN] = pipes[0];
    on->pipes[UP] = pipes[1];
    sim_give_fd(*fd_in = in[0], sim_own_process(), false);
    sim_give_fd(*fd_out = to[0], sim_own_process(), false);
    sim_give_fd(at->in = in[1], at->process, true);
    sim_give_fd(at->out = to[1], at->process, true);
    on->started = true;
    if (sim_is_alive(at->process)) {
        start_worker(on);
    }
    else { /* it was killed at once */
        sim_close_all(at->process, true);
    }
    *pid = 1;
    *out = launch;
    return XC_OK;
}

static bool
has_ended(const void *what)
{
    return !sim_is_alive(((const xc_launch *)what)->on->ends[1].process);
}

static void
tell_over(xc_job *job)
{
    xc_launch *launch = job->owner;
    launch->over(launch->arg);
    xc_launch_release(launch);
    xc_pump_leave();
}

static void
run_reaper_of(void *arg)
{
    xc_launch *launch = arg;
    (void)sim_block(launch, SIM_NEVER, false, has_ended);
    launch->job = (xc_job){.run = tell_over, .owner = launch};
    xc_pump_post(&launch->job);
}

void
xc_launch_watch(xc_launch *launch, void (*over)(void *arg), void *arg)
{
    launch->over = over;
    launch->arg = arg;
    (void)sim_start(sim_own_process(), "reaper", run_reaper_of, launch);
}

void
xc_launch_abandon(xc_launch *launch)
{
    sim_kill(launch->on->ends[1].process, false);
    xc_free(launch);
    xc_pump_leave();
}

void
xc_launch_release(xc_launch *launch)
{
    if (launch != NULL && atomic_fetch_sub(&launch->refs, 1) == 1) {
        xc_free(launch);
    }
}

void
xc_launch_get_state(xc_launch *launch, xc_launch_state *out)
{
    (void)launch;
    *out = (xc_launch_state){.ended = true, .known = true, .status = -SIGKILL};
}

void
xc_launch_signal(xc_launch *launch, int sig)
{
    (void)sig;
    sim_kill(launch->on->ends[1].process, false);
}
