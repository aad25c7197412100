/*
 * One connection: who reads it, who waits for what, which channels it has, what state each of them is in, how it
 * ended.
 *
 * Whoever waits, reads. The first waiter takes the reader role, reads the stream itself, files what arrives and wakes
 * the threads that it concerns; every way out of the role hands it on. A link that nobody reads goes back to the
 * I/O thread a few milliseconds later (and not at once: in a ping-pong the I/O thread never wakes for it).
 *
 * Order, as in execnet: frames take effect one after the other as they arrived. While a callback of the Python side
 * runs, or items wait for one, every frame behind them waits in the backlog; whoever has the dispatcher role works it
 * off. Without callbacks frames take effect at once, in the reader.
 */
#ifndef XC_LINK_H
#define XC_LINK_H

#include "xc_chan.h"
#include "xc_preamble.h"
#include "xc_region.h"
#include "xc_scan.h"
#include "xc_writer.h"

typedef struct xc_link xc_link;

/* Payloads that are one bytes object of at least this size (bytes) are offered to the waiter: see XC_SPACE. */
enum { XC_BIG = 256 * 1024 };

/* So many channels may be carried by items that wait to be received, and by tasks (each has one at least) that wait to
 * be run: one that carries more comes as `crowded`, or is refused. An id takes five bytes of the far end's, and thirty
 * times as much here. */
enum { XC_CARRIED_MAX = 65536 };

/* So many hellos may wait to be taken; one more ends the link. */
enum { XC_UNREAD_HELLOS = 4 };

/* The link's own events, beside the codes of the wire. */
enum { XC_FIN = 100 /* nothing more will arrive: stands last in the backlog */ };

typedef struct {
    bool worker; /* runs tasks; ends its process when the link does (see xc_exit_policy.h) */
    bool marked; /* frames begin behind XC_MARKER; what comes before it is the preamble, see xc_link_preamble */
    /* Taken, also on failure: the memory through which the frames go; NULL: they go through the fds. Else those carry
     * one zero byte whenever the other side's I/O thread is to check, and no marker: what else comes is kept as
     * preamble. */
    xc_region *region;
    /* A channel that nobody holds any more was closed by the far end with an error. `msg` is taken: its payload is the
     * serialized text. Any thread, a mutex held: it must only put it away. */
    void (*orphan_error)(void *arg, xc_msg *msg);
    /* A message with lent memory is dropped. `msg` is taken. Same rules. */
    void (*drop_space)(void *arg, xc_msg *msg);
    void *arg;
} xc_link_opts;

/* A link over `in` and `out` (taken, also on failure), one count for the caller. NULL with *err. */
xc_link *xc_link_new(const xc_link_opts *opts, int in, int out, xc_err *err);
void xc_link_hold(xc_link *link);
/* One count less. The last one closes it all and frees all its channels, so no count of a channel may outlive it;
 * nobody may be waiting on it. Never blocks. */
void xc_link_release(xc_link *link);

/* True in a child forked from the process that made the link: nothing below may be called then but release. */
bool xc_link_forked(const xc_link *link);

/* --- waiting -------------------------------------------------------------------------------------------------- */

typedef enum {
    XC_WAIT_ITEM,       /* chan has an item, or will never have one */
    XC_WAIT_CLOSE,      /* nothing more will arrive at chan */
    XC_WAIT_FIN,        /* nothing more will arrive at all, and all callbacks have returned */
    XC_WAIT_HELLO,      /* a hello of the far end is here, or the link has ended */
    XC_WAIT_TASK,       /* a task is there, or the link has ended */
    XC_WAIT_TASK_SPARE, /* the same for a thread that takes what the primary one cannot; it never reads */
    XC_WAIT_IDLE,       /* no task is running */
    XC_WAIT_BACKLOG,    /* there is work for the dispatcher and nobody does it, or all is over; never reads */
    XC_WAIT_DISPATCH,   /* nobody has the dispatcher role */
    XC_WAIT_GONE,       /* the far end's process has ended, or is none of ours */
} xc_wait_kind;

