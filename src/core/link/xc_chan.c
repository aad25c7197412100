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

/* The channel is not in the slots, and there is room. */
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
    XC_ASSERT(xc_chan_find(table, id) == NULL);
    if ((table->n_placed + 1) * 2 > table->n_slots && !grow(table)) {
        return NULL;
    }
    xc_chan *chan = xc_alloc(sizeof *chan);
    if (chan == NULL) {
        return NULL;
    }
    memset(chan, 0, sizeof *chan);
    chan->id = id;
    chan->refs = 1;
    chan->listed = chan->placed = true;
    chan->coerce = XC_COERCE_DEFAULT;
    chan->credit.limit_in = chan->credit.limit_out = XC_NO_LIMIT;
    place(table, chan);
    table->n_used++;
    table->n_placed++;
    chan->next_all = table->all;
    chan->link_all = &table->all;
    if (chan->next_all != NULL) {
        chan->next_all->link_all = &chan->next_all;
    }
    table->all = chan;
    return chan;
}

xc_chan *
xc_chan_find_any(const xc_chan_table *table, uint32_t id, size_t *at)
{
    while (table->n_slots > 0) {
        xc_chan *chan = table->slots[(slot_of(table, id) + (*at)++) & (table->n_slots - 1)];
        if (chan == NULL || chan->id == id) {
            return chan;
        }
    }
    return NULL;
}

xc_chan *
xc_chan_find(const xc_chan_table *table, uint32_t id)
{
    if (table->n_slots == 0) {
        return NULL;
    }
    for (size_t at = slot_of(table, id); table->slots[at] != NULL; at = (at + 1) & (table->n_slots - 1)) {
        if (table->slots[at]->id == id && table->slots[at]->listed) {
            return table->slots[at];
        }
    }
    return NULL;
}

void
xc_chan_unlist(xc_chan_table *table, xc_chan *chan)
{
    table->n_used -= chan->listed;
    chan->listed = false;
}

void
xc_chan_remove(xc_chan_table *table, xc_chan *chan)
{
    xc_chan_unlist(table, chan);
    if (!chan->placed) {
        return;
    }
    chan->placed = false;
    table->n_placed--;
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
xc_chan_remove_all(xc_chan_table *table)
{
    for (size_t i = 0; i < table->n_slots; i++) {
        if (table->slots[i] != NULL) {
            table->slots[i]->listed = table->slots[i]->placed = false;
            table->slots[i] = NULL;
        }
    }
    table->n_used = table->n_placed = 0;
}

xc_chan *
xc_chan_next(const xc_chan_table *table, size_t *at)
{
    while (*at < table->n_slots) {
        xc_chan *chan = table->slots[(*at)++];
        if (chan != NULL && chan->listed) {
            return chan;
        }
    }
    return NULL;
}

void
xc_chan_free(xc_chan *chan)
{
    XC_ASSERT(!chan->listed && chan->items.head == NULL && chan->errors.head == NULL);
    *chan->link_all = chan->next_all;
    if (chan->next_all != NULL) {
        chan->next_all->link_all = chan->link_all;
    }
    xc_free(chan);
}

void
xc_chan_table_fini(xc_chan_table *table)
{
    XC_ASSERT(table->all == NULL && table->n_used == 0);
    xc_free(table->slots);
    memset(table, 0, sizeof *table);
}
