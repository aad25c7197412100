/*
 * One connection: who reads it, who waits for what, its channels and their states, how it ended.
 *
 * A thread that waits at a link also reads it. The first waiter takes the reader role, reads the stream, lets what
 * arrives take effect, and wakes the other threads that waited for it. However it leaves the role, it hands it on. A
 * link that nobody reads goes back to the pump some milliseconds later, not at once: so a ping-pong never wakes the
 * pump.
 *
 * Order, as in execnet: frames take effect one after the other, as they arrived. While a Python callback runs, or items
 * wait for one, each later frame waits in the backlog; the thread with the dispatcher role works it off. Without
 * callbacks a frame takes effect at once, in the reader.
 */
#ifndef XC_LINK_H
#define XC_LINK_H

#include "xc_chan.h"
#include "xc_preamble.h"
#include "xc_region.h"
#include "xc_scan.h"
#include "xc_writer.h"

typedef struct xc_link xc_link;

/* A payload that is one bytes object of at least this size (bytes) is offered to the waiter: see XC_SPACE. */
enum { XC_BIG = 256 * 1024 };

/*
 * So many channels may be carried by items that wait to be received, and by tasks that wait to run (each task carries
 * one at least). An item with more comes as `crowded`, such a task is refused. The limit is needed because an id has
 * five bytes in a frame, and needs thirty times as much memory here.
 */
enum { XC_CARRIED_MAX = 65536 };

/* So many hellos may wait until somebody takes them; one more ends the link. */
enum { XC_UNREAD_HELLOS = 4 };
/* Bytes. */
enum { XC_HELLO_MAX = 1024 * 1024 };

/* The link's own events, in addition to the codes of the wire. */
enum { XC_FIN = 100 /* nothing more will arrive; the last message in the backlog */ };

typedef struct {
    bool worker; /* runs tasks; ends its process when the link does (see xc_exit_policy.h) */
    bool marked; /* frames begin behind XC_MARKER; what is before it is the preamble, see xc_link_preamble */
    /* Taken, also on failure: the memory through which the frames go; NULL: they go through the fds. With a region the
     * fds carry no marker and only zero bytes, each of which notifies a pump; any other byte is kept as preamble. */
    xc_region *region;
    /* The far end closed a channel with an error, and nobody here holds that channel any more. `msg` is taken; its
     * payload is the serialized text. Any thread, with a mutex held: the function may only put it away. */
    void (*orphan_error)(void *arg, xc_msg *msg);
    /* A message with lent memory is dropped. `msg` is taken. Same rules. */
    void (*drop_space)(void *arg, xc_msg *msg);
    void *arg;
} xc_link_opts;

/* A link over `in` and `out` (taken, also on failure), one count for the caller. NULL with *err. */
xc_link *xc_link_new(const xc_link_opts *opts, int in, int out, xc_err *err) XC_TAKES_LINK;
void xc_link_hold(xc_link *link);
/* One count less. The last one closes and frees all, the channels too: so no count of a channel may be left then, and
 * nobody may wait at the link. Never blocks. */
void xc_link_release(xc_link *link) XC_TAKES_LINK;

/* True in a child forked from the process that made the link: then only xc_link_release may be called. */
bool xc_link_forked(const xc_link *link);

/* --- waiting -------------------------------------------------------------------------------------------------- */

typedef enum {
    XC_WAIT_ITEM,       /* chan has an item, or will never have one */
    XC_WAIT_CLOSE,      /* nothing more will arrive at chan */
    XC_WAIT_FIN,        /* nothing more will arrive at all, and all callbacks have returned */
    XC_WAIT_HELLO,      /* a hello of the far end has come, or the link has ended */
    XC_WAIT_TASK,       /* there is a task, or the link has ended */
    XC_WAIT_TASK_SPARE, /* the same for the spare thread, which leaves one task to an idle main thread; never reads */
    XC_WAIT_IDLE,       /* no task is running */
    XC_WAIT_BACKLOG,    /* frames wait in the backlog and nobody has the dispatcher role, or all is over; never reads */
    XC_WAIT_DISPATCH,   /* nobody has the dispatcher role */
    XC_WAIT_GONE,       /* the far end's process has ended, or the link does not know of one */
    XC_WAIT_CREDIT,     /* the claim may send to chan, or need not wait any more */
} xc_wait_kind;

