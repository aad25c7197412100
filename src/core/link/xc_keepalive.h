/*
 * That a far end has gone silent: the network is cut, its machine is off, its process is stopped. None of that ends a
 * connection by itself.
 *
 * The time is cut into quarters. At the end of one in which nothing has arrived the far end is asked for a sign of
 * life, a status request for channel 0, which is no channel: what comes back counts because it comes, and is dropped.
 * When two more quarters have brought nothing, the link ends.
 *
 * A large item on a slow line holds up the question and the answer; that is no silence. So as long as a backlog of ours
 * is being taken away the two quarters begin anew, and the question is given as many more as it was held up: what lies
 * beyond our pipe, in an ssh client and the network, was as slow. Where there is no backlog it proves nothing that what
 * we write goes out: an ssh client takes it without a host at the other end.
 *
 * While data flows this costs one store a read.
 */
#ifndef XC_KEEPALIVE_H
#define XC_KEEPALIVE_H

#include <stdatomic.h>

#include "xc_pump.h"

/* Embedded in a link; the link's mutex keeps it but for `silent`. */
typedef struct {
    atomic_bool silent; /* the verdict: the fields of the first paragraph do not change any more */
    int64_t quarter;    /* ns; 0: off */
    void (*give_up)(void *arg);
    void *arg;

    xc_timer timer;
    bool asked;
    int left;     /* quarters until the verdict, where it was asked */
    int held_up;  /* quarters in which the backlog shrank since it was asked */
    bool backlog; /* at the end of the last quarter something of ours was not taken yet */
    size_t taken; /* bytes of ours that had been taken then, modulo the size of the type */
} xc_keepalive;

#endif
