/*
 * What the actors of both ends share.
 */
#ifndef ENDS_H
#define ENDS_H

#include "world.h"

/* By when to be through with something that has a deadline; most have none. */
int64_t some_deadline(void);
/* For xc_link_object. */
bool keep(void *object);
/* The items of a direction that have come, but those of signal handlers. */
uint32_t count_got(const talk *about, int direction);

void send_all(const actor *who, talk *about, int direction, int sender);
/* The senders of this end that are not the caller's own thread. */
void start_senders(side *at, talk *about, int direction);
/* The receiver may change the limit. */
void change_limit(const actor *who, talk *about, int direction);
/* This end uses the channel no more. */
void let_go(const actor *who, talk *about, int direction);
/* Threads that use channels of others, or flood the other end. */
void start_others(side *at);

/* --- a connection through another one (via.c) --- */
/* The near end: the link, and a request to the process in between to start the worker. NULL: the other one has ended.
 */
xc_link *via_make_link(side *at, const xc_link_opts *opts, xc_err *err);
/* Its near end is through. */
void via_finish(side *at);
/* The process in between: the task that starts the worker. */
enum { VIA_TASK = 100 /* and the number of the connection, where a task has that of its talk */ };
void via_run_task(const actor *who, xc_msg *msg, xc_chan *chan, bool primary);

/* What the main threads do until the link is to be let go. */
void run_near(side *at);
void run_worker(side *at);

#endif