typedef struct {
    xc_wait_kind kind;
    xc_chan *chan;         /* borrowed, for ITEM, CLOSE and CREDIT */
    const xc_claim *claim; /* borrowed, for CREDIT */
    int64_t until;
    bool can_give; /* XC_SPACE may be returned: the caller can lend memory */
    bool no_spin;  /* sleep at once: this wait has spun in an earlier call, and signals are only noticed while asleep */
    bool signals;  /* for the thread that handles signals: XC_INTR or XC_TIMEOUT may also come soon after something else
                      was read. A thread that never sleeps is not interrupted */
} xc_wait;

/*
 * Waits until the condition in `wait` holds. XC_OK: it held a moment ago. XC_TIMEOUT, XC_INTR: nothing was lost.
 * XC_SPACE: *space is the size that the memory must have (the bytes of the object and one more). No other code: when
 * the link ends every condition holds.
 */
xc_status xc_link_wait_nogil(xc_link *link, const xc_wait *wait, size_t *space) XC_HOLDS_NONE;

/* Does the condition hold now? Never blocks, reads nothing. */
bool xc_link_ready(xc_link *link, const xc_wait *wait) XC_TAKES_LINK;

/*
 * A wait without a thread, for a thread that does other things meanwhile. Once the condition in `wait` holds, or the
 * link ends, some thread writes the eight bytes of `number` to `fd`, which must be non-blocking. If they cannot be
 * written only xc_registration_over tells. A registration never reads.
 */
typedef struct xc_registration xc_registration;
/* `fd` and the channel in `wait` are borrowed until the registration ends. NULL: no memory. */
xc_registration *xc_link_begin_registration(xc_link *link, const xc_wait *wait, int fd, uint64_t number) XC_TAKES_LINK;
/* True: the condition has held at some time since the beginning, or the link has ended. */
bool xc_registration_over(xc_link *link, const xc_registration *registration) XC_TAKES_LINK;
/* To be called before the link is released. */
void xc_link_end_registration(xc_link *link, xc_registration *registration) XC_TAKES_LINK;

/* Memory for the large payload that XC_SPACE announced: `ptr` has `space` bytes, `owner` is kept in xc_msg.space.
 * False: too late, the payload has other memory already; the caller keeps its own. */
bool xc_link_give_space(xc_link *link, void *owner, unsigned char *ptr, size_t space) XC_TAKES_LINK;

/* --- channels ------------------------------------------------------------------------------------------------- */

/* A new channel with the next free id of this side; one count for the caller. XC_CLOSED: the link has ended. */
xc_status xc_link_new_chan(xc_link *link, xc_chan **out, xc_err *err) XC_TAKES_LINK;
/* The channel with that id; a new one if it is unknown. One count for the caller. XC_CLOSED, XC_NOMEM. */
xc_status xc_link_chan(xc_link *link, uint32_t id, xc_chan **out, xc_err *err) XC_TAKES_LINK;
/* The n-th channel that `msg` carries, one count for the caller; NULL if there is none or it has another id. */
xc_chan *xc_link_carried(xc_link *link, const xc_msg *msg, size_t n, uint32_t id) XC_TAKES_LINK;
/* The Python object of the channel, if there is one and `keep` of it is true; else `mine`, which is that from now on;
 * NULL: none, and `mine` is NULL. `keep` makes sure that the object stays until it is used; it is called with the
 * link's mutex held, and false if the object is being freed. */
