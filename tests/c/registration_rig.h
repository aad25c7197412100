/*
 * A link, a channel of it, and a pipe for registrations to ring in.
 */
#ifndef REGISTRATION_RIG_H
#define REGISTRATION_RIG_H

#include <poll.h>

#include "link_rig.h"

enum { CASE_SECONDS = 10, PROGRAM_SECONDS = 100 };

/* Where registrations ring: as the user of registrations has it, neither end blocks. */
typedef struct {
    int from, into;
} bells;

__attribute__((unused)) static bells
bells_open(void)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    return (bells){ends[0], ends[1]};
}

__attribute__((unused)) static void
bells_close(bells *it)
{
    close(it->from);
    close(it->into);
}

/* The next number, waited for as long as it takes. */
__attribute__((unused)) static uint64_t
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

__attribute__((unused)) static bool
rung(bells *it)
{
    struct pollfd fd = {.fd = it->from, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

__attribute__((unused)) static xc_registration *
begin(rig *it, bells *to, xc_wait_kind kind, xc_chan *chan, uint64_t number)
{
    xc_wait wait = {.kind = kind, .chan = chan, .until = XC_FOREVER};
    xc_registration *registration = xc_link_begin_registration(it->link, &wait, to->into, number);
    memset(&wait, 0xee, sizeof wait); /* it was copied */
    CHECK(registration != NULL);
    return registration;
}

typedef struct {
    rig it;
    xc_chan *chan; /* counted; has a callback where the kind needs one */
    bells to;
} scene;

__attribute__((unused)) static scene
scene_open(bool worker)
{
    scene at = {.it = rig_open(worker), .to = bells_open()};
    at.chan = new_chan(&at.it);
    alarm(CASE_SECONDS);
    return at;
}

__attribute__((unused)) static void
scene_close(scene *at)
{
    alarm(PROGRAM_SECONDS);
    xc_link_drop_chan(at->it.link, at->chan);
    rig_close(&at->it);
    bells_close(&at->to);
}

__attribute__((unused)) static void
an_item(scene *at)
{
    send_int(&at->it, at->chan->id, 1);
}

__attribute__((unused)) static void
hang_up(scene *at)
{
    rig_hang_up(&at->it);
}

#endif
