/* The floor: status and error records, allocation, buffers, frame headers, queues. */
#include <fcntl.h>
#include <signal.h>

#include "check.h"
#include "xc_buf.h"
#include "xc_fd.h"
#include "xc_queue.h"

/* ---- results ---- */

static void
statuses_have_names(void)
{
    CHECK(strcmp(xc_status_name(XC_OK), "XC_OK") == 0);
    CHECK(strcmp(xc_status_name(XC_SYS), "XC_SYS") == 0);
    for (int code = XC_OK; code <= XC_SYS; code++) {
        CHECK(strncmp(xc_status_name((xc_status)code), "XC_", 3) == 0);
    }
    CHECK(strncmp(xc_status_name((xc_status)(XC_SYS + 1)), "XC_", 3) != 0);
    CHECK(strncmp(xc_status_name((xc_status)-1), "XC_", 3) != 0);
}

static void
errors_are_recorded(void)
{
    xc_err err;
    memset(&err, 'x', sizeof(err));
    CHECK_RC(xc_fail(&err, XC_SYS, ENOENT, "step one"), XC_SYS);
    CHECK(err.code == XC_SYS && err.sys_errno == ENOENT && strcmp(err.step, "step one") == 0 && err.detail[0] == 0);
    CHECK_RC(xc_failf(&err, XC_BAD, "step two", "%s %d", "value", 7), XC_BAD);
    CHECK(err.code == XC_BAD && err.sys_errno == 0 && strcmp(err.detail, "value 7") == 0);
    xc_failf(&err, XC_BAD, "long", "%0400d", 1);
    CHECK_INT(strlen(err.detail), sizeof(err.detail) - 1);
    CHECK_RC(xc_fail(NULL, XC_EOF, 0, ""), XC_EOF);
    CHECK_RC(xc_failf(NULL, XC_LIMIT, "", "%d", 1), XC_LIMIT);
}

static void
allocation_can_be_refused(void)
{
    xc_set_alloc_hook(check_allow_some);
    atomic_store(&check_allowed, 1);
    unsigned char *p = xc_alloc(10);
    CHECK(p != NULL);
    CHECK(xc_alloc(10) == NULL);
    p[9] = 77;
    CHECK(xc_realloc(p, 20) == NULL);
    CHECK_INT(p[9], 77);
    xc_set_alloc_hook(NULL);
    p = xc_realloc(p, 20);
    CHECK(p != NULL && p[9] == 77);
    xc_free(p);
    xc_free(NULL);
    p = xc_alloc(0);
    CHECK(p != NULL);
    xc_free(p);
}

static bool
yes(void)
{
    return true;
}

static bool
no(void)
{
    return false;
}

static void
claim_the_gil(void)
{
    if (freopen("/dev/null", "w", stderr) == NULL) {
        return;
    }
    xc_set_gil_probe(yes);
    xc_assert_nogil(__func__);
}

static void
gil_is_noticed(void)
{
    int status = check_in_child(claim_the_gil);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    XC_ASSERT_NOGIL();
    xc_set_gil_probe(no);
    XC_ASSERT_NOGIL();
    xc_set_gil_probe(NULL);
}

static void
take_what_is_not_there(void)
{
    xc_buf buf = {0};
    xc_buf_take(&buf, 1);
}