void *xc_link_object(xc_link *link, xc_chan *chan, void *mine, bool (*keep)(void *object)) XC_TAKES_LINK;
/* One count less: that of the Python object, whose memory is still there, or that of any other holder. If no holder is
 * left, this tells the far end that the channel is closed. Never blocks. */
void xc_link_drop_object(xc_link *link, xc_chan *chan, const void *object) XC_TAKES_LINK;
void xc_link_drop_chan(xc_link *link, xc_chan *chan) XC_TAKES_LINK;

/* The next item. XC_OK: *out is owned (free it with xc_link_free_msg). XC_AGAIN: none now. XC_CLOSED: none ever. */
xc_status xc_link_take_item(xc_link *link, xc_chan *chan, xc_msg **out) XC_TAKES_LINK;
/* The same; if there is none and the frames come through a ring, spins for about `ns` and reads. Does not sleep: for
 * some microseconds it may be called with the GIL held. XC_AGAIN: use xc_link_wait_nogil. */
xc_status xc_link_take_soon(xc_link *link, xc_chan *chan, int64_t ns, xc_msg **out) XC_TAKES_LINK;
/* The same for an item that is passed to a callback: xc_link_taken is to be called when that has returned. */
xc_status xc_link_take_to_call(xc_link *link, xc_chan *chan, xc_msg **out) XC_TAKES_LINK;
/* Makes `copy` (taken) the channel's next item, with the channels that `msg` carries: `msg` was taken, and its payload
 * is also that of `copy`. */
void xc_link_put_back(xc_link *link, xc_chan *chan, xc_msg *msg, xc_msg *copy) XC_TAKES_LINK;
/* The oldest error text with which the far end closed the channel, owned; NULL: there is none. */
xc_msg *xc_link_take_error(xc_link *link, xc_chan *chan) XC_TAKES_LINK;
void xc_link_free_msg(xc_link *link, xc_msg *msg) XC_TAKES_LINK;
/* Releases all but the message's own memory, which is the caller's from now on, to be freed by xc_free(msg). */
void xc_link_strip_msg(xc_link *link, xc_msg *msg) XC_TAKES_LINK;

typedef struct {
    bool closed, recv_closed, callback;
    bool cut;      /* it ended with the connection, before it was closed; false at a worker after a goodbye */
    bool item;     /* an item can be received */
    bool may_tell; /* the far end must be told when this side closes the channel */
} xc_chan_state;
xc_chan_state xc_link_chan_state(xc_link *link, xc_chan *chan) XC_TAKES_LINK;

/* Closes this side: no more sending, no more receiving. XC_OK: it was open or send-only; *tell: the far end must be
 * told. XC_CLOSED: it was closed before. `error`: a text that receive() here shall raise, or NULL (taken). */
xc_status xc_link_close_chan(xc_link *link, xc_chan *chan, bool *tell, xc_msg *error) XC_TAKES_LINK;

/* String coercion of what arrives for `chan` from now on; NULL: of channels that are made from now on. */
void xc_link_set_coerce(xc_link *link, xc_chan *chan, int coerce) XC_TAKES_LINK;
/* False: enums and the like are sent as plain values through that channel (XC_NOT_STRICT). */
bool xc_link_is_strict(xc_link *link, xc_chan *chan) XC_TAKES_LINK;

/* What has arrived for `chan`, and what arrives from now on, goes to `forward`. The forwarding holds one count. */
void xc_link_set_forward(xc_link *link, xc_chan *chan, xc_forward *forward) XC_TAKES_LINK;
/* The functions of `forward` are not called again, and its count is released. If the forwarding has ended, only the
 * latter. */
void xc_link_unset_forward(xc_link *link, xc_chan *chan) XC_TAKES_LINK;

/* --- callbacks ------------------------------------------------------------------------------------------------ */

