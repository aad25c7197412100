/*
 * The ledger: what was sent, what was received, whether that is right.
 *
 * An item says in its first bytes which talk, direction, sender and number it has; the rest follows from these. Items
 * of one sender come in order, each once. Where a channel ends, it has brought all that was sent before its other end
 * began to close it, unless a fault has come between.
 */
#include <stdio.h>
#include <string.h>

#include "world.h"
#include "xc_bytes.h"
#include "xc_opcodes.h"

enum { HEAD = 5, AROUND = HEAD + 1, LABEL = 8 };

void
progress(void)
{
    world.last_progress = sim_now();
}

/* --- items ------------------------------------------------------------------------------------------------------ */

/* A quarter are as small as they can be; the others of any length, with some just at a limit of the core. */
static size_t
choose_size(const talk *about)
{
    static const uint32_t limits[] = {XC_INBUF, XC_BIG, XC_LONG_MIN, XC_LONG_MIN + XC_PIECE_SIZE};
    uint32_t least = AROUND + LABEL, n = least;
    switch (sim_random(4)) {
    case 0:
        break;
    case 1:
        n = limits[sim_random(4)] - 8 + sim_random(16);
        break;
    default:
        n = least + sim_random(about->largest);
        break;
    }
    return n <= about->largest ? n : least + sim_random(16);
}

/* Word `i` behind the label. */
static uint32_t
word_of(const unsigned char *label, uint32_t i)
{
    return (i + 1) * 0x9e3779b9U + label[0] * 31U + label[2] * 7U + xc_get_u32(label + 4);
}

void
ledger_make(item *out, talk *about, int direction, int sender)
{
    size_t size = choose_size(about), inner = size - AROUND;
    unsigned char *p = sim_alloc(XC_HEADER_SIZE + size + 8);
    out->data = p;
    out->size = size;
    p += XC_HEADER_SIZE;
    *p = XC_OP_BYTES;
    xc_put_u32(p + 1, (uint32_t)inner);
    p += HEAD;
    p[0] = (unsigned char)about->number;
    p[1] = (unsigned char)direction;
    p[2] = (unsigned char)sender;
    p[3] = 0;
    xc_put_u32(p + 4, about->begun[direction][sender]);
    for (size_t i = 0; i * 4 + LABEL < inner; i++) {
        xc_put_u32(p + LABEL + 4 * i, word_of(p, (uint32_t)i));
    }
    p[inner] = XC_OP_STOP;
    about->begun[direction][sender]++;
}

void
ledger_sent(talk *about, int direction, int sender, bool sent)
{
    progress();
    if (sent) {
        about->sent[direction][sender]++;
    }
    else {
        about->begun[direction][sender]--;
    }
}

/* With a limit that was there from the beginning, no more is under way than it allows. Items that a receiver has in its
 * hands count as taken there already. */
void
ledger_claimed(talk *about, int direction, uint64_t cost)
{
    uint64_t most = about->largest + AROUND + LABEL + XC_ITEM_COST;
    about->under_way[direction] += cost;
    if (about->bound[direction] > 0 && !about->on->may_end && !ledger_refused(about) && !about->closing[0] &&
        !about->closing[1] &&
        about->under_way[direction] > 3 * most + (about->bound[direction] > most ? about->bound[direction] : most)) {
        sim_fail("talk %d, direction %d: %llu bytes are under way, with a limit of %u", about->number, direction,
                 (unsigned long long)about->under_way[direction], about->bound[direction]);
    }
}

static bool
is_intact(const unsigned char *label, size_t n)
{
    for (size_t at = LABEL; at < n; at += 4) {
        unsigned char word[4];
        xc_put_u32(word, word_of(label, (uint32_t)(at - LABEL) / 4));
        if (memcmp(label + at, word, n - at < 4 ? n - at : 4) != 0) {
            return false;
        }
    }
    return true;
}

void
ledger_got(talk *about, int direction, const xc_msg *msg)
{
    progress();
    if (about->kind == STATUS) {
        about->got[UP][0]++;
        return;
    }
    if (msg->lost) {
        if (!about->on->faulty) {
            sim_fail("talk %d: an item was lost for lack of memory", about->number);
        }
        about->lossy = true;
        return;
    }
    size_t skip = msg->space == NULL ? HEAD : 0;
    const unsigned char *label = msg->data + skip;
    size_t n = msg->size - skip - 1;
    if (msg->size < skip + 1 + LABEL || label[n] != XC_OP_STOP ||
        (skip > 0 && (msg->data[0] != XC_OP_BYTES || xc_get_u32(msg->data + 1) != n))) {
        sim_fail("talk %d: what was received is no item", about->number);
    }
    int sender = label[2];
    uint32_t number = xc_get_u32(label + 4);
    if (label[0] != about->number || label[1] != direction || sender >= SENDERS) {
        sim_fail("talk %d got an item of talk %d, direction %d, sender %d", about->number, label[0], label[1], sender);
    }
    sim_trace("got item %u of talk %d, sender %d", number, about->number, sender);
    uint32_t *got = &about->got[direction][sender];
    uint64_t *seen = &about->seen[direction][sender][number / 64 % SEEN], bit = UINT64_C(1) << number % 64;
    bool in_order = number == *got || (number > *got && about->lossy) || about->shared;
    if (!in_order || (*seen & bit) != 0 || number >= about->begun[direction][sender]) {
        sim_fail("talk %d, direction %d, sender %d: item %u came, after %u, of %u that were begun", about->number,
                 direction, sender, number, *got, about->begun[direction][sender]);
    }
    if (!is_intact(label, n)) {
        sim_fail("talk %d, direction %d, sender %d: item %u has come with other bytes", about->number, direction,
                 sender, number);
    }
    *seen |= bit;
    about->under_way[direction] -= xc_msg_cost(msg);
    *got = about->shared ? *got + 1 : number + 1;
}

