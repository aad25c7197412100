/*
 * The writing side of a connection: which thread writes, and what could not be written yet.
 *
 * A frame is never torn. The thread with the writer role writes its frame to the end. If it cannot finish (an exception
 * came out of a signal handler) it leaves the rest behind, and the next writer writes that first. Frames that cannot
 * wait for the role (a CLOSE from a deallocator, an answer to a status request) go to the outbox, which the next writer
 * or the pump empties.
 *
 * A long message travels in pieces, each of them a frame. Between two pieces its sender gives the role away: first the
 * outbox is written, then the threads in the line get the role, then the next piece is written.
 */
#ifndef XC_WRITER_H
#define XC_WRITER_H

#include "xc_buf.h"
#include "xc_cut.h"
#include "xc_pump.h"
#include "xc_stream.h"

struct xc_writer_waiter;

typedef struct xc_sending xc_sending;

XC_ROLE(writer)

typedef struct {
    xc_mutex mu;
    xc_stream *stream;                      /* borrowed; only we use its `out` */
    bool writing XC_GUARDED(writer);        /* a thread has the writer role */
    pthread_t writer XC_GUARDED(writer);    /* that thread, if `current` is set */
    xc_sending *current XC_GUARDED(writer); /* borrowed from the thread with the role; NULL while the pump writes */
    /* The line, oldest first; borrowed, each is on its thread's stack. */
    struct xc_writer_waiter *waiters XC_GUARDED(writer);
    uint64_t last_ticket XC_GUARDED(writer); /* the last one given to a thread in the line */
    uint64_t numbers XC_GUARDED(writer);     /* bit i: number i is in use by a long message */
    /* Goes out before anything else. If nobody has the role, who holds mu may use it. */
    xc_buf flight XC_OF_ROLE(writer);
    /* Whole frames that go out after `flight`. Whoever posts limits it: answers by xc_answer.c, pieces of a relay and
     * frames of greenlets by XC_WRITER_MUCH, closes by the number of channels. */
    xc_buf outbox XC_GUARDED(writer);
    bool ending XC_GUARDED(writer);           /* takes nothing more; the fd is closed when all is out */
    bool parted XC_GUARDED(writer);           /* the goodbye has joined the outbox */
    bool closed XC_GUARDED(writer);           /* the fd is closed */
    xc_err broken XC_GUARDED(writer);         /* first fatal error, never cleared */
    xc_job *awaiting XC_GUARDED(writer);      /* borrowed; posted when nothing is left to write */
    struct xc_room *rooms XC_GUARDED(writer); /* borrowed; told then, too */
    xc_watch watch XC_GUARDED(writer);
    xc_timer flush; /* on a ring: tries to write leftovers when no notification will come */
} xc_writer;

/* A frame that is being sent; on its sender's stack, zeroed except for the first two fields. */
struct xc_sending {
    struct iovec *parts; /* borrowed until the frame is out or spilled; advanced in place */
    int n;
    bool mine;         /* it has the role */
    bool started;      /* some of it is written */
    bool polite;       /* lets all who already stand in the line go first */
    uint64_t ticket;   /* its place in the line, which it keeps when it goes on after a signal; 0: none yet */
    xc_ring *moves_to; /* borrowed; what comes behind this frame goes into that ring. NULL: no change */
};

/* A long message that is being sent; on its sender's stack. */
typedef struct {
    xc_cut cut;
    xc_sending frame; /* the frames of it that are being written */
    bool numbered;    /* it has a number */
    bool begun;       /* frames before `frame` were written, or the writer keeps them */
    uint32_t number;
} xc_long_sending;

/* The caller has zeroed *writer. `stream` must outlive it, and the caller stays joined to the pump as long. */
void xc_writer_init(xc_writer *writer, xc_stream *stream);
void xc_writer_fini(xc_writer *writer); /* nobody uses it any more, the pump has forgotten the watch */

/* Writes without waiting. XC_OK: all of it is out. XC_AGAIN: call xc_writer_send_nogil with the same `sending`, or
 * xc_writer_spill. Other codes: nothing more can be sent (*err), and nothing was kept. */
xc_status xc_writer_try(xc_writer *writer, xc_sending *sending, xc_err *err) XC_HOLDS_NONE;

/* Writes all of it, and sleeps where needed. XC_OK. XC_INTR, XC_TIMEOUT: call again, or xc_writer_spill. Others as
 * above. */