/* Takes the dispatcher role; its owner may take it again. XC_OK, or XC_AGAIN: another thread has it. */
xc_status xc_link_dispatch_enter(xc_link *link) XC_TAKES_LINK;
void xc_link_dispatch_leave(xc_link *link) XC_TAKES_LINK;
/* True: the calling thread has the dispatcher role. */
bool xc_link_dispatching(xc_link *link) XC_TAKES_LINK;
/* From now on items of `chan` go to its callback, which holds a count. False: nothing more will arrive. */
bool xc_link_set_callback(xc_link *link, xc_chan *chan) XC_TAKES_LINK;
/* The callback ends (this side closed the channel, or the callback failed): its count is released. */
void xc_link_end_callback(xc_link *link, xc_chan *chan) XC_TAKES_LINK;

/*
 * Works off the backlog until a message needs Python; the caller has the dispatcher role. Returns that message, owned,
 * with *chan counted (to be released):
 * - XC_DATA: for a callback. When that has returned, call xc_link_called, which releases *chan, too.
 * - XC_CLOSE, XC_CLOSE_ERROR, XC_LAST_MESSAGE of a channel with a callback: call its endmarker, then xc_link_settle.
 * - XC_FIN: *chan is NULL, and all open channels are cut. End every callback, then call xc_link_settle.
 *
 * NULL: the backlog is empty.
 */
xc_msg *xc_link_backlog_next(xc_link *link, xc_chan **chan) XC_TAKES_LINK;
/* The message from xc_link_backlog_next takes effect; it is taken. */
void xc_link_settle(xc_link *link, xc_msg *msg) XC_TAKES_LINK;
/* Any channel with a callback, counted; NULL: none. */
xc_chan *xc_link_any_callback(xc_link *link) XC_TAKES_LINK;

/* --- flow control: see xc_credit.c ------------------------------------------------------------------------------ */

/*
 * To be called for each item before it is sent; *claim is zeroed but for its first three fields. True: it may be sent,
 * and is counted; xc_link_unsent takes that back if it was not. False: the claim stands in the line of those who wait.
 * Wait for XC_WAIT_CREDIT (with `job`: until that is run), then call this again, or xc_link_unclaim. Never blocks.
 */
bool xc_link_claim(xc_link *link, xc_chan *chan, xc_claim *claim) XC_TAKES_LINK;
/* Its sender gives up: it leaves the line. True: its job is posted, and will run. */
bool xc_link_unclaim(xc_link *link, xc_chan *chan, xc_claim *claim) XC_TAKES_LINK;
/* An item of that cost, which was counted, was not sent. */
void xc_link_unsent(xc_link *link, xc_chan *chan, uint64_t cost) XC_TAKES_LINK;
/* Counts an item that never waits; to be called before it is sent. */
void xc_link_sent(xc_link *link, uint32_t id, uint64_t cost) XC_TAKES_LINK;
void xc_link_sent_to(xc_link *link, xc_chan *chan, uint64_t cost) XC_TAKES_LINK;

/* Without a lock: what xc_link_claim does while the channel has no limit. False: call that. */
static inline bool
xc_chan_count_sent(xc_chan *chan, uint64_t cost)
{
    if (atomic_load_explicit(&chan->credit.limited, memory_order_relaxed)) {
        return false;
    }
    atomic_fetch_add_explicit(&chan->credit.sent, cost, memory_order_relaxed);
    return true;
}

/* `n` items of that cost, which a forward or xc_link_take_to_call has given, are taken. */
void xc_link_taken(xc_link *link, xc_chan *chan, uint32_t n, uint64_t cost) XC_TAKES_LINK;
/* An item from xc_link_backlog_next is taken; `chan` is released. */
void xc_link_called(xc_link *link, xc_chan *chan, uint64_t cost) XC_TAKES_LINK;

/* From now on the far end sends to `chan` only as much as fits into `limit` (XC_NO_LIMIT: what it likes). It is told,
 * unless it sends no more. XC_OK; XC_CLOSED: this side has closed the channel. */
xc_status xc_link_set_limit(xc_link *link, xc_chan *chan, uint64_t limit) XC_TAKES_LINK;
/* An item with these channels was sent: the far end, which may have learnt of them by that, is told their limits. `ids`
 * needs no alignment. */
