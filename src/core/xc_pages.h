/*
 * Advice to the system about the pages of large objects. Ignored where it does not know such advice.
 */
#ifndef XC_PAGES_H
#define XC_PAGES_H

#include <stddef.h>

/* [ptr, ptr + n) will be filled soon: huge pages for the whole ones in it. From 4 MiB on; filling a fresh object of
 * 64 MiB takes a third of the time so. */
void xc_pages_fill(void *ptr, size_t n);

/* The bytes in [ptr, ptr + n) will not be read again: the whole pages in it are given back, their content is gone. */
void xc_pages_drop(void *ptr, size_t n);

/* Copies n bytes in steps, giving back the source's pages that are copied, so that there are never two of it. Takes
 * long: call it with the GIL released. */
void xc_pages_move(void *into, void *from, size_t n);

#endif