typedef struct {
    xc_wait_kind kind;
    xc_chan *chan; /* borrowed, for ITEM and CLOSE */
    int64_t until;
    bool can_give; /* this waiter answers XC_SPACE */
    bool no_spin;  /* sleep at once: it has spun in an earlier call, and signals are only noticed asleep */
    bool signals;  /* of the thread that takes signals: XC_INTR or XC_TIMEOUT also comes soon after something was read
                      that was not waited for, as who does not sleep is not interrupted */
} xc_wait;

/*
 * Waits until what `wait` says holds. XC_OK: it held a moment ago. XC_TIMEOUT, XC_INTR: nothing was lost.
 * XC_SPACE: *space is how many bytes the memory must have (the object's own bytes and one more).
 * No other code: a dead link makes every condition hold.
 */
xc_status xc_link_wait_nogil(xc_link *link, const xc_wait *wait, size_t *space);

/* Does it hold now? Never blocks, reads nothing. */
bool xc_link_ready(xc_link *link, const xc_wait *wait);

/*
 * A wait without a thread, for a thread that does other things meanwhile: once what `wait` says holds, or the link
 * ends, the eight bytes of `number` are written to `fd`, by any thread. Where the fd takes nothing, which must not
 * block, only xc_registration_over tells. A registration never reads.
 */
typedef struct xc_registration xc_registration;
/* `fd`, and the channel in `wait`, are borrowed until the registration ends. NULL when there is no memory. */
xc_registration *xc_link_begin_registration(xc_link *link, const xc_wait *wait, int fd, uint64_t number);
/* True: it held, at the beginning or since, or the link has ended since. */
bool xc_registration_over(xc_link *link, const xc_registration *registration);
/* Before the link is released. */
void xc_link_end_registration(xc_link *link, xc_registration *registration);

/* Memory for the large payload that XC_SPACE announced: `ptr` has `space` bytes, `owner` is kept in xc_msg.space.
 * False: too late, somebody read it otherwise; the caller keeps its memory. */
bool xc_link_give_space(xc_link *link, void *owner, unsigned char *ptr, size_t space);

/* --- channels ------------------------------------------------------------------------------------------------- */

/* A new channel with the next free id of this side; one count for the caller. XC_CLOSED: the link has ended. */
xc_status xc_link_new_chan(xc_link *link, xc_chan **out, xc_err *err);
/* The channel of that id, made if it is unknown; one count for the caller. XC_CLOSED, XC_NOMEM. */
xc_status xc_link_chan(xc_link *link, uint32_t id, xc_chan **out, xc_err *err);
/* The n-th channel whose id stands in `msg`, one count for the caller; NULL if there is none or its id is another. */
xc_chan *xc_link_carried(xc_link *link, const xc_msg *msg, size_t n, uint32_t id);
/* From now on `object` stands for it. With the GIL. */
void xc_link_set_object(xc_link *link, xc_chan *chan, void *object);
/* That object (with the GIL), or whoever has a count of it, lets go of the channel: closes it towards the far end if
 * this was the last chance to. Never blocks. */
void xc_link_drop_object(xc_link *link, xc_chan *chan, const void *object);
void xc_link_drop_chan(xc_link *link, xc_chan *chan);

/* The next item. XC_OK: *out is owned (free with xc_link_free_msg). XC_AGAIN: none now. XC_CLOSED: none ever. */
xc_status xc_link_take_item(xc_link *link, xc_chan *chan, xc_msg **out);
/* The same; if there is none, a ring is polled for about `ns` and read. Does not sleep: for some microseconds it may
 * be called with the GIL held. XC_AGAIN: wait for it. */
xc_status xc_link_take_soon(xc_link *link, xc_chan *chan, int64_t ns, xc_msg **out);
/* The oldest text with which the far end closed the channel, owned; NULL if there is none. */
xc_msg *xc_link_take_error(xc_link *link, xc_chan *chan);
void xc_link_free_msg(xc_link *link, xc_msg *msg);

