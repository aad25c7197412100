/*
 * Advice to the system about the pages of large objects. Ignored where it does not know such advice.
 */
#ifndef XC_PAGES_H
#define XC_PAGES_H

#include <stddef.h>

/* [ptr, ptr + n) will be filled soon: huge pages for the whole ones in it. From 4 MiB on; filling a fresh object of
 * 64 MiB takes a third of the time so. */
void xc_pages_fill(void *ptr, size_t n);

/*
 * [ptr, ptr + n) is being filled from its beginning, and slowly, nothing of it from byte `from` on: what pages come
 * next. Returns the byte at which to ask again; n: there is no need to.
 *
 * As above, but no huge pages while they are dear, which the first one tells: where the host of a virtual machine has
 * taken free memory back (it does so in huge pages), a fresh GiB takes 2 to 4 s in them, and 0.7 s in the small ones
 * that the machine still has. 1 GiB from ssh comes at 235 MB/s so, else at 134; through rings the first one at 1.2
 * GB/s, else at 0.25, and the second at 1.0, else at 3.4: huge pages that were dear once are cheap for a while. That is
 * why what comes through rings gets its first XC_PAGES_MUCH in them in any case: objects of 64 MiB that follow each
 * other come at 3.8 GB/s so, else at 2.3.
 */
enum { XC_PAGES_MUCH = 64 * 1024 * 1024 };
size_t xc_pages_ahead(void *ptr, size_t n, size_t from);

/* The bytes in [ptr, ptr + n) will not be read again: the whole pages in it are given back, their content is gone. */
void xc_pages_drop(void *ptr, size_t n);

/* Copies n bytes in steps, giving back the source's pages that are copied, so that there are never two of it. Takes
 * long: call it with the GIL released. */
void xc_pages_move(void *into, void *from, size_t n);

#endif
