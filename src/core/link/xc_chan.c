/*
 * Channels and the table id -> channel. Invariant: no slot is empty between the slot of a channel's id and the slot
 * where the channel is, and at most half of the slots are used.
 */
#include "xc_chan.h"

#include <string.h>

static size_t
slot_of(const xc_chan_table *table, uint32_t id) XC_NEEDS(link)
{
    return (size_t)(id * table->factor >> table->shift);
}

/* A hash of the table's address and the present time. */
static uint64_t
make_factor(const xc_chan_table *table)
{
    uint64_t x = (uint64_t)(uintptr_t)table ^ (uint64_t)xc_now() * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) | 1;
}

static void
place(xc_chan_table *table, xc_chan *chan) XC_NEEDS(link)
{
    size_t at = slot_of(table, chan->id);
    while (table->slots[at] != NULL) {
        at = (at + 1) & (table->n_slots - 1);
    }
    table->slots[at] = chan;
}

static bool
grow(xc_chan_table *table) XC_NEEDS(link)
{
    bool first = table->n_slots == 0;
    size_t n = first ? 8 : table->n_slots * 2;
    xc_chan **old = table->slots;
    size_t n_old = table->n_slots;
    xc_chan **slots = xc_alloc(n * sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    memset(slots, 0, n * sizeof *slots);
    table->slots = slots;
    table->n_slots = n;
    table->factor = first ? make_factor(table) : table->factor;
    table->shift = first ? 64 - 3 : table->shift - 1;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i] != NULL) {
            place(table, old[i]);
        }
    }
    xc_free(old);
    return true;
}

xc_chan *
xc_chan_new(xc_chan_table *table, uint32_t id)
{
    if ((table->n_used + 1) * 2 > table->n_slots && !grow(table)) {
        return NULL;
    }
    xc_chan *chan = xc_alloc(sizeof *chan);
    if (chan == NULL) {
        return NULL;
    }
    memset(chan, 0, sizeof *chan);
    chan->id = id;
    chan->refs = 1;
    chan->listed = true;
    chan->coerce = XC_COERCE_DEFAULT;
    place(table, chan);
    table->n_used++;
    chan->next_all = table->all;
    chan->link_all = &table->all;
    if (chan->next_all != NULL) {
        chan->next_all->link_all = &chan->next_all;
    }
    table->all = chan;
    return chan;
}

xc_chan *
xc_chan_find(const xc_chan_table *table, uint32_t id)
{
    if (table->n_slots == 0) {
        return NULL;
    }
    for (size_t at = slot_of(table, id); table->slots[at] != NULL; at = (at + 1) & (table->n_slots - 1)) {
        if (table->slots[at]->id == id) {
            return table->slots[at];
        }
    }
    return NULL;
}

void
xc_chan_unlist(xc_chan_table *table, xc_chan *chan)
{
    if (!chan->listed) {
        return;
    }
    chan->listed = false;
    table->n_used--;
    size_t mask = table->n_slots - 1, at = slot_of(table, chan->id);
    while (table->slots[at] != chan) {
        at = (at + 1) & mask;
    }
    table->slots[at] = NULL;
    /* The channels behind the hole may have been put there because this slot was used. They move, or a search for them
     * would stop at the hole. */
    for (size_t i = (at + 1) & mask; table->slots[i] != NULL; i = (i + 1) & mask) {
        xc_chan *moved = table->slots[i];
        table->slots[i] = NULL;
        place(table, moved);
    }
}

void
xc_chan_unlist_all(xc_chan_table *table)
{
    for (size_t i = 0; i < table->n_slots; i++) {
        if (table->slots[i] != NULL) {
            table->slots[i]->listed = false;
            table->slots[i] = NULL;
        }
    }
    table->n_used = 0;
}

xc_chan *
xc_chan_next(const xc_chan_table *table, size_t *at)
{
    while (*at < table->n_slots) {
        xc_chan *chan = table->slots[(*at)++];
        if (chan != NULL) {
            return chan;
        }
    }
    return NULL;
}

void
xc_chan_free(xc_chan *chan)
{
    *chan->link_all = chan->next_all;
    if (chan->next_all != NULL) {
        chan->next_all->link_all = chan->link_all;
    }
    xc_free(chan);
}

void
xc_chan_table_fini(xc_chan_table *table)
{
    xc_free(table->slots);
    memset(table, 0, sizeof *table);
}