typedef struct {
    bool closed, recv_closed, callback;
    bool cut;      /* more might have come, but for the end of the connection: not so at a worker after a goodbye */
    bool item;     /* there is one to receive */
    bool may_tell; /* the far end is to be told when this side closes it */
} xc_chan_state;
xc_chan_state xc_link_chan_state(xc_link *link, xc_chan *chan);

/* Closes this side: no more sending, no more receiving. XC_OK: it was open or send-only; *tell says whether the far
 * end has to be told. XC_CLOSED: it was closed before. `error`: a text put back to be raised here, or NULL (taken). */
xc_status xc_link_close_chan(xc_link *link, xc_chan *chan, bool *tell, xc_msg *error);

/* String coercion of what arrives for `chan` from now on; NULL: for channels that are made from now on. */
void xc_link_set_coerce(xc_link *link, xc_chan *chan, int coerce);

/* From now on what arrives for `chan`, and what has arrived, goes to `forward`, which holds one count of the channel.
 */
void xc_link_set_forward(xc_link *link, xc_chan *chan, xc_forward *forward);
/* Neither is called again; the count is given back. On a channel that has none by now, only the latter. */
void xc_link_unset_forward(xc_link *link, xc_chan *chan);

/* --- callbacks ------------------------------------------------------------------------------------------------ */

/* The dispatcher role; the thread that has it may take it again. XC_OK or XC_AGAIN. */
xc_status xc_link_dispatch_enter(xc_link *link);
void xc_link_dispatch_leave(xc_link *link);
/* True: the calling thread has the dispatcher role. */
bool xc_link_dispatching(xc_link *link);
/* From now on items of chan go to its callback (with a count of its own). False: nothing more will arrive. */
bool xc_link_set_callback(xc_link *link, xc_chan *chan);
/* The callback is over (the channel was closed by this side, or its callback failed): its count is given back. */
void xc_link_end_callback(xc_link *link, xc_chan *chan);

/*
 * Works off the backlog up to what needs Python; the caller has the role. Returns that message, owned, with *chan
 * counted (give it back): XC_DATA for a callback; XC_CLOSE, XC_CLOSE_ERROR, XC_LAST_MESSAGE of a channel with a
 * callback: call its endmarker, then xc_link_settle. XC_FIN: *chan is NULL, channels are cut; end every callback, then
 * xc_link_settle. NULL: the backlog is empty.
 */
xc_msg *xc_link_backlog_next(xc_link *link, xc_chan **chan);
/* The message that xc_link_backlog_next returned takes effect; taken. */
void xc_link_settle(xc_link *link, xc_msg *msg);
/* Any channel with a callback, counted; NULL: none. */
xc_chan *xc_link_any_callback(xc_link *link);

/* --- sending -------------------------------------------------------------------------------------------------- */

/* The writer that frames go to; see xc_writer.h. */
xc_writer *xc_link_writer(xc_link *link);
/* Closes a channel of that id at the far end with a text, of 100 bytes at most. Allocates nothing, never blocks. */
void xc_link_post_error(xc_link *link, uint32_t id, const char *text);
/* A small frame that must not wait. */
xc_status xc_link_post(xc_link *link, xc_code code, uint32_t id, const void *payload, size_t size);
/* Says goodbye and ends the writing side. Idempotent, never blocks. */
void xc_link_goodbye(xc_link *link);

/* --- the worker's tasks --------------------------------------------------------------------------------------- */

/* The next task, owned, with its channel counted in *chan. XC_AGAIN: none. XC_CLOSED: none ever. */
xc_status xc_link_take_task(xc_link *link, bool primary, xc_msg **out, xc_chan **chan);
/* `primary`: it was the main thread's, which from now on is there for the next one. */
void xc_link_task_done(xc_link *link, bool primary);
/* The same for one of `size` bytes of payload that cannot run for want of memory: its channel is closed, and the far
 * end is told why. */
