/*
 * What one frame, or one read in place, does to what arrives: xc_arrival.c, and parse_one() of xc_reader.c. Each from
 * every state that can be before it, with any frame and any number of bytes of it in the buffer; memory may lack.
 *
 * The state behind it is such a state, too. What has come is taken: each byte once, from where it stands to where it
 * belongs in its message, and never past the end of that. The next frame is looked for where this one ends. A message
 * is handed on when it is complete, with its frame's code and channel. It always has exactly one owner. What is refused
 * is what breaks the rules, and nothing else.
 *
 * Bytes are not copied: it is proved from where to where they would be. The list of long messages has up to two; those
 * that n_longs counts beyond them stand for the others, which have other numbers.
 *
 * FRAME: one frame at reader->start. PLACE: one read of the payload of `current`. GIVE: xc_link_give_space().
 * Else: xc_forget_arrivals_locked(). ABOUT: which of the arrivals that is about; a frame about OVERSIZED may be any
 * other, too.
 */
#include <string.h>

#include "proof.h"

#define memcpy copy
static void *copy(void *to, const void *from, size_t n);
#include "xc_link_impl.h"
#undef atomic_load
#define atomic_load(place) (*(place))
#include "xc_arrival.c"
#include "xc_reader.c"

enum { OVERSIZED, FIRST, SECOND, NEW, COUNT };
static xc_link it;
/* Each is an object of its own: CBMC keeps them apart then. Of the buffer and the memories only addresses are used. */
static unsigned char buf[1], memory_0[1], memory_1[1], memory_2[1], memory_3[1];
static xc_arrival first, second, added;   /* the list, and what comes from xc_alloc() */
static xc_msg msg_0, msg_1, msg_2, msg_3; /* that of each arrival, and what comes from xc_msg_new() */
#define CHOOSE(i, zero, one, two, three) ((i) == 0 ? (zero) : (i) == 1 ? (one) : (i) == 2 ? (two) : (three))
#define ARRIVAL(i)                       CHOOSE(i, &it.reader.oversized, &first, &second, &added)
#define MSG(i)                           CHOOSE(i, &msg_0, &msg_1, &msg_2, &msg_3)
#define MEMORY(i)                        CHOOSE(i, memory_0, memory_1, memory_2, memory_3)
static xc_arrival *begins; /* memory was asked or lent for it, and the frame at reader->start begins it; or NULL */
static xc_arrival before[COUNT]; /* how they were */
static size_t start, end, frame_left;
static unsigned n_longs;
static bool made_msg, made_arrival, was_listed[COUNT];
static unsigned handed[COUNT], freed[COUNT], dropped[COUNT]; /* messages into the batch, messages and arrivals freed */

static xc_frame frame;
static bool bad_frame, bad_head, moves, took;
static xc_status moved;
static xc_long_frame head;
static size_t from, to,
    taken; /* what copy() and xc_sieve_next() were asked for: from the buffer, to the message, bytes */
static xc_msg *into;
static unsigned copies;

/* --- the state ------------------------------------------------------------------------------------------------------
 */

static bool
is_listed(int i)
{
    bool head = it.reader.longs == ARRIVAL(i),
         behind = i > FIRST && it.reader.longs == &first && first.next == ARRIVAL(i);
    bool end = i == NEW && (it.reader.longs == &second || (it.reader.longs == &first && first.next == &second));
    return head || behind || (end && second.next == &added);
}

static bool
may_be_lent(const xc_arrival *a)
{
    return a->head.code == XC_DATA && a->head.size >= XC_BIG && (a->skip == 5 || a->skip == 9);
}

static bool
sound_msg(const xc_arrival *a, const xc_msg *msg)
{
    return msg->next == NULL && msg->code == a->head.code && msg->chan == a->head.chan && msg->skipped == a->skip &&
           msg->size == a->head.size - a->skip && a->got < a->head.size && (msg->data != NULL || msg->lost) &&
           (a->skip == 0 ? msg->space == NULL : may_be_lent(a) && msg->space != NULL && !msg->lost) &&
           (a->got >= a->skip || (a == begins && a->got == 0));
}