xc_status xc_writer_send_nogil(xc_writer *writer, xc_sending *sending, int64_t until, xc_err *err) XC_HOLDS_NONE;

/* The sender stops: the rest of its frame is kept, and the next writer or the pump writes it. If the frame never had
 * the role, nothing of it was written and nothing is kept. Never blocks. */
void xc_writer_spill(xc_writer *writer, xc_sending *sending) XC_TAKES_WRITER;

/*
 * After XC_AGAIN of xc_writer_try: keeps the rest of the frame, or a copy of all of it, until the role is free. XC_OK:
 * it counts as sent. XC_NOMEM: it is not sent; the connection is broken only if a part of it was written. Others as
 * above. Never blocks.
 */
xc_status xc_writer_hand_over(xc_writer *writer, xc_sending *sending, xc_err *err) XC_TAKES_WRITER;

/* Writes what the connection takes now, and keeps a copy of the rest: xc_writer_try, then xc_writer_hand_over, whose
 * results it has. Never blocks. */
xc_status xc_writer_send_soon(xc_writer *writer, xc_sending *sending, xc_err *err) XC_HOLDS_NONE;

/* Bytes that wait to be written, without those that a thread is writing now. */
size_t xc_writer_left(xc_writer *writer) XC_TAKES_WRITER;

/* More than XC_WRITER_MUCH waits to be written: who hands frames over should wait until that is out. */
bool xc_writer_is_full(xc_writer *writer) XC_TAKES_WRITER;

/* A message of XC_LONG_MIN bytes or more. `parts` as for xc_cut_begin. */
void xc_long_begin(xc_long_sending *sending, const xc_long_frame *message, struct iovec *parts);

/* Writes all of it, piece by piece. Results as of xc_writer_send_nogil, but to stop call xc_writer_drop. XC_TIMEOUT may
 * also come between two pieces. */
xc_status xc_writer_send_long_nogil(xc_writer *writer, xc_long_sending *sending, int64_t until,
                                    xc_err *err) XC_HOLDS_NONE;

/* The sender stops before its long message is complete: nothing of it will arrive. True: its last byte was written or
 * kept, so it counts as sent. Never blocks. */
bool xc_writer_drop(xc_writer *writer, xc_long_sending *sending) XC_TAKES_WRITER;

/* Takes a copy of whole frames, which are written soon. Never blocks. XC_OK, or what broke the connection: XC_NOMEM
 * breaks it, because the far end relies on a frame that is lost. */
xc_status xc_writer_post(xc_writer *writer, const void *frames, size_t n) XC_TAKES_WRITER;

enum { XC_WRITER_MUCH = 256 * 1024 }; /* bytes */

/* True: more than XC_WRITER_MUCH waits to be written, and `job` will be posted when all of it is out, or never can be.
 * For senders without an end, which would fill the memory while the connection is slow. Never blocks. */
bool xc_writer_await_room(xc_writer *writer, xc_job *job) XC_TAKES_WRITER;

/* The same without a job: a wait for room, in its owner's memory; zeroed but for `fd` and `number`. */
typedef struct xc_room {
    struct xc_room *next XC_GUARDED(writer);
    int fd; /* must be non-blocking; the eight bytes of `number` are written to it */
    uint64_t number;
    bool waits XC_GUARDED(writer); /* it is among those who wait */
} xc_room;
bool xc_writer_notify_room(xc_writer *writer, xc_room *room) XC_TAKES_WRITER;
/* True: nobody waits for it any more, since there was room. */
bool xc_writer_room_over(xc_writer *writer, const xc_room *room) XC_TAKES_WRITER;
void xc_writer_forget_room(xc_writer *writer, xc_room *room) XC_TAKES_WRITER;

/* Takes nothing more; behind all that was taken goes the goodbye, then the fd is closed. True: this was the first call,
 * and the connection is not broken. Never blocks. */
bool xc_writer_end(xc_writer *writer) XC_TAKES_WRITER;

/* On the pump's thread: the far end has notified us, so there may be room for leftovers. Never blocks. */
void xc_writer_flush(xc_writer *writer) XC_HOLDS_NONE;

/* True: the writing side broke here (no memory for a frame or its rest, or the program has closed the fd); *err says
 * so. */
bool xc_writer_failed_here(xc_writer *writer, xc_err *err) XC_TAKES_WRITER;

/* The far end is gone: wakes all who wait to write. What is not written yet is dropped. Never blocks. */
void xc_writer_break(xc_writer *writer, const xc_err *why) XC_TAKES_WRITER;

#endif