void xc_link_refuse_task(xc_link *link, xc_chan *chan, size_t size, bool primary);
/* Who runs tasks. A status answer says its name; where there is the main thread alone, a task that waits for it in vain
 * is refused: see xc_task_timeout.c. */
typedef enum { XC_MODEL_THREAD, XC_MODEL_MAIN_ONLY, XC_MODEL_GEVENT, XC_MODEL_EVENTLET, XC_MODELS } xc_model;
const char *xc_model_name(xc_model model);
/* To be said before the first task is taken. Never blocks. */
void xc_link_set_model(xc_link *link, xc_model model);
/* Where a worker says why its link broke at its own end (see xc_exit_policy.h): an fd, borrowed for good; stderr unless
 * set. Nothing is said where the program has closed it, and has another file there.
 */
void xc_link_set_words(xc_link *link, int fd);
xc_model xc_link_model(xc_link *link);

/* --- moving ----------------------------------------------------------------------------------------------------- */

/*
 * From fds onto rings: where the far end must first say whether it has this core. Each side has its end of one region;
 * what it sends goes through that once it has moved, what it receives once the other has. Until both have, as little is
 * sent as fits into a ring: who makes room there may notify the other side, which is not to come before its own move.
 */
/* The region (taken) is where this link may move. False: it has one already. Never blocks. */
bool xc_link_offer(xc_link *link, xc_region *region);
/* It will not: nothing was moved. A far end that moves all the same has broken the rules. Never blocks. */
void xc_link_withdraw(xc_link *link);
/* What is sent from now on goes through the region, whose fd is closed. XC_OK; other codes: the link takes nothing
 * more, *err says why. */
xc_status xc_link_move_nogil(xc_link *link, xc_err *err);

/* --- how it stands -------------------------------------------------------------------------------------------- */

typedef struct {
    bool fin;           /* nothing more will arrive, all callbacks have returned */
    bool said_goodbye;  /* this side did, before the link ended */
    bool heard_goodbye; /* the far end did */
    bool greeted;       /* a hello of the far end came */
    xc_err ended_by;    /* XC_OK while it lives; XC_CLOSED after a goodbye of the far end; XC_EOF; XC_BAD; ... */
    uint32_t executing; /* tasks that run or wait to */
    uint32_t channels;  /* open ones */
    bool rings;         /* what arrives comes through shared memory */
} xc_link_state;
void xc_link_get_state(xc_link *link, xc_link_state *out);
/* Copies what came before the marker, `max` bytes at most. Returns how many there are. */
size_t xc_link_preamble(xc_link *link, void *into, size_t max);
/* From now on a status request with a payload is answered with `facts`, the encoding of a dict with its STOP, and the
 * current directory as its "cwd". Copied. XC_NOMEM, XC_LIMIT. */
xc_status xc_link_set_facts(xc_link *link, const void *facts, size_t size, xc_err *err);
/* The far end's next hello, owned; NULL if there is none now. */
xc_msg *xc_link_take_hello(xc_link *link);

/*
 * The link ends with XC_SILENT, and give_up(arg) is called on the pump's thread (NULL: nothing is), when nothing has
 * arrived from the far end for `silence` (ns; 0: never, which is how a link is born) though it was asked in time for a
 * sign of life: see xc_keepalive.h. Only for a far end that answers whatever its tasks do. Any thread, never blocks.
 * `arg` is borrowed until the link has ended or xc_link_peer_gone was called on the pump's thread.
 */
void xc_link_keepalive(xc_link *link, int64_t silence, void (*give_up)(void *arg), void *arg);

/* The far end's process has ended: what it wrote before is still read, then the link ends, whoever else may hold
 * the pipe open. Any thread, never blocks. */
/* The link is to a process whose end will be told so: XC_WAIT_GONE waits for it. */
void xc_link_owns_peer(xc_link *link);
void xc_link_peer_gone(xc_link *link);
/* Over a socket: the connection ends from here. What has arrived is still read. Any thread, never blocks. */
void xc_link_hang_up(xc_link *link);

#endif