static bool
sound(int i)
{
    const xc_arrival *a = ARRIVAL(i);
    bool fits = i != OVERSIZED || (a->head.size <= XC_MAX_PAYLOAD && a->head.size + XC_HEADER_SIZE > XC_INBUF);
    bool head = a->head.code <= XC_HELLO && a->head.size > 0 && a->head.size <= XC_MAX_LONG && fits &&
                (a->head.code != XC_HELLO || a->head.size <= XC_HELLO_MAX);
    return head && (a->msg == NULL     ? a->got == 0 && (a != it.reader.asking || may_be_lent(a))
                    : a->msg == MSG(i) ? sound_msg(a, MSG(i))
                                       : a->msg == &msg_3 && sound_msg(a, &msg_3));
}

static bool
all_sound(void)
{
    const xc_reader *r = &it.reader;
    unsigned n = 0;
    for (int i = FIRST; i < COUNT; i++) {
        if (is_listed(i)) {
            n++;
            if (!sound(i)) {
                return false;
            }
            for (int k = FIRST; k < i; k++) {
                if (is_listed(k) && ARRIVAL(k)->number == ARRIVAL(i)->number) {
                    return false;
                }
            }
        }
    }
    return r->n_longs >= n && r->n_longs <= XC_LONG_COUNT && (r->oversized.msg == NULL || sound(OVERSIZED)) &&
           (r->asking == NULL || r->asking == begins) &&
           (begins == NULL || (begins == ARRIVAL(ABOUT) && ARRIVAL(ABOUT)->skip > 0 && sound(ABOUT) &&
                               (ARRIVAL(ABOUT)->msg != NULL) == (r->asking == NULL))) &&
           (r->oversized.msg == NULL || r->current == &r->oversized || begins == &r->oversized);
}

/* Each message that is somewhere is in one place. */
static bool
owned_once(void)
{
    for (int i = 0; i < COUNT; i++) {
        unsigned owners = handed[i] + freed[i] + (it.reader.oversized.msg == MSG(i));
        for (int k = FIRST; k < COUNT; k++) {
            owners += is_listed(k) && ARRIVAL(k)->msg == MSG(i);
        }
        bool is = i == NEW ? made_msg : before[i].msg != NULL;
        if (owners != (is ? 1 : 0)) {
            return false;
        }
    }
    return true;
}

static void
any_arrival(int i)
{
    xc_arrival *a = ARRIVAL(i);
    xc_msg *msg = MSG(i);
    a->number = nondet_u32();
    a->head = (xc_long_frame){.code = nondet_byte(), .chan = nondet_u32(), .size = nondet_u64()};
    a->got = nondet_size();
    a->skip = nondet_byte();
    a->paged = nondet_size();
    if (nondet_bool()) {
        a->msg = msg;
        msg->code = a->head.code;
        msg->chan = a->head.chan;
        msg->lost = nondet_bool();
        msg->skipped = nondet_byte();
        msg->size = nondet_size();
        msg->data = msg->lost ? NULL : MEMORY(i);
        msg->space = nondet_bool() ? msg : NULL;
    }
}