static void
assertion_says_what_failed(void)
{
    char said[300] = "";
    int ends[2], old = dup(STDERR_FILENO);
    CHECK(old >= 0 && pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    char name[] = "/tmp/report-XXXXXX", reported[sizeof said] = "";
    int report = mkstemp(name);
    CHECK(report >= 0 && setenv("XC_REPORT", name, 1) == 0);
    int status = check_in_child(take_what_is_not_there);
    CHECK(unsetenv("XC_REPORT") == 0 && unlink(name) == 0);
    CHECK(dup2(old, STDERR_FILENO) >= 0);
    close(old);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(read(ends[0], said, sizeof said - 1) > 0);
    close(ends[0]);
    CHECK(read(report, reported, sizeof reported - 1) > 0);
    close(report);
    CHECK(strncmp(reported, said, strlen(said)) == 0);
    char *line = strstr(said, "xc_buf.c:");
    CHECK(line != NULL && strtol(line + 9, &line, 10) > 0);
    CHECK(strcmp(line, ": xc_buf_take: failed: n <= xc_buf_size(buf)\n") == 0);
}

static void
lift_from_closed_stdio(void)
{
    int keep = dup(2);
    close(0);
    close(1);
    int fd = open("/dev/null", O_RDONLY);
    CHECK_INT(fd, 0);
    int lifted = xc_fd_lift(fd);
    CHECK(lifted > 2);
    CHECK(fcntl(lifted, F_GETFD) == FD_CLOEXEC);
    CHECK(fcntl(0, F_GETFD) == -1);
    CHECK_INT(xc_fd_lift(lifted), lifted);
    CHECK_INT(xc_fd_lift(-1), -1);
    CHECK_INT(xc_fd_lift(keep), keep);
}

static void
low_fds_are_lifted(void)
{
    CHECK_INT(check_in_child(lift_from_closed_stdio), 0);
}

/* ---- buffers ---- */

static uint32_t
next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Adds and takes at random; every byte has to come out as it went in, in order. */
static void
buf_keeps_bytes_in_order(void)
{
    xc_buf buf = {0};
    uint32_t seed = 1;
    size_t in = 0, out = 0, most = 0;
    CHECK(xc_buf_size(&buf) == 0 && xc_buf_head(&buf) == NULL);
    for (int round = 0; round < 20000; round++) {
        unsigned char bytes[700];
        size_t n = next_random(&seed) % (round % 100 == 0 ? sizeof(bytes) : 40);
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (unsigned char)((in + i) * 31);
        }
        CHECK_RC(xc_buf_add(&buf, bytes, n), XC_OK);
        in += n;
        size_t size = xc_buf_size(&buf);
        CHECK_INT(size, in - out);
        most = size > most ? size : most;
        size_t take = size == 0 ? 0 : next_random(&seed) % (size < 60 ? size + 1 : 60);
        for (size_t i = 0; i < take; i++) {
            if (xc_buf_head(&buf)[i] != (unsigned char)((out + i) * 31)) {
                CHECK(!"a byte changed");
            }
        }
        xc_buf_take(&buf, take);
        out += take;
    }
    CHECK(buf.cap <= 4 * most + 4096);
    xc_buf_fini(&buf);
    CHECK(buf.data == NULL && buf.cap == 0 && xc_buf_size(&buf) == 0);
}

/* A queue that is never empty must not grow with what went through it. */
static void
buf_stays_small(void)
{
    xc_buf buf = {0};
    unsigned char bytes[1000] = {1};
    for (int i = 0; i < 5; i++) {
        CHECK_RC(xc_buf_add(&buf, bytes, sizeof(bytes)), XC_OK);
    }
    for (int i = 0; i < 100000; i++) {
        if (xc_buf_add(&buf, bytes, 100) != XC_OK) {
            CHECK(!"no memory");
        }
        xc_buf_take(&buf, 100);
    }
    CHECK_INT(xc_buf_size(&buf), 5000);
    CHECK(buf.cap < 20000);
    xc_buf_fini(&buf);
}

static void
buf_gives_memory_back(void)
{
    xc_buf buf = {0};
    CHECK_RC(xc_buf_room(&buf, 1000), XC_OK);
    CHECK(buf.cap >= 1000 && xc_buf_size(&buf) == 0);
    CHECK_RC(xc_buf_add(&buf, "abc", 3), XC_OK);
    xc_buf_take(&buf, 3);
    CHECK(buf.data != NULL && buf.start == 0);
    CHECK_RC(xc_buf_room(&buf, 70000), XC_OK);
    memset(buf.data + buf.end, 5, 70000);
    buf.end += 70000;
    xc_buf_take(&buf, 69999);
    CHECK_INT(*xc_buf_head(&buf), 5);
    xc_buf_take(&buf, 1);
    CHECK(buf.data == NULL && buf.cap == 0);
    CHECK_RC(xc_buf_add(&buf, "x", 1), XC_OK);
    xc_buf_fini(&buf);
    xc_buf_fini(&buf);
}

