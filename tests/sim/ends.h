/*
 * What the actors of both ends share.
 */
#ifndef ENDS_H
#define ENDS_H

#include "world.h"

side *near_end(void);
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

/* What the main threads do until the link is to be let go. */
void run_near(side *at);
void run_worker(side *at);

#endif