static void
any_state(void)
{
    it.reader.buf = buf;
    it.reader.start = nondet_size();
    it.reader.end = nondet_size();
    it.reader.n_longs = nondet_u32();
    it.reader.frame_left = nondet_size();
    it.incoming.ring = nondet_bool() ? &it.region.in : NULL;
    for (int i = OVERSIZED; i < NEW; i++) {
        any_arrival(i);
    }
    it.reader.longs = &first; /* no more of the list than is needed: each form of it is dear */
    was_listed[FIRST] = true;
    if (ABOUT != OVERSIZED) {
        first.next = &second;
        was_listed[SECOND] = true;
    }
    else if (nondet_bool()) {
        it.reader.longs = NULL;
        was_listed[FIRST] = false;
    }
    for (int i = FIRST; i < NEW; i++) {
        ASSUME(was_listed[i] || ARRIVAL(i)->msg == NULL);
    }
#if defined(PLACE)
    xc_arrival *one = it.reader.current = ARRIVAL(ABOUT);
    ASSUME(one->msg != NULL && it.reader.start == 0 && it.reader.end == 0 && it.reader.frame_left > 0);
    ASSUME(it.reader.frame_left <= XC_MAX_PAYLOAD && it.reader.frame_left <= one->head.size - one->got);
    ASSUME(ABOUT != OVERSIZED || it.reader.frame_left == one->head.size - one->got);
#else
    begins = nondet_bool() ? ARRIVAL(ABOUT) : NULL;
    it.reader.asking = begins != NULL && begins->msg == NULL ? begins : NULL;
    ASSUME(it.reader.end <= XC_INBUF && it.reader.start <= it.reader.end);
    ASSUME(begins == NULL || begins->got == 0);
    ASSUME(it.reader.end - it.reader.start >= XC_HEADER_SIZE + (begins == NULL ? 0 : XC_BYTES_HEAD_MAX));
#endif
    ASSUME(all_sound());
    for (int i = 0; i < NEW; i++) {
        before[i] = *ARRIVAL(i);
    }
    start = it.reader.start;
    end = it.reader.end;
    frame_left = it.reader.frame_left;
    n_longs = it.reader.n_longs;
}

static bool
unchanged(int i)
{
    const xc_arrival *a = ARRIVAL(i), *b = &before[i];
    return a->number == b->number && a->head.code == b->head.code && a->head.chan == b->head.chan &&
           a->head.size == b->head.size && a->got == b->got && a->msg == b->msg && a->skip == b->skip &&
           handed[i] == 0 && freed[i] == 0 && dropped[i] == 0;
}

/* --- what is called -------------------------------------------------------------------------------------------------
 */

/* A part of the message's payload; `bytes` stand in the buffer. */
static void
takes(xc_msg *msg, const unsigned char *bytes, size_t n)
{
    PROVE(__CPROVER_same_object(bytes, buf) && copies == 0);
    from = __CPROVER_POINTER_OFFSET(bytes);
    PROVE(from <= XC_INBUF && n <= XC_INBUF - from);
    into = msg;
    taken = n;
    copies++;
}

/* Where that is in a message. */
static xc_msg *
message_at(const void *place, size_t n)
{
    for (int i = 0; i < COUNT; i++) {
        if (__CPROVER_same_object(place, MEMORY(i))) {
            to = __CPROVER_POINTER_OFFSET(place);
            PROVE(to <= MSG(i)->size && n <= MSG(i)->size - to && !MSG(i)->lost);
            return MSG(i);
        }
    }
    PROVE(false);
    return NULL;
}

static void *
copy(void *place, const void *bytes, size_t n)
{
    takes(message_at(place, n), bytes, n);
    return place;
}

bool
xc_sieve_next(xc_sieve *sieve, const unsigned char *part, size_t size, xc_scan_id on_id, void *arg)
{
    xc_msg *msg = arg;
    PROVE(msg->lost && on_id == xc_add_id && (msg->code == XC_DATA || msg->code == XC_EXEC));
    for (int i = OVERSIZED; i < NEW; i++) {
        PROVE((sieve == &ARRIVAL(i)->sieve) <= (ARRIVAL(i)->msg == msg));
    }
    PROVE(sieve->skip == 0 && sieve->n == 0); /* as they all were, or are made */
    takes(msg, part, size);
    return nondet_bool();
}

size_t
xc_scan_bytes_head(const unsigned char *front, uint64_t size)
{
    PROVE(__CPROVER_POINTER_OFFSET(front) == start + XC_HEADER_SIZE &&
          end - start >= XC_HEADER_SIZE + XC_BYTES_HEAD_MAX);
    size_t skip = nondet_size();
    ASSUME(skip == 0 || skip == 5 || skip == 9);
    return skip;
}