void xc_link_tell_limits(xc_link *link, const void *ids, size_t n) XC_TAKES_LINK;
/* Both sides set this limit in both directions, so nobody is told: of one channel, and of channels that are made from
 * now on or have counted nothing yet. */
void xc_link_set_window(xc_link *link, xc_chan *chan, uint64_t limit) XC_TAKES_LINK;
void xc_link_set_limit_of_new(xc_link *link, uint64_t limit) XC_TAKES_LINK;

/* How a channel stands. Bytes are costs, times are in ns, -1: nobody waits. */
typedef struct {
    uint32_t id;
    size_t items; /* that can be received, or that a forward has */
    uint64_t bytes, limit_in;
    int64_t peer_waits; /* how long the far end has been waiting to send */
    uint64_t under_way; /* sent, and not known to be taken */
    uint64_t limit_out;
    int64_t waits; /* how long somebody here has been waiting to send */
} xc_flow;
/* Of all channels that are open or have items, in no order, `max` at most: returns how many there are. *backlog: items
 * and bytes that wait behind a callback. */
size_t xc_link_get_flow(xc_link *link, xc_flow *out, size_t max, xc_flow *backlog) XC_TAKES_LINK;

/* --- sending -------------------------------------------------------------------------------------------------- */

/* The link's writer; see xc_writer.h. */
xc_writer *xc_link_writer(xc_link *link);
/* Closes the far end's channel of that id with an error text of at most 100 bytes. Allocates nothing, never blocks. */
void xc_link_post_error(xc_link *link, uint32_t id, const char *text) XC_TAKES_WRITER;
/* Sends a small frame without waiting: it may go out later. */
xc_status xc_link_post(xc_link *link, xc_code code, uint32_t id, const void *payload, size_t size) XC_TAKES_WRITER;
/* Says goodbye and ends the writing side. Idempotent, never blocks. */
void xc_link_goodbye(xc_link *link) XC_TAKES_LINK;

/* --- the worker's tasks --------------------------------------------------------------------------------------- */

/* The next task, owned, with its channel counted in *chan. `primary`: the caller is the main thread. XC_AGAIN: none
 * now. XC_CLOSED: none ever. */
xc_status xc_link_take_task(xc_link *link, bool primary, xc_msg **out, xc_chan **chan) XC_TAKES_LINK;
/* The task of `chan` is to be interrupted, as by the far end. XC_OK, XC_NOMEM. */
xc_status xc_link_interrupt(xc_link *link, xc_chan *chan) XC_TAKES_LINK;
/* The next interrupt of a task that the main thread does not run, owned; NULL: none now. */
xc_msg *xc_link_next_interrupt(xc_link *link) XC_TAKES_LINK;
/* Whether the task of `chan` is to be interrupted; from now on it counts as interrupted. */
bool xc_link_take_interrupt(xc_link *link, xc_chan *chan) XC_TAKES_LINK;
/* A task is over. `primary`: the main thread ran it, and is free for the next one. */
void xc_link_task_done(xc_link *link, bool primary) XC_TAKES_LINK;
/* The same for a task of `size` bytes that could not run because there was no memory: closes its channel, and tells the
 * far end why. */
void xc_link_refuse_task(xc_link *link, xc_chan *chan, size_t size, bool primary) XC_TAKES_LINK;
/* Who runs tasks. The answer to a status request has its name. With XC_MODEL_MAIN_ONLY a task that the main thread does
 * not take in time is refused: see xc_task_timeout.c. */
typedef enum { XC_MODEL_THREAD, XC_MODEL_MAIN_ONLY, XC_MODEL_GEVENT, XC_MODEL_EVENTLET, XC_MODELS } xc_model;
const char *xc_model_name(xc_model model);
/* Call it before the first task is taken. Never blocks. */
void xc_link_set_model(xc_link *link, xc_model model) XC_TAKES_LINK;
xc_model xc_link_model(xc_link *link) XC_TAKES_LINK;
/* The fd on which a worker says why its link broke by a fault of its own end (see xc_exit_policy.h): borrowed for good;
 * stderr unless this is called. Nothing is written if the program has closed the fd and another file has its number. */
