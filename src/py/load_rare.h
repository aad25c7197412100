/*
 * What the decoder needs less often. Each function takes the position behind its opcode: see loader.h.
 */
#ifndef XCPY_LOAD_RARE_H
#define XCPY_LOAD_RARE_H

#include "loader.h"

xcpy_cursor xcpy_load_longint(xcpy_loader *L, xcpy_cursor p);
xcpy_cursor xcpy_load_complex(xcpy_loader *L, xcpy_cursor p);
xcpy_cursor xcpy_load_set(xcpy_loader *L, xcpy_cursor p, bool frozen);
xcpy_cursor xcpy_load_channel(xcpy_loader *L, xcpy_cursor p);
xcpy_cursor xcpy_load_huge(xcpy_loader *L, xcpy_cursor p, bool bytes); /* else a str */

#endif