xc_status
xc_frame_unpack(const unsigned char *in, xc_frame *out, xc_err *err)
{
    PROVE(in == buf + start && end - start >= XC_HEADER_SIZE);
    *out = frame;
    return bad_frame ? xc_fail(err, XC_BAD, 0, "") : XC_OK;
}

xc_status
xc_long_unpack(const unsigned char *in, xc_long_frame *out, xc_err *err)
{
    PROVE(in == buf + start + XC_HEADER_SIZE && end - start >= XC_HEADER_SIZE + XC_LONG_SIZE);
    *out = head;
    return bad_head ? xc_fail(err, XC_BAD, 0, "") : XC_OK;
}

xc_msg *
xc_msg_new(uint8_t code, uint32_t chan, size_t size)
{
    PROVE(!made_msg && size <= XC_MAX_LONG);
    if (nondet_bool()) {
        return NULL;
    }
    made_msg = true;
    msg_3 = (xc_msg){.code = code, .chan = chan, .size = size, .data = MEMORY(NEW)};
    return MSG(NEW);
}

xc_msg *
xc_msg_new_or_lost(uint8_t code, uint32_t chan, size_t size)
{
    xc_msg *msg = xc_msg_new(code, chan, size);
    if (msg != NULL && nondet_bool()) {
        msg->lost = true;
        msg->data = NULL;
    }
    return msg;
}

static void
frees(xc_msg *msg)
{
    for (int i = 0; i < COUNT; i++) {
        freed[i] += msg == MSG(i);
    }
}

void
xc_msg_free(xc_msg *msg)
{
    PROVE(msg == NULL || msg->space == NULL);
    frees(msg);
}

void
xc_free_later_locked(xc_link *link, xc_msg *msg)
{
    PROVE(msg != NULL);
    frees(msg);
}

void
xc_queue_push(xc_queue *queue, xc_msg *msg)
{
    PROVE(msg->next == NULL);
    for (int i = 0; i < COUNT; i++) {
        handed[i] += msg == MSG(i);
    }
}

void *
xc_alloc(size_t n)
{
    PROVE(n == sizeof added && !made_arrival);
    made_arrival = nondet_bool();
    return made_arrival ? ARRIVAL(NEW) : NULL;
}

void
xc_free(void *p)
{
    for (int i = FIRST; i < COUNT; i++) {
        dropped[i] += p == ARRIVAL(i);
    }
    PROVE(p == ARRIVAL(FIRST) || p == ARRIVAL(SECOND) || p == ARRIVAL(NEW));
}

xc_status
xc_take_move(xc_link *link, xc_err *err)
{
    moves = true;
    it.reader.start = it.reader.end = 0;
    return moved;
}

void
xc_lock(xc_mutex *mu)
{
}

void
xc_unlock(xc_mutex *mu)
{
}

/* An arrival is in the list, or it is freed, once. */
static bool
listed_once(void)
{
    for (int i = FIRST; i < COUNT; i++) {
        if (dropped[i] + is_listed(i) != (i == NEW ? made_arrival : was_listed[i])) {
            return false;
        }
    }
    return true;
}

/* --- proofs ---------------------------------------------------------------------------------------------------------
 */

/* `n` bytes of the payload came to what `i` was before: `stands` is where in the buffer, or SIZE_MAX. */
static void
took_part(int i, size_t stands, size_t n)
{
    const xc_arrival *old = &before[i], *a = ARRIVAL(i);
    const xc_msg *msg = old->msg == NULL ? &msg_3 : MSG(i);
    size_t got = old->msg == NULL ? 0 : old->got, skip = old->msg != NULL && got < old->skip ? old->skip : 0;
    unsigned pushed = old->msg == NULL ? handed[NEW] : handed[i];
    uint64_t size = i == OVERSIZED && old->msg == NULL ? frame.size : old->head.size;
    if (got + n < size) {
        PROVE(a->msg == msg && a->got == got + n && pushed == 0);
        PROVE(i == OVERSIZED || is_listed(i));
    }
    else {
        PROVE(pushed == 1 && (i == OVERSIZED ? a->msg == NULL : dropped[i] == 1 && !is_listed(i)));
        PROVE(it.reader.n_longs == n_longs - (i != OVERSIZED));
    }
    if (stands != SIZE_MAX) {
        PROVE(copies == (!msg->lost || msg->code == XC_DATA || msg->code == XC_EXEC));
        PROVE(copies == 0 || (into == msg && from == stands + skip && taken == n - skip));
        PROVE(msg->lost || to == (old->msg == NULL ? 0 : got + skip - old->skip));
    }
    PROVE(msg->code == (i == OVERSIZED && old->msg == NULL ? frame.code : old->head.code));
    PROVE(msg->chan == (i == OVERSIZED && old->msg == NULL ? frame.chan : old->head.chan));
    PROVE(msg->size == size - (old->msg == NULL ? 0 : old->skip));
}