static void
buf_survives_want_of_memory(void)
{
    xc_buf buf = {0};
    xc_set_alloc_hook(check_allow_some);
    atomic_store(&check_allowed, 0);
    CHECK_RC(xc_buf_add(&buf, "abc", 3), XC_NOMEM);
    CHECK(buf.data == NULL && buf.end == 0);
    atomic_store(&check_allowed, 1);
    while (buf.cap == 0 || buf.end < buf.cap) {
        unsigned char byte = (unsigned char)buf.end;
        CHECK_RC(xc_buf_add(&buf, &byte, 1), XC_OK);
    }
    xc_buf before = buf;
    CHECK_RC(xc_buf_add(&buf, "x", 1), XC_NOMEM);
    CHECK_RC(xc_buf_room(&buf, SIZE_MAX), XC_NOMEM);
    CHECK_RC(xc_buf_room(&buf, SIZE_MAX - buf.end), XC_NOMEM);
    CHECK(memcmp(&before, &buf, sizeof(buf)) == 0);
    /* Too few bytes were taken to move the rest for free, but without memory that is still the way out. */
    xc_buf_take(&buf, 2);
    CHECK_RC(xc_buf_add(&buf, "yz", 2), XC_OK);
    CHECK_INT(xc_buf_head(&buf)[0], 2);
    CHECK(memcmp(buf.data + buf.end - 2, "yz", 2) == 0);
    xc_buf_take(&buf, 1);
    before = buf;
    CHECK_RC(xc_buf_add(&buf, "12", 2), XC_NOMEM);
    CHECK(memcmp(&before, &buf, sizeof(buf)) == 0);
    xc_set_alloc_hook(NULL);
    CHECK_RC(xc_buf_add(&buf, "12", 2), XC_OK);
    CHECK_INT(xc_buf_head(&buf)[0], 3);
    xc_buf_fini(&buf);
}

/* ---- frames ---- */

static void
frame_has_the_known_bytes(void)
{
    unsigned char head[XC_HEADER_SIZE];
    xc_frame_pack(head, XC_DATA, 0x01020304, 0x7f6e5d4c);
    CHECK(memcmp(head, "\x04\x01\x02\x03\x04\x7f\x6e\x5d\x4c", 9) == 0);
    xc_frame frame;
    CHECK_RC(xc_frame_unpack(head, &frame, NULL), XC_OK);
    CHECK(frame.code == XC_DATA && frame.chan == 0x01020304 && frame.size == 0x7f6e5d4c);
    xc_frame_pack(head, XC_HELLO, 0xffffffff, 0);
    CHECK(memcmp(head, "\x08\xff\xff\xff\xff\0\0\0\0", 9) == 0);
    CHECK_RC(xc_frame_unpack(head, &frame, NULL), XC_OK);
    CHECK(frame.chan == 0xffffffff && frame.size == 0);
}

static void
frame_refuses_what_it_must(void)
{
    xc_frame frame = {.code = 99};
    xc_err err;
    for (unsigned code = 0; code < 256; code++) {
        unsigned char head[XC_HEADER_SIZE] = {(unsigned char)code, 0, 0, 0, 1, 0, 0, 0, 5};
        CHECK_RC(xc_frame_unpack(head, &frame, &err), code <= 8 || code == XC_PIECE ? XC_OK : XC_BAD);
    }
    CHECK_INT(frame.code, XC_PIECE);
    for (unsigned size = 0; size < 256; size++) {
        unsigned char begins[XC_HEADER_SIZE] = {XC_LONG, 0, 0, 0, 1, 0, 0, 0, (unsigned char)size};
        unsigned char drops[XC_HEADER_SIZE] = {XC_DROP, 0, 0, 0, 1, 0, 0, 0, (unsigned char)size};
        CHECK_RC(xc_frame_unpack(begins, &frame, &err), size == 13 ? XC_OK : XC_BAD);
        CHECK_RC(xc_frame_unpack(drops, &frame, &err), size == 0 ? XC_OK : XC_BAD);
        CHECK(err.code == XC_BAD && strstr(err.detail, "wrong payload length in") != NULL);
    }
    unsigned char longest[XC_HEADER_SIZE] = {4, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff};
    CHECK_RC(xc_frame_unpack(longest, &frame, &err), XC_OK);
    CHECK_INT(frame.size, XC_MAX_PAYLOAD);
    unsigned char negative[XC_HEADER_SIZE] = {4, 0, 0, 0xab, 1, 0x80, 0, 0, 0};
    CHECK_RC(xc_frame_unpack(negative, &frame, &err), XC_BAD);
    CHECK(err.code == XC_BAD && strstr(err.detail, "length") != NULL);
    CHECK(strstr(err.detail, "04 0000ab01 80000000") != NULL);
    unsigned char unknown[XC_HEADER_SIZE] = {'T', 'r', 'a', 'c', 'e', 'b', 'a', 'c', 'k'};
    CHECK_RC(xc_frame_unpack(unknown, &frame, &err), XC_BAD);
    CHECK(strstr(err.detail, "code") != NULL && strstr(err.detail, "54 72616365") != NULL);
}

