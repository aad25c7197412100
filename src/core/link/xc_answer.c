/*
 * What a link answers by itself, on the thread that reads it: status requests, tasks that it may not run, channels in
 * what it cannot take, and senders that wait where nobody listens. So the far end gets its answer whatever Python does
 * here.
 *
 * An answer is longer than the request for it, and the far end may send requests without reading. So up to ANSWERS_MAX
 * bytes of answers wait to be written. Beyond that the link only notes an answer as owed, in fewer bytes than the
 * request had, and sends it when there is room. If it stopped reading instead, two ends that ask each other would wait
 * for ever.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "xc_bytes.h"
#include "xc_link_impl.h"
#include "xc_opcodes.h"
#include "xc_trace.h"

enum {
    CWD_MAX = PATH_MAX,
    ESCAPE = 6, /* bytes: a byte that is no UTF-8 is sent as an escape, as in caf\udce9 */
    TAIL_MAX = CWD_MAX * ESCAPE + 24,
    ANSWERS_MAX = 1024 * 1024, /* bytes */
    WORD_MAX = 5 + 16,         /* bytes of a word of a status: the longest is main_thread_only */
    ERROR_MAX = 100,           /* bytes of a text of xc_link_post_error */
    DEBT = 5,                  /* bytes of a noted answer: an xc_debt and a channel id */
    PAID_AT_ONCE = 1000,       /* noted answers that are sent before other links have their turn */
};

/* How long until it looks for room: at first, and at most. It doubles each time there was none. */
#define PAY_SOON_NS (2 * XC_MS)
#define PAY_LATE_NS (128 * XC_MS)

/* --- texts ---------------------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 sequence that begins at `p`, where `n` bytes are left; 0: there is none. */
static size_t
utf8_at(const unsigned char *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    if (size > n || size == 0) {
        return 0;
    }
    uint32_t code = size == 1 ? p[0] : p[0] & (0x7fU >> size);
    for (size_t i = 1; i < size; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (p[i] & 0x3f);
    }
    return code < least[size] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : size;
}

/* As Python's surrogateescape and then backslashreplace write it. `to` has room for ESCAPE bytes for each of `n`.
 * Returns the number of bytes written. */
static size_t
escape(unsigned char *to, const unsigned char *text, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    size_t got = 0;
    for (size_t i = 0; i < n;) {
        size_t size = utf8_at(text + i, n - i);
        if (size > 0) {
            memcpy(to + got, text + i, size);
            got += size;
            i += size;
        }
        else {
            memcpy(to + got, "\\udc", 4);
            to[got + 4] = (unsigned char)digits[text[i] >> 4];
            to[got + 5] = (unsigned char)digits[text[i] & 15];
            got += ESCAPE;
            i++;
        }
    }
    return got;
}

static unsigned char *
put_text(unsigned char *to, const char *text, size_t n)
{
    *to = XC_OP_STR;
    xc_put_u32(to + 1, (uint32_t)n);
    memcpy(to + 5, text, n);
    return to + 5 + n;
}

/* --- status ----------------------------------------------------------------------------------------------------- */

/* {"numchannels": n, "numexecuting": n, "execmodel": name}, as execnet's serializer writes it. */
static void
answer_plainly_locked(xc_link *link, uint32_t id) XC_NEEDS(link)
{
    static const char *const keys[] = {"numchannels", "numexecuting", "execmodel"};
    unsigned char payload[2 + sizeof keys / sizeof *keys * (2 * WORD_MAX + 1)], *p = payload;
    uint32_t numbers[] = {(uint32_t)link->chans.table.n_used, link->tasks.executing};
    *p++ = XC_OP_NEWDICT;
    for (int i = 0; i < 3; i++) {
        p = put_text(p, keys[i], strlen(keys[i]));
        if (i < 2) {
            *p++ = XC_OP_INT;
            xc_put_u32(p, numbers[i]);
            p += 4;
        }
        else {
            const char *model = xc_model_name(link->tasks.model);
            p = put_text(p, model, strlen(model));
        }
        *p++ = XC_OP_SETITEM;
    }
    *p++ = XC_OP_STOP;
    XC_ASSERT((size_t)(p - payload) <= sizeof payload);
    (void)xc_link_post(link, XC_DATA, id, payload, (size_t)(p - payload));
}

/* The length of the current directory; 0: it is not known. On Linux the system call itself, which reads only the
 * kernel's own memory: a library's getcwd may walk through directories, and a mutex is held here. */
static size_t
read_cwd(char into[CWD_MAX])
{
#if defined(__linux__)
    long got = syscall(SYS_getcwd, into, (size_t)CWD_MAX);
    bool known = got > 1 && into[0] == '/'; /* "(unreachable)..." is not one */
#else
    bool known = getcwd(into, CWD_MAX) != NULL;
#endif
    return known ? strlen(into) : 0;
}