#if defined(FRAME)
int
main(void)
{
    xc_err err;
    xc_queue batch = {NULL};
    any_state();
    frame = (xc_frame){.code = nondet_byte(), .chan = nondet_u32(), .size = nondet_u32()};
    head = (xc_long_frame){.code = nondet_byte(), .chan = nondet_u32(), .size = nondet_u64()};
    bad_frame = nondet_bool();
    bad_head = nondet_bool();
    moved = nondet_bool() ? XC_OK : XC_SYS;
    /* What xc_frame_unpack() and xc_long_unpack() promise. */
    ASSUME(frame.code <= XC_INTERRUPT && frame.size <= XC_MAX_PAYLOAD);
    ASSUME(frame.code != XC_LONG || frame.size == XC_LONG_SIZE);
    ASSUME(frame.code != XC_CREDIT || frame.size == XC_CREDIT_SIZE);
    ASSUME(frame.code < XC_DROP || frame.code == XC_CREDIT || frame.size == 0);
    ASSUME(head.code <= XC_HELLO && head.size > 0 && head.size <= XC_MAX_LONG);
    /* The frame for which memory was asked is still there. */
    if (begins == &it.reader.oversized) {
        ASSUME(!bad_frame && frame.code == XC_DATA && frame.chan == begins->head.chan &&
               frame.size == begins->head.size);
    }
    else if (begins != NULL) {
        ASSUME(!bad_frame && frame.code == XC_PIECE && frame.chan == begins->number);
        ASSUME(frame.size >= XC_BYTES_HEAD_MAX && frame.size <= begins->head.size);
    }
    bool longs = frame.code == XC_LONG || frame.code == XC_PIECE || frame.code == XC_DROP, found = ABOUT != OVERSIZED;
    if (found) {
        ASSUME(longs && ARRIVAL(ABOUT)->number == frame.chan);
    }
    for (int i = FIRST; !found && i < NEW; i++) {
        ASSUME(!longs || !was_listed[i] || ARRIVAL(i)->number != frame.chan);
    }
    size_t have = end - start - XC_HEADER_SIZE, n = have < frame.size ? have : frame.size;
    bool whole = have >= frame.size, is_long = frame.code == XC_LONG, piece = frame.code == XC_PIECE;
    bool wrong =
        bad_frame || (frame.code == XC_HELLO && frame.size > XC_HELLO_MAX) ||
        (piece && (!found || frame.size > before[ABOUT].head.size - before[ABOUT].got)) ||
        (frame.code == XC_DROP && !found) ||
        (is_long && whole &&
         (found || n_longs == XC_LONG_COUNT || bad_head || (head.code == XC_HELLO && head.size > XC_HELLO_MAX)));
    bool oversized = !whole && !piece && frame.size + XC_HEADER_SIZE > XC_INBUF;
    xc_arrival *target = oversized ? &it.reader.oversized : piece && found ? ARRIVAL(ABOUT) : NULL;

    xc_status rc = parse_one(&it, nondet_bool(), &batch, &err);
    PROVE(it.reader.start <= it.reader.end && it.reader.end <= XC_INBUF && owned_once());
    if (frame.code == XC_MOVE && !wrong) {
        PROVE(moves && rc == moved);
        return 0;
    }
    PROVE(!moves && it.reader.end == end && (rc == XC_BAD) == wrong);
    if (rc == XC_BAD || rc == XC_AGAIN || rc == XC_SPACE) {
        PROVE(copies == 0 && !made_msg && !made_arrival && it.reader.n_longs == n_longs);
        for (int i = FIRST; i < NEW; i++) {
            PROVE(unchanged(i) || (target == ARRIVAL(i) && before[i].msg == NULL && target->msg == NULL));
        }
        PROVE(rc == XC_BAD || (it.reader.start == start && it.reader.current == NULL));
    }
    if (rc == XC_AGAIN) {
        PROVE(!whole && end - start < XC_INBUF && begins == NULL && all_sound() && !it.reader.unparsed);
    }
    else if (rc == XC_SPACE) { /* and the frame is one that begins it */
        begins = target;
        PROVE(it.reader.asking == target && target != NULL && target->msg == NULL && it.reader.unparsed && all_sound());
        PROVE(have >= XC_BYTES_HEAD_MAX && frame.size >= XC_BYTES_HEAD_MAX);
        PROVE(!oversized ||
              (frame.code == XC_DATA && frame.chan == target->head.chan && frame.size == target->head.size));
    }
    else if (rc == XC_OK) {
        begins = NULL;
        PROVE(all_sound() && !it.reader.unparsed);
        PROVE(whole ? it.reader.current == NULL && it.reader.start == start + XC_HEADER_SIZE + frame.size
                    : it.reader.current == target && target->msg != NULL && it.reader.start == end &&
                          it.reader.frame_left == frame.size - have);
        for (int i = FIRST; i < NEW; i++) {
            PROVE(unchanged(i) || i == ABOUT);
        }
        if (target != NULL) {
            took_part(ABOUT, start + XC_HEADER_SIZE, n);
        }
        else if (is_long) {
            PROVE(is_listed(NEW) && ARRIVAL(NEW)->number == frame.chan && ARRIVAL(NEW)->msg == NULL);
            PROVE(ARRIVAL(NEW)->head.code == head.code && ARRIVAL(NEW)->head.chan == head.chan);
            PROVE(ARRIVAL(NEW)->head.size == head.size && it.reader.n_longs == n_longs + 1);
        }
        else if (frame.code == XC_DROP) {
            PROVE(dropped[ABOUT] == 1 && !is_listed(ABOUT) && freed[ABOUT] == (before[ABOUT].msg != NULL));
            PROVE(it.reader.n_longs == n_longs - 1);
        }
        else {
            xc_msg *msg = MSG(NEW);
            PROVE(handed[NEW] == 1 && msg->code == frame.code && msg->chan == frame.chan && msg->size == frame.size);
            PROVE(copies == (!msg->lost || frame.code == XC_DATA || frame.code == XC_EXEC));
            PROVE(copies == 0 || (into == msg && from == start + XC_HEADER_SIZE && taken == frame.size));
            PROVE(msg->lost ? frame.code != XC_CREDIT : to == 0);
        }
    }
    else {
        PROVE(rc == XC_NOMEM || rc == XC_BAD);
    }
    PROVE(listed_once());
    return 0;
}
#elif defined(PLACE)
static size_t asked, came;
static xc_status read_rc;