static void
long_has_the_known_bytes(void)
{
    unsigned char bytes[XC_LONG_SIZE];
    xc_long_frame message = {.code = XC_DATA, .chan = 0x01020304, .size = UINT64_C(0x10fedcba9876)}, got;
    xc_err err;
    xc_long_pack(bytes, &message);
    CHECK(memcmp(bytes, "\x04\x01\x02\x03\x04\0\0\x10\xfe\xdc\xba\x98\x76", sizeof bytes) == 0);
    CHECK_RC(xc_long_unpack(bytes, &got, &err), XC_OK);
    CHECK(got.code == message.code && got.chan == message.chan && got.size == message.size);
}

static void
credit_has_the_known_bytes(void)
{
    unsigned char bytes[XC_CREDIT_SIZE];
    uint64_t taken = 0, limit = 0;
    xc_credit_pack(bytes, UINT64_C(0x0102030405060708), XC_NO_LIMIT);
    CHECK(memcmp(bytes, "\1\2\3\4\5\6\7\x08\xff\xff\xff\xff\xff\xff\xff\xff", sizeof bytes) == 0);
    xc_credit_unpack(bytes, &taken, &limit);
    CHECK(taken == UINT64_C(0x0102030405060708) && limit == XC_NO_LIMIT);
}

static void
long_refuses_what_it_must(void)
{
    static const uint64_t sizes[] = {1, XC_MAX_LONG, 0, XC_MAX_LONG + 1, UINT64_MAX};
    xc_long_frame message = {.chan = 7}, got;
    unsigned char bytes[XC_LONG_SIZE];
    xc_err err;
    for (unsigned code = 0; code < 256; code++) {
        for (int i = 0; i < 5; i++) {
            message.code = (uint8_t)code;
            message.size = sizes[i];
            xc_long_pack(bytes, &message);
            CHECK_RC(xc_long_unpack(bytes, &got, &err), code <= XC_HELLO && i < 2 ? XC_OK : XC_BAD);
        }
    }
}

/* ---- messages and queues ---- */

static void
msg_has_room(void)
{
    xc_msg *msg = xc_msg_new(XC_DATA, 7, 1000);
    CHECK(msg != NULL && msg->code == XC_DATA && msg->chan == 7 && msg->size == 1000);
    CHECK(msg->next == NULL && !msg->lost && msg->space == NULL && msg->carried == NULL && msg->ids == NULL &&
          msg->n_ids == 0);
    memset(msg->data, 1, 1000);
    msg->carried = xc_alloc(3 * sizeof(*msg->carried));
    msg->ids = xc_alloc(3 * sizeof(*msg->ids));
    xc_msg_free(msg);
    xc_msg_free(NULL);
    msg = xc_msg_new(XC_CLOSE, 0xffffffff, 0);
    CHECK(msg != NULL && msg->data != NULL && msg->chan == 0xffffffff);
    xc_msg_free(msg);
    CHECK(xc_msg_new(XC_DATA, 1, SIZE_MAX) == NULL);
    CHECK(xc_msg_new(XC_DATA, 1, SIZE_MAX - sizeof(xc_msg) + 1) == NULL);
}

static void
queue_is_first_in_first_out(void)
{
    xc_queue queue = {0};
    uint32_t in = 0, out = 0;
    uint32_t seed = 3;
    CHECK(xc_queue_pop(&queue) == NULL);
    while (out < 3000) {
        for (uint32_t n = next_random(&seed) % 4; n > 0; n--) {
            xc_msg *msg = xc_msg_new(XC_DATA, in++, 0);
            CHECK(msg != NULL);
            xc_queue_push(&queue, msg);
        }
        for (uint32_t n = next_random(&seed) % 5; n > 0 && out < in; n--) {
            xc_msg *msg = xc_queue_pop(&queue);
            CHECK(msg != NULL && msg->next == NULL);
            CHECK_INT(msg->chan, out++);
            xc_msg_free(msg);
        }
        CHECK_INT(queue.count, in - out);
        CHECK((queue.head == NULL) == (queue.count == 0));
        if (queue.count == 0) {
            xc_queue moved = queue;
            queue = moved;
            CHECK(queue.tail == NULL && xc_queue_pop(&queue) == NULL);
        }
    }
    for (xc_msg *msg; (msg = xc_queue_pop(&queue)) != NULL;) {
        xc_msg_free(msg);
    }
}

