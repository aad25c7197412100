/*
 * The writing side of a connection: which thread writes, what could not be written yet.
 *
 * A frame is never torn. One thread at a time has the writer role and writes its frame to the end; a thread that cannot
 * finish (an exception came out of a signal handler) leaves the rest behind, and whoever writes next writes that
 * first. What must not wait (a close sent by a deallocator, an answer to a status request) goes to the outbox, which
 * the next writer or the I/O thread empties.
 *
 * A long message travels in pieces, each a frame. Between two of them its sender gives the role away: first the outbox
 * goes out, then whoever stands in the line gets the role, then the next piece does.
 */
#ifndef XC_WRITER_H
#define XC_WRITER_H

#include "xc_buf.h"
#include "xc_cut.h"
#include "xc_pump.h"
#include "xc_stream.h"

struct xc_writer_waiter;

typedef struct xc_sending xc_sending;

typedef struct {
    xc_mutex mu;                      /* leaf lock but for the pump's */
    xc_stream *stream;                /* borrowed: its `out` is ours */
    bool writing;                     /* mu: a thread has the writer role */
    pthread_t writer;                 /* mu: who, when `current` is set */
    xc_sending *current;              /* mu: borrowed from the writer; NULL while the pump writes */
    struct xc_writer_waiter *waiters; /* mu: borrowed, each lives on its thread's stack; the line, oldest first */
    uint64_t last_ticket;             /* mu: that a place in the line was given to */
    uint64_t numbers;                 /* mu: bits of those that long messages have */
    xc_buf flight;                    /* the writer's; mu when nobody writes: goes out before anything else */
    xc_buf outbox;    /* mu: whole frames that go out after `flight`. Bounded by who posts: answers, xc_answer.c;
                         pieces of a relay and frames of greenlets, XC_WRITER_MUCH; closes, by channels */
    bool ending;      /* mu: nothing more is taken; the fd is closed when all is out */
    bool closed;      /* mu: the fd is closed */
    xc_err broken;    /* mu: first fatal error, never cleared */
    xc_job *awaiting; /* mu: borrowed, to be posted when nothing is left to write */
    xc_watch watch;   /* mu */
    xc_timer flush;   /* leftovers may go out though no event says so */
} xc_writer;

/* One frame on its way; lives on the sender's stack, zeroed but for the first two. */
struct xc_sending {
    struct iovec *parts; /* borrowed until the frame is out or spilled; advanced in place */
    int n;
    bool mine;         /* this frame has the role */
    bool started;      /* some of it is written */
    bool polite;       /* whoever stands in the line already has the role before it */
    uint64_t ticket;   /* its place in the line, which it keeps when it goes on after a signal; 0: none yet */
    xc_ring *moves_to; /* borrowed; what comes behind this frame goes into that. NULL: where this goes, too */
};

/* One long message on its way; lives on the sender's stack. */
typedef struct {
    xc_cut cut;
    xc_sending frame; /* what is being written of it */
    bool numbered;    /* `number` is its own */
    bool begun;       /* frames before `frame` are out, or kept by the writer */
    uint32_t number;
} xc_long_sending;

/* *writer is zeroed by the caller. `stream` and the pump membership must outlive it. */
void xc_writer_init(xc_writer *writer, xc_stream *stream);
void xc_writer_fini(xc_writer *writer); /* nobody uses it any more, the pump has forgotten the watch */

/* Writes what goes without waiting. XC_OK: all of it is out. XC_AGAIN: call xc_writer_send_nogil with the same
 * `sending`, or xc_writer_spill it. Other codes: the connection takes nothing more (*err), nothing was kept. */
xc_status xc_writer_try(xc_writer *writer, xc_sending *sending, xc_err *err);

/* Writes it all, sleeping where needed. XC_OK. XC_INTR, XC_TIMEOUT: call again, or xc_writer_spill. Others as above. */
xc_status xc_writer_send_nogil(xc_writer *writer, xc_sending *sending, int64_t until, xc_err *err);

/* The sender goes away: what is left of its frame is kept and written by whoever comes next. Harmless when the frame
 * never got the role: then nothing of it was written and nothing is kept. Never blocks. */
void xc_writer_spill(xc_writer *writer, xc_sending *sending);

/* After XC_AGAIN of xc_writer_try: keeps the rest of the frame, or a copy of it all, to be written when the role is
 * free. XC_OK: it counts as sent. XC_NOMEM: it is not, and only if some of it was written the connection is broken.
 * Others as above. Never blocks. */
xc_status xc_writer_hand_over(xc_writer *writer, xc_sending *sending, xc_err *err);

/* Bytes that wait to be written, but for what somebody writes just now. */
size_t xc_writer_left(xc_writer *writer);

/* More than XC_WRITER_MUCH waits to be written: who handed frames over should let it go out first. */
bool xc_writer_is_full(xc_writer *writer);

/* A message of XC_LONG_MIN bytes or more. `parts` as for xc_cut_begin. */
void xc_long_begin(xc_long_sending *sending, const xc_long_frame *message, struct iovec *parts);

/* Writes it all, piece by piece. Results as of xc_writer_send_nogil; where it gives up is xc_writer_drop. XC_TIMEOUT
 * also comes between two pieces. */
xc_status xc_writer_send_long_nogil(xc_writer *writer, xc_long_sending *sending, int64_t until, xc_err *err);

/* The sender of an unfinished long message goes away: nothing of it will arrive, but for one whose last byte is on its
 * way. True: that is so, it counts as sent. Never blocks. */
bool xc_writer_drop(xc_writer *writer, xc_long_sending *sending);

/* Takes a copy of whole frames, to be written soon. Never blocks. XC_OK, or what broke the connection: XC_NOMEM if
 * there was no memory for them, as somebody counts on what is lost. */
xc_status xc_writer_post(xc_writer *writer, const void *frames, size_t n);

enum { XC_WRITER_MUCH = 256 * 1024 }; /* bytes */

/* True when more than XC_WRITER_MUCH waits to be written: `job` is posted when all of it is out, or never will be. For
 * who could go on for ever, and would fill the memory while the connection is slow. Never blocks. */
bool xc_writer_await_room(xc_writer *writer, xc_job *job);

/* Nothing more is taken; the fd is closed as soon as all that was taken is written. Idempotent, never blocks. */
void xc_writer_end(xc_writer *writer);

/* On the pump's thread: the far end has notified us, leftovers may go out now. Never blocks. */
void xc_writer_flush(xc_writer *writer);

/* True: nothing more is taken, as there was no memory for a frame, or the rest of one, or the program has closed the
 * fd; *err says so. */
bool xc_writer_failed_here(xc_writer *writer, xc_err *err);

/* The far end is gone: wakes everybody who waits to write. What is not written yet is dropped. Never blocks. */
void xc_writer_break(xc_writer *writer, const xc_err *why);

#endif