/* A read of at most `n` bytes, the first `most` of them to `place`. */
static xc_status
reads(void *place, size_t most, size_t n, size_t *got, xc_err *err)
{
    PROVE(most > 0 && most <= frame_left && copies == 0);
    if (__CPROVER_same_object(place, buf)) {
        PROVE(it.reader.current->msg->lost && __CPROVER_POINTER_OFFSET(place) == 0 && most <= XC_INBUF);
    }
    else {
        PROVE(message_at(place, most) == it.reader.current->msg);
    }
    if (read_rc != XC_OK) {
        return xc_fail(err, read_rc, 0, "");
    }
    came = nondet_size();
    ASSUME(came > 0 && came <= n);
    *got = came;
    return XC_OK;
}

xc_status
xc_stream_read(xc_stream *stream, void *place, size_t n, size_t *got, xc_err *err)
{
    PROVE(stream == &it.incoming);
    return reads(place, n, n, got, err);
}

xc_status
xc_stream_read_two(xc_stream *stream, const struct iovec parts[2], size_t *got, xc_err *err)
{
    PROVE(stream == &it.incoming && parts[1].iov_base == buf && parts[1].iov_len <= XC_INBUF);
    PROVE(parts[0].iov_len == frame_left); /* so what is in the second part is behind the frame */
    return reads(parts[0].iov_base, parts[0].iov_len, parts[0].iov_len + parts[1].iov_len, got, err);
}