/* What a link does with a frame, with allocation 1, 2, 3... refused until all of it succeeds. */
static xc_status
take_one_in(xc_queue *queue)
{
    xc_buf buf = {0};
    xc_msg *msg = xc_msg_new(XC_DATA, 1, 300);
    xc_status rc = XC_NOMEM;
    if (msg == NULL) {
        return rc;
    }
    msg->carried = xc_alloc(sizeof(*msg->carried));
    if (msg->carried != NULL) {
        memset(msg->data, 9, 300);
        rc = xc_buf_add(&buf, msg->data, 300);
    }
    if (rc == XC_OK) {
        rc = xc_buf_add(&buf, msg->data, 300);
    }
    xc_buf_fini(&buf);
    if (rc != XC_OK) {
        xc_msg_free(msg);
        return rc;
    }
    xc_queue_push(queue, msg);
    return XC_OK;
}

static void
want_of_memory_leaks_nothing(void)
{
    xc_queue queue = {0};
    int allowed = 0;
    xc_set_alloc_hook(check_allow_some);
    for (;; allowed++) {
        atomic_store(&check_allowed, allowed);
        xc_status rc = take_one_in(&queue);
        if (rc == XC_OK) {
            break;
        }
        CHECK_RC(rc, XC_NOMEM);
        CHECK_INT(queue.count, 0);
    }
    xc_set_alloc_hook(NULL);
    CHECK_INT(allowed, 4);
    CHECK_INT(queue.count, 1);
    xc_msg_free(xc_queue_pop(&queue));
}

/* The program closes an fd of ours, and another file gets the number. */
static void
closed_behind_our_back(void)
{
    int ends[2], others[2];
    CHECK(xc_make_pipe(ends));
    xc_fd_own(ends[0]);
    xc_fd_own(ends[1]);
    CHECK(xc_fd_ours(ends[0]) && xc_fd_ours(ends[1]) && xc_fd_ours(-1));
    CHECK_INT(close(ends[0]), 0);
    CHECK(!xc_fd_ours(ends[0]));
    CHECK_INT(pipe(others), 0);
    CHECK(others[0] == ends[0] && !xc_fd_ours(ends[0]));
    CHECK_INT(xc_fd_lift(dup(0)), others[1] + 1); /* what is ours now goes elsewhere */
    CHECK_INT(close(others[1] + 1), 0);
    xc_fd_close(ends[0]); /* is the other's */
    CHECK(fcntl(others[0], F_GETFD) >= 0 && xc_fd_ours(ends[0]));
    CHECK_INT(close(others[0]), 0);
    CHECK_INT(close(others[1]), 0);
    CHECK(xc_make_pipe(others));
    xc_fd_own(others[0]);
    xc_fd_own(others[1]);
    CHECK_INT(close(others[0]), 0);
    CHECK(xc_fd_lift(dup(0)) > others[0]);
    xc_fd_close(others[0]);
    close(others[0] + 2);
    xc_fd_close(others[1]);
    xc_fd_close(ends[1]);
}

static void
stays_the_owner_s(void)
{
    CHECK_INT(check_in_child(closed_behind_our_back), 0);
}

int
main(void)
{
    check_begin("base", 60);
    RUN(statuses_have_names);
    RUN(errors_are_recorded);
    RUN(allocation_can_be_refused);
    RUN(gil_is_noticed);
    RUN(assertion_says_what_failed);
    RUN(low_fds_are_lifted);
    RUN(buf_keeps_bytes_in_order);
    RUN(buf_stays_small);
    RUN(buf_gives_memory_back);
    RUN(buf_survives_want_of_memory);
    RUN(frame_has_the_known_bytes);
    RUN(frame_refuses_what_it_must);
    RUN(long_has_the_known_bytes);
    RUN(credit_has_the_known_bytes);
    RUN(long_refuses_what_it_must);
    RUN(msg_has_room);
    RUN(queue_is_first_in_first_out);
    RUN(want_of_memory_leaks_nothing);
    RUN(stays_the_owner_s);
    return check_end();
}
