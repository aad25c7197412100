/*
 * The writer is three files over one struct: xc_writer.c (the role, one frame), xc_writer_long.c (messages in pieces)
 * and xc_writer_post.c (posts, the end). The latter two use what xc_writer.c has below; it uses nothing of theirs.
 */
#ifndef XC_WRITER_IMPL_H
#define XC_WRITER_IMPL_H

#include "xc_writer.h"

/* XC_OK, or why nothing more is taken. `err` may be NULL. */
xc_status xc_writer_refusal_locked(xc_writer *writer, xc_err *err);
/* Keeps what is left of a frame that has the role, and gives the role back. */
void xc_writer_spill_locked(xc_writer *writer, xc_sending *sending);
/* Nobody has the role any more: the next in the line gets it, or the pump. */
void xc_writer_release_locked(xc_writer *writer);
/* A frame is lost that somebody counts on: ends the connection. */
void xc_writer_break_for_memory_locked(xc_writer *writer, const char *what);
/* The first reason counts. What waits to be written is dropped, who waits is woken. */
void xc_writer_break_locked(xc_writer *writer, const xc_err *why);
void xc_writer_wake_all_locked(xc_writer *writer);

#endif