static xc_status
answer_facts_locked(xc_link *link, uint32_t id) XC_NEEDS(link)
{
    unsigned char tail[TAIL_MAX], *p = tail;
    char cwd[CWD_MAX];
    size_t n = read_cwd(cwd), facts = xc_buf_size(&link->answers.facts);
    p = put_text(p, "cwd", 3);
    if (n > 0) {
        *p = XC_OP_STR;
        n = escape(p + 5, (const unsigned char *)cwd, n);
        xc_put_u32(p + 1, (uint32_t)n);
        p += 5 + n;
    }
    else {
        *p++ = XC_OP_NONE;
    }
    *p++ = XC_OP_SETITEM;
    *p++ = XC_OP_STOP;

    unsigned char head[XC_HEADER_SIZE];
    xc_buf frame = {.data = NULL};
    xc_frame_pack(head, XC_DATA, id, (uint32_t)(facts + (size_t)(p - tail)));
    xc_status rc = xc_buf_room(&frame, sizeof head + facts + (size_t)(p - tail));
    if (rc == XC_OK) {
        (void)xc_buf_add(&frame, head, sizeof head);
        (void)xc_buf_add(&frame, xc_buf_head(&link->answers.facts), facts);
        (void)xc_buf_add(&frame, tail, (size_t)(p - tail));
        rc = xc_writer_post(&link->writer, xc_buf_head(&frame), xc_buf_size(&frame));
    }
    if (rc == XC_OK && xc_tracing()) {
        xc_trace_frame("sent", XC_DATA, id, xc_buf_size(&frame) - sizeof head);
    }
    xc_buf_fini(&frame);
    return rc;
}

static void
answer_status_locked(xc_link *link, uint32_t id, bool facts) XC_NEEDS(link)
{
    if (!facts || xc_buf_size(&link->answers.facts) == 0) {
        answer_plainly_locked(link, id);
    }
    else if (answer_facts_locked(link, id) == XC_NOMEM) {
        xc_link_post_error(link, id, "MemoryError: no memory for the answer");
        return;
    }
    (void)xc_link_post(link, XC_CLOSE, id, NULL, 0);
}

xc_status
xc_link_set_facts(xc_link *link, const void *facts, size_t size, xc_err *err)
{
    XC_ASSERT(size > 0); /* there is a STOP to leave out */
    xc_buf copy = {.data = NULL};
    if (size > XC_MAX_PAYLOAD - TAIL_MAX) {
        return xc_fail(err, XC_LIMIT, 0, "keep facts that are too large for a message");
    }
    if (xc_buf_add(&copy, facts, size - 1) != XC_OK) { /* without the STOP, which comes behind the directory */
        return xc_fail(err, XC_NOMEM, 0, "keep facts");
    }
    xc_lock_link(&link->mu);
    xc_buf before = link->answers.facts;
    link->answers.facts = copy;
    xc_unlock_link(&link->mu);
    xc_buf_fini(&before);
    return XC_OK;
}

/* --- what is owed ------------------------------------------------------------------------------------------------- */

static void
answer_locked(xc_link *link, xc_debt what, uint32_t id) XC_NEEDS(link)
{
    if (what == XC_OWES_CREDIT) {
        xc_credit_answer_locked(link, id);
    }
    else if (what == XC_OWES_STATUS || what == XC_OWES_FACTS) {
        answer_status_locked(link, id, what == XC_OWES_FACTS);
    }
    else if (what == XC_OWES_CLOSE) {
        (void)xc_link_post(link, XC_CLOSE, id, NULL, 0);
    }
    else {
        xc_link_post_error(link, id, what == XC_OWES_TOO_MANY ? XC_TOO_MANY_TASKS : XC_NO_TASKS);
    }
}

static bool
has_room(xc_link *link) XC_TAKES_WRITER
{
    return xc_writer_left(&link->writer) < ANSWERS_MAX;
}

void
xc_owe_locked(xc_link *link, xc_debt what, uint32_t id)
{
    unsigned char debt[DEBT] = {(unsigned char)what};
    bool first = xc_buf_size(&link->answers.owed) == 0;
    if (first && has_room(link)) {
        answer_locked(link, what, id);
        return;
    }
    xc_put_u32(debt + 1, id);
    if (xc_buf_add(&link->answers.owed, debt, sizeof debt) != XC_OK) {
        xc_err err;
        (void)xc_failf(&err, XC_NOMEM, "answer", "no memory to note what is owed");
        xc_writer_break(&link->writer, &err);
    }
    else if (first) {
        link->answers.pay_ns = PAY_SOON_NS;
        xc_pump_set(&link->answers.pay, xc_after(link->answers.pay_ns));
    }
}

void
xc_pay(xc_timer *timer)
{
    xc_link *link = timer->owner;
    xc_lock_link(&link->mu);
    int paid = 0;
    for (; paid < PAID_AT_ONCE && xc_buf_size(&link->answers.owed) > 0 && has_room(link); paid++) {
        const unsigned char *debt = xc_buf_head(&link->answers.owed);
        xc_debt what = (xc_debt)debt[0];
        uint32_t id = xc_get_u32(debt + 1);
        xc_buf_take(&link->answers.owed, DEBT);
        answer_locked(link, what, id);
    }
    if (xc_buf_size(&link->answers.owed) > 0) {
        link->answers.pay_ns = paid > 0                             ? PAY_SOON_NS
                               : link->answers.pay_ns < PAY_LATE_NS ? link->answers.pay_ns * 2
                                                                    : PAY_LATE_NS;
        xc_pump_set(timer, paid == PAID_AT_ONCE ? xc_now() : xc_after(link->answers.pay_ns));
    }
    xc_unlock_link(&link->mu);
}

/* --- errors ----------------------------------------------------------------------------------------------------- */

void
xc_link_post_error(xc_link *link, uint32_t id, const char *text)
{
    XC_ASSERT(strlen(text) <= ERROR_MAX);
    unsigned char payload[5 + ERROR_MAX + 1];
    unsigned char *p = put_text(payload, text, strlen(text));
    *p++ = XC_OP_STOP;
    (void)xc_link_post(link, XC_CLOSE_ERROR, id, payload, (size_t)(p - payload));
}

void
xc_refuse_large_task_locked(xc_link *link, uint32_t id, size_t size)
{
    char text[96];
    (void)snprintf(text, sizeof text, "MemoryError: no memory for a task of %zu bytes", size);
    xc_link_post_error(link, id, text);
}
