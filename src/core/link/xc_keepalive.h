/*
 * Notices that a far end is silent: the network is cut, its machine is off, its process is stopped. None of these ends
 * a connection by itself.
 *
 * The time of allowed silence is divided into quarters. After a quarter in which nothing has arrived, the far end is
 * asked for a sign of life: a status request for channel 0, which is no channel. Whatever arrives counts as the sign;
 * the answer itself is dropped. When two more quarters have brought nothing, the link ends.
 *
 * A large item on a slow line delays the question and the answer; that is no silence. So while our unwritten bytes (the
 * backlog, here) become fewer, the two quarters begin again. When they are gone, the far end gets as many more quarters
 * as the question was delayed: what is beyond our pipe, in an ssh client and in the network, may be as slow. Without
 * such a backlog it proves nothing that our bytes are taken: an ssh client takes them even if no host answers.
 *
 * While data flows this costs one store for each read.
 */
#ifndef XC_KEEPALIVE_H
#define XC_KEEPALIVE_H

#include <stdatomic.h>

#include "xc_pump.h"

/* A part of a link; the link's mutex guards it, except `silent`. */
typedef struct {
    atomic_bool silent;               /* the verdict; once it is set, the other fields do not change any more */
    int64_t quarter XC_GUARDED(link); /* ns; 0: off */
    void (*give_up)(void *arg) XC_GUARDED(link);
    void *arg XC_GUARDED(link);

    xc_timer timer XC_GUARDED(link);
    bool asked XC_GUARDED(link);
    int left XC_GUARDED(link);     /* quarters until the verdict, if `asked` */
    int held_up XC_GUARDED(link);  /* quarters in which the backlog shrank since it was asked */
    bool backlog XC_GUARDED(link); /* at the end of the last quarter not all of our bytes were taken */
    size_t taken XC_GUARDED(link); /* our bytes that were taken by then, modulo the size of the type */
} xc_keepalive;

#endif
