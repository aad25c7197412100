/*
 * Advice to the system about the pages of large objects. It is ignored where the system does not know it.
 */
#ifndef XC_PAGES_H
#define XC_PAGES_H

#include <stddef.h>

/* [ptr, ptr + n) will be filled soon: asks for huge pages, if n is 4 MiB or more. Filling a new object of 64 MiB then
 * takes a third of the time. */
void xc_pages_fill(void *ptr, size_t n);

/*
 * The same for memory that is filled slowly, from its beginning on: advises for some pages from byte `from` on, where
 * nothing has been written yet. Returns the byte at which to call it again; n: no need to.
 *
 * It stops asking for huge pages while they are slow, which it sees from the time that the first one takes. Where the
 * host of a virtual machine has taken free memory back (it does so in huge pages), a new GiB takes 2 to 4 s in huge
 * pages, and 0.7 s in the small pages that the machine still has. With this check 1 GiB arrives from ssh at 235 MB/s,
 * without it at 134 MB/s.
 *
 * Through rings, with the check the first GiB arrives at 1.2 GB/s (without: 0.25), but the second one at 1.0 (without:
 * 3.4): huge pages that were slow once are fast for a while. So an item that comes through rings gets its first
 * XC_PAGES_MUCH bytes in huge pages in any case: objects of 64 MiB, one after the other, then arrive at 3.8 GB/s, else
 * at 2.3.
 */
enum { XC_PAGES_MUCH = 64 * 1024 * 1024 };
size_t xc_pages_ahead(void *ptr, size_t n, size_t from);

/* The bytes in [ptr, ptr + n) will not be read again: the whole pages in it are given back, their content is gone. */
void xc_pages_drop(void *ptr, size_t n);

/* Copies n bytes in steps and gives the source's pages back as it goes, so that the data are never in memory twice.
 * Takes long: call it with the GIL released. */
void xc_pages_move(void *into, void *from, size_t n);

#endif
