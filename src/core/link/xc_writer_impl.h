/*
 * The writer is three files over one struct: xc_writer.c (the role, one frame), xc_writer_long.c (long messages) and
 * xc_writer_post.c (posted frames, the end). The last two use these functions of xc_writer.c, which uses nothing of
 * theirs.
 */
#ifndef XC_WRITER_IMPL_H
#define XC_WRITER_IMPL_H

#include "xc_writer.h"

/* XC_OK, or the reason why nothing more can be sent. `err` may be NULL. */
xc_status xc_writer_refusal_locked(xc_writer *writer, xc_err *err) XC_NEEDS(writer);
/* Keeps the rest of a frame that has the role, and gives the role back. */
void xc_writer_spill_locked(xc_writer *writer, xc_sending *sending) XC_NEEDS(writer);
/* If a frame of this very thread has the role, we are in a signal handler that interrupted its sender: the same. */
void xc_writer_spill_own_locked(xc_writer *writer) XC_NEEDS(writer);
/* Gives the role back: the next thread in the line gets it, or the pump if something is left to write. */
void xc_writer_release_locked(xc_writer *writer) XC_NEEDS(writer);
/* Ends the connection, because a frame is lost on which the far end relies. */
void xc_writer_break_for_memory_locked(xc_writer *writer, const char *what) XC_NEEDS(writer);
/* Breaks the connection; only the first reason is kept. Drops what waits to be written, and wakes all who wait. */
void xc_writer_break_locked(xc_writer *writer, const xc_err *why) XC_NEEDS(writer);
void xc_writer_wake_all_locked(xc_writer *writer) XC_NEEDS(writer);

#endif