void
xc_pages_fill(void *ptr, size_t n)
{
    PROVE(message_at(ptr, n) == it.reader.current->msg);
}

size_t
xc_pages_ahead(void *ptr, size_t n, size_t at)
{
    PROVE(message_at(ptr, n) == it.reader.current->msg && to == 0 && at <= n);
    return nondet_size();
}

int
main(void)
{
    xc_err err;
    xc_queue batch = {NULL};
    any_state();
    read_rc = nondet_bool() ? XC_OK : nondet_bool() ? XC_AGAIN : XC_EOF;
    xc_arrival *current = it.reader.current;
    bool lost = current->msg->lost;
    xc_status rc = xc_read_in_place(&it, &batch, &err);
    size_t mine = came < frame_left ? came : frame_left;
    PROVE(owned_once() && !made_msg && !made_arrival && it.reader.start == 0);
    PROVE(rc == read_rc || (rc == XC_NOMEM && lost && came > 0 && err.code == rc));
    for (int i = OVERSIZED; i < NEW; i++) {
        PROVE(unchanged(i) || (i == ABOUT && rc == XC_OK));
    }
    if (rc == XC_OK) {
        PROVE(it.reader.frame_left == frame_left - mine && it.reader.end == came - mine);
        PROVE(it.reader.current == (mine < frame_left ? current : NULL));
        PROVE(!lost || copies == 0 || (from == 0 && taken == came && came == mine));
        PROVE(lost || to == before[ABOUT].got - before[ABOUT].skip);
        took_part(ABOUT, SIZE_MAX, mine);
        PROVE(all_sound());
    }
    else if (rc == XC_AGAIN) {
        PROVE(it.reader.frame_left == frame_left && it.reader.end == 0 && it.reader.current == current && all_sound());
    }
    PROVE(listed_once());
    return 0;
}
#elif defined(GIVE)
int
main(void)
{
    any_state();
    it.wait.reading = nondet_bool();
    it.end.eof = nondet_bool();
    size_t space = nondet_size();
    xc_arrival *asking = it.reader.asking;
    bool fits = asking != NULL && asking->head.size - asking->skip == space && !it.wait.reading && !it.end.eof;
    bool given = xc_link_give_space(&it, &it, MEMORY(NEW), space);
    PROVE(given == (fits && made_msg) && (!made_msg || freed[NEW] == !given));
    PROVE(it.reader.start == start && it.reader.end == end && it.reader.n_longs == n_longs);
    PROVE(it.reader.asking == (given ? NULL : asking) && all_sound() && (given || owned_once()));
    for (int i = OVERSIZED; i < NEW; i++) {
        PROVE(given && ARRIVAL(i) == asking ? asking->msg == MSG(NEW) && asking->msg->space == &it &&
                                                  asking->msg->data == MEMORY(NEW) && asking->msg->size == space
                                            : unchanged(i));
    }
    PROVE(listed_once());
    return 0;
}
#else
int
main(void)
{
    any_state();
    it.reader.current = nondet_bool() ? NULL : ARRIVAL(ABOUT);
    xc_forget_arrivals_locked(&it);
    PROVE(it.reader.current == NULL && it.reader.asking == NULL && it.reader.longs == NULL);
    PROVE(owned_once() && listed_once());
    return 0;
}
#endif