void xc_link_set_words(xc_link *link, int fd);

/* --- moving ----------------------------------------------------------------------------------------------------- */

/*
 * Moving: a link that began with fds goes on with rings, once each end knows that the other has this C core. Both map
 * one region. A side sends through it once it has moved itself, and receives through it once the far end has moved.
 * Until both have moved, a side sends no more than fits into a ring: a reader that makes room there may notify the
 * writer's side, and such a notification must not arrive before that side has moved.
 */
/* The link may move to `region` (taken). False: it has a region already. Never blocks. */
bool xc_link_offer(xc_link *link, xc_region *region) XC_TAKES_LINK;
/* The link will not move. A far end that moves all the same breaks the rules. Never blocks. */
void xc_link_withdraw(xc_link *link) XC_TAKES_LINK;
/* What is sent from now on goes through the region, whose fd is closed. XC_OK; other codes: nothing more can be sent,
 * *err says why. */
xc_status xc_link_move_nogil(xc_link *link, xc_err *err) XC_HOLDS_NONE;

/* --- how it stands -------------------------------------------------------------------------------------------- */

typedef struct {
    bool fin;           /* nothing more will arrive, all callbacks have returned */
    bool said_goodbye;  /* this side said goodbye before the link ended */
    bool heard_goodbye; /* the far end said goodbye */
    bool greeted;       /* a hello of the far end has come */
    xc_err ended_by;    /* XC_OK while it lives; XC_CLOSED after a goodbye of the far end; XC_EOF; XC_BAD; ... */
    uint32_t executing; /* tasks that run or wait to run */
    uint32_t channels;  /* open ones */
    bool rings;         /* what arrives comes through shared memory */
} xc_link_state;
void xc_link_get_state(xc_link *link, xc_link_state *out) XC_TAKES_LINK;
/* Copies the preamble, `max` bytes at most. Returns its size. */
size_t xc_link_preamble(xc_link *link, void *into, size_t max) XC_TAKES_LINK;
/* From now on a status request with a payload is answered with `facts`, a serialized dict with its STOP, which is
 * copied, and with the current directory added as "cwd". XC_NOMEM, XC_LIMIT. */
xc_status xc_link_set_facts(xc_link *link, const void *facts, size_t size, xc_err *err) XC_TAKES_LINK;
/* The far end's next hello, owned; NULL if there is none now. */
xc_msg *xc_link_take_hello(xc_link *link) XC_TAKES_LINK;

/*
 * From now on the link ends with XC_SILENT when nothing has come from the far end for `silence` (ns; 0: never, as at
 * first), although it was asked for a sign of life: see xc_keepalive.h. Then give_up(arg) is called on the pump's
 * thread, unless it is NULL. Only for a far end that answers whatever its tasks do. Any thread, never blocks. `arg` is
 * borrowed until the link has ended or xc_link_peer_gone was called on the pump's thread.
 */
void xc_link_keepalive(xc_link *link, int64_t silence, void (*give_up)(void *arg), void *arg) XC_TAKES_LINK;

/* The far end is a process, and xc_link_peer_gone will be called when it has ended: XC_WAIT_GONE waits for that. */
void xc_link_owns_peer(xc_link *link) XC_TAKES_LINK;
/* The far end's process has ended: what it wrote is still read, then the link ends, even if another process still has
 * the pipe open. Any thread, never blocks. */
void xc_link_peer_gone(xc_link *link) XC_TAKES_LINK;
/* Over a socket: this side ends the connection. What has arrived is still read. Any thread, never blocks. */
void xc_link_hang_up(xc_link *link) XC_TAKES_LINK;

#endif