/* --- ends ------------------------------------------------------------------------------------------------------- */

bool
ledger_has_more(const talk *about, int direction)
{
    uint32_t sent = 0, got = 0;
    for (int i = 0; i < SENDERS; i++) {
        sent += about->sent[direction][i];
        got += about->got[direction][i];
    }
    return sent > got && !about->lossy;
}

void
ledger_closing(side *at, talk *about)
{
    int direction = at->number == 0 ? DOWN : UP;
    if (!about->closing[at->number]) {
        about->closing[at->number] = true;
        memcpy(about->before_close[direction], about->sent[direction], sizeof about->before_close[direction]);
    }
}

void
ledger_leaving(side *at)
{
    at->leaves = true;
    at->on->may_end = true;
    for (int i = 1; i < world.n_connections && at->on == &world.connections[0]; i++) { /* they go through it */
        connection *inner = &world.connections[i];
        inner->may_end = true;
        inner->faulty = inner->faulty || inner->unfinished;
    }
}

/* All of `least` have come. */
static void
check_complete(const talk *about, int direction, const uint32_t least[SENDERS], const char *when)
{
    for (int i = 0; i < SENDERS && !about->lossy; i++) {
        if (about->got[direction][i] < least[i]) {
            sim_fail("talk %d, direction %d, sender %d: %u items came, and %u were sent before %s", about->number,
                     direction, i, about->got[direction][i], least[i], when);
        }
    }
}

bool
ledger_refused(const talk *about)
{
    const talk *host = about;
    for (int i = 0; i < about->on->n_talks; i++) {
        host = about->on->talks[i].carries == about ? &about->on->talks[i] : host;
    }
    return about->on->main_only && !about->open[1] && host->asked_at > 0 && sim_now() >= host->asked_at + XC_S;
}

void
ledger_ended(side *at, talk *about, const xc_chan_state *state)
{
    int direction = at->number == 0 ? UP : DOWN;
    const side *other = &at->on->ends[1 - at->number];
    progress();
    if (about->closing[at->number] || about->on->faulty || about->shared) {
        return;
    }
    if (other->leaves) { /* also what was being sent meanwhile, unless its sender was refused */
        bool closing = about->closing[other->number];
        check_complete(about, direction, closing ? about->before_close[direction] : about->sent[direction],
                       "the goodbye");
    }
    else if (!state->cut && about->closing[other->number]) {
        check_complete(about, direction, about->before_close[direction], "the channel was closed");
    }
    else if (about->kind == STATUS) {
        if (about->got[UP][0] != 1 && !about->on->may_end) {
            sim_fail("a status request had %u answers", about->got[UP][0]);
        }
    }
    else if (!about->on->may_end && !ledger_refused(about)) {
        sim_fail("talk %d has ended at %s%s, and nobody has closed it", about->number, sim_process_name(at->process),
                 state->cut ? " with the link" : "");
    }
}

void
ledger_show(void)
{
    for (talk *about = NULL; (about = next_talk(about)) != NULL;) {
        printf("  connection %d, talk %d, channel %u%s:", about->on->number, about->number, about->id,
               about->kind == STATUS ? ", a status request" : "");
        for (int direction = 0; direction < 2; direction++) {
            printf(" %s %s", direction == DOWN ? "down" : "; up", about->callback[direction] ? "(callback)" : "");
            for (int sender = 0; sender < SENDERS; sender++) {
                printf(" %u/%u/%u", about->begun[direction][sender], about->sent[direction][sender],
                       about->got[direction][sender]);
            }
            printf(" of %ux%u", about->senders[direction], about->items[direction]);
        }
        printf("; sending %d %d, borrowed %d %d, closing %d %d, over %d %d\n", about->sending[0], about->sending[1],
               about->borrowed[0], about->borrowed[1], about->closing[0], about->closing[1], about->over[0],
               about->over[1]);
    }
}
