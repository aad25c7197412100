/*
 * The writer: frames of many threads never tear, whatever is in between (a full pipe, a signal, a sender that goes
 * away, a frame sent inside another one), what is posted goes out too, and every end wakes whoever waits.
 */
#include <poll.h>
#include <sys/resource.h>

#include "writer_rig.h"

enum { CASE_SECONDS = 10, PROGRAM_SECONDS = 60 };

/* --- the role ---------------------------------------------------------------------------------------------------- */

enum { SENDERS = 8, PARCELS = 40 };

static size_t
size_of(unsigned who, unsigned seq)
{
    static const size_t sizes[] = {1, 2, 50, 4000, 65536 - 9, 65536, 70001, BIG};
    return sizes[(who * 5 + seq) % 8];
}

static void
do_nothing(int sig)
{
    (void)sig;
}

static void *
sender(void *arg)
{
    unsigned who = *(unsigned *)arg;
    for (unsigned seq = 0; seq < PARCELS; seq++) {
        struct parcel parcel;
        xc_err err = {.code = XC_OK};
        pack(&parcel, who, seq, size_of(who, seq));
        xc_status rc = XC_AGAIN;
        if (seq % 2 == 0) {
            rc = xc_writer_try(&writer, &parcel.sending, &err);
        }
        if (rc == XC_AGAIN && seq % 4 == 2) {
            rc = xc_writer_hand_over(&writer, &parcel.sending, &err);
        }
        while (rc == XC_AGAIN || rc == XC_INTR || rc == XC_TIMEOUT) {
            int64_t until = seq % 3 == 0 ? XC_FOREVER : xc_after(seq % 3 * XC_MS / 4);
            rc = xc_writer_send_nogil(&writer, &parcel.sending, until, &err);
        }
        CHECK_RC(rc, XC_OK);
        unpack(&parcel);
    }
    return NULL;
}

static atomic_bool all_read;

/* Every parcel of every sender, each sender's in order, and posts between them. */
static void *
read_parcels(void *arg)
{
    unsigned next[SENDERS + 1] = {0};
    unsigned total = *(unsigned *)arg;
    for (unsigned i = 0; i < total; i++) {
        xc_frame frame;
        unsigned char *got;
        CHECK(read_frame(far, &frame, &got));
        CHECK(frame.chan <= SENDERS);
        unsigned seq = next[frame.chan]++;
        CHECK_INT(frame.size, frame.chan == SENDERS ? SMALL : size_of(frame.chan, seq));
        CHECK(has_pattern(got, frame.size, frame.chan, seq));
        free(got);
    }
    atomic_store(&all_read, true);
    return NULL;
}

/* Senders by the dozen, that also hand frames over, signals that interrupt them, and a "deallocator" that posts small
 * frames all the while. */
static void
frames_never_tear(void)
{
    pthread_t reader, senders[SENDERS];
    unsigned names[SENDERS], total = SENDERS * PARCELS + 200;
    struct sigaction quiet = {.sa_handler = do_nothing};
    CHECK_INT(sigaction(SIGUSR1, &quiet, NULL), 0);
    rig_open();
    atomic_store(&all_read, false);
    CHECK_INT(pthread_create(&reader, NULL, read_parcels, &total), 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        names[i] = i;
        CHECK_INT(pthread_create(&senders[i], NULL, sender, &names[i]), 0);
    }
    for (unsigned seq = 0; seq < 200; seq++) {
        post(SENDERS, seq, SMALL, XC_OK);
        pthread_kill(senders[seq % SENDERS], SIGUSR1);
        if (seq % 8 == 0) {
            check_pause_ms(1);
        }
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        CHECK_INT(pthread_join(senders[i], NULL), 0);
    }
    CHECK_INT(pthread_join(reader, NULL), 0);
    CHECK(atomic_load(&all_read));
    rig_close();
}

/* --- a full pipe ---------------------------------------------------------------------------------------------- */

static void
a_full_pipe_times_out(void)
{
    struct parcel parcel;
    xc_err err;
    rig_open();
    begin(&parcel, 1);
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, xc_after(5 * XC_MS), &err), XC_TIMEOUT);
    CHECK_RC(xc_writer_try(&writer, &parcel.sending, &err), XC_AGAIN);
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, 0, &err), XC_TIMEOUT);
    xc_writer_spill(&writer, &parcel.sending);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    expect_parcel(1, 0, BIG); /* the pump wrote the rest */
    rig_close();
}

/* The rest of a begun frame, a frame that had the role behind that rest but was not begun, and a post: in this order.
 */
static void
spilled_frames_are_written(void)
{
    struct parcel first, second;
    xc_err err;
    rig_open();
    begin(&first, 1);
    xc_writer_spill(&writer, &first.sending);
    pack(&second, 2, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &second.sending, &err), XC_AGAIN);
    CHECK(second.sending.mine && !second.sending.started);
    xc_writer_spill(&writer, &second.sending);
    unpack(&first);
    unpack(&second);
    post(3, 0, SMALL, XC_OK);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, BIG);
    expect_parcel(3, 0, SMALL);
    rig_close();
}

static void *
try_and_spill(void *arg)
{
    struct parcel parcel;
    xc_err err;
    pack(&parcel, 2, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &parcel.sending, &err), XC_AGAIN);
    CHECK(!parcel.sending.mine);
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, xc_after(XC_MS), &err), XC_TIMEOUT);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    return arg;
}

/* A frame that never had the role leaves nothing. */
static void
without_the_role_nothing_is_kept(void)
{
    struct parcel parcel;
    pthread_t other;
    rig_open();
    begin(&parcel, 1);
    CHECK_INT(pthread_create(&other, NULL, try_and_spill, NULL), 0);
    CHECK_INT(pthread_join(other, NULL), 0);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    xc_writer_end(&writer);
    expect_parcel(1, 0, BIG);
    expect_goodbye(far);
    rig_close();
}

/* --- a frame inside another one ------------------------------------------------------------------------------- */

static void *
read_three(void *arg)
{
    check_pause_ms(5);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, BIG);
    expect_parcel(3, 0, SMALL);
    return arg;
}

/* As a signal handler does that sends while its thread is in the middle of a frame. */
static void
a_frame_inside_another(void)
{
    struct parcel outer, inner, last;
    pthread_t reader;
    xc_err err;
    rig_open();
    begin(&outer, 1);
    CHECK_INT(pthread_create(&reader, NULL, read_three, NULL), 0);
    pack(&inner, 2, 0, BIG);
    CHECK_RC(xc_writer_send_nogil(&writer, &inner.sending, XC_FOREVER, &err), XC_OK);
    unpack(&inner);
    CHECK_RC(xc_writer_send_nogil(&writer, &outer.sending, XC_FOREVER, &err), XC_OK);
    unpack(&outer);
    pack(&last, 3, 0, SMALL);
    CHECK_RC(xc_writer_send_nogil(&writer, &last.sending, XC_FOREVER, &err), XC_OK);
    unpack(&last);
    CHECK_INT(pthread_join(reader, NULL), 0);
    rig_close();
}

/* The same where the inner frame cannot finish either. */
static void
both_are_given_up(void)
{
    struct parcel outer, inner;
    xc_err err;
    rig_open();
    begin(&outer, 1);
    pack(&inner, 2, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &inner.sending, &err), XC_AGAIN);
    CHECK(inner.sending.mine && !outer.sending.mine);
    xc_writer_spill(&writer, &inner.sending);
    xc_writer_spill(&writer, &outer.sending);
    unpack(&outer);
    unpack(&inner);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, BIG);
    rig_close();
}

/* --- ends ----------------------------------------------------------------------------------------------------- */

struct refused {
    pthread_t thread;
    xc_status rc;
    xc_err err;
};

static void *
wait_for_refusal(void *arg)
{
    struct refused *refused = arg;
    struct parcel parcel;
    pack(&parcel, 7, 0, SMALL);
    refused->rc = xc_writer_send_nogil(&writer, &parcel.sending, XC_FOREVER, &refused->err);
    CHECK(!parcel.sending.mine);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    return NULL;
}

enum { WAITERS = 4 };

static void
start_waiters(struct refused *refused)
{
    for (int i = 0; i < WAITERS; i++) {
        CHECK_INT(pthread_create(&refused[i].thread, NULL, wait_for_refusal, &refused[i]), 0);
    }
    AWAIT(waiting() == WAITERS);
}

static void
join_waiters(struct refused *refused, xc_status want)
{
    alarm(CASE_SECONDS);
    for (int i = 0; i < WAITERS; i++) {
        CHECK_INT(pthread_join(refused[i].thread, NULL), 0);
        CHECK_RC(refused[i].rc, want);
        CHECK_RC(refused[i].err.code, want);
    }
    alarm(PROGRAM_SECONDS);
}

/* What was taken before goes out, then the pipe ends. All who wait for the role are refused, not the first one only. */
static void
end_writes_first(void)
{
    struct refused refused[WAITERS];
    struct parcel parcel, late;
    xc_err err;
    rig_open();
    begin(&parcel, 1);
    post(2, 0, SMALL, XC_OK);
    start_waiters(refused);
    xc_writer_end(&writer);
    xc_writer_end(&writer);
    join_waiters(refused, XC_CLOSED);
    post(3, 0, SMALL, XC_CLOSED);
    pack(&late, 4, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &late.sending, &err), XC_CLOSED);
    CHECK_RC(xc_writer_send_nogil(&writer, &late.sending, XC_FOREVER, &err), XC_CLOSED);
    unpack(&late);
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, xc_after(XC_MS), &err), XC_TIMEOUT);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, SMALL);
    expect_goodbye(far);
    rig_close();
}

static void
an_idle_end_is_at_once(void)
{
    rig_open();
    xc_writer_end(&writer);
    expect_goodbye(far);
    xc_lock_writer(&writer.mu); /* the pump closes the fd with it held */
    CHECK(writer.closed && stream.out < 0);
    xc_unlock_writer(&writer.mu);
    rig_close();
}

static void *
send_big(void *arg)
{
    struct refused *refused = arg;
    struct parcel parcel;
    pack(&parcel, 1, 0, BIG);
    refused->rc = xc_writer_send_nogil(&writer, &parcel.sending, XC_FOREVER, &refused->err);
    unpack(&parcel);
    return NULL;
}

/* One thread blocked in the middle of a frame, others in line, a post in the outbox: all are told why. */
static void
break_wakes_everybody(void)
{
    struct refused blocked, refused[WAITERS];
    xc_err why, err;
    alarm(CASE_SECONDS);
    rig_open();
    CHECK_INT(pthread_create(&blocked.thread, NULL, send_big, &blocked), 0);
    AWAIT(waiting() == 1);
    for (int i = 0; i < WAITERS; i++) {
        CHECK_INT(pthread_create(&refused[i].thread, NULL, wait_for_refusal, &refused[i]), 0);
    }
    AWAIT(waiting() == WAITERS + 1);
    post(2, 0, SMALL, XC_OK);
    (void)xc_failf(&why, XC_EOF, "read", "the far end is gone");
    xc_writer_break(&writer, &why);
    (void)xc_fail(&err, XC_BAD, 0, "a later reason, which does not count");
    xc_writer_break(&writer, &err);
    CHECK_INT(pthread_join(blocked.thread, NULL), 0);
    CHECK_RC(blocked.rc, XC_EOF);
    CHECK(strcmp(blocked.err.detail, "the far end is gone") == 0);
    join_waiters(refused, XC_EOF);
    post(3, 0, SMALL, XC_EOF);
    CHECK(writer.closed);
    CHECK_INT(xc_buf_size(&writer.flight) + xc_buf_size(&writer.outbox), 0);
    rig_close();
}

/* The same where a sender went away in the middle: what it left is dropped. */
static void
break_drops_leftovers(void)
{
    struct parcel parcel;
    xc_err why;
    rig_open();
    begin(&parcel, 1);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    (void)xc_fail(&why, XC_EOF, 0, "read");
    xc_writer_break(&writer, &why);
    CHECK(writer.closed);
    rig_close();
}

static void
nobody_reads(void)
{
    struct parcel parcel;
    xc_err err;
    rig_open();
    close(far);
    far = -1;
    pack(&parcel, 1, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &parcel.sending, &err), XC_EOF);
    CHECK_INT(err.sys_errno, EPIPE);
    CHECK(!parcel.sending.mine);
    unpack(&parcel);
    pack(&parcel, 1, 0, SMALL);
    err.code = XC_OK;
    CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, XC_FOREVER, &err), XC_EOF);
    CHECK_INT(err.sys_errno, EPIPE);
    unpack(&parcel);
    post(1, 0, SMALL, XC_EOF);
    CHECK(writer.closed);
    rig_close();
}

/* The reader goes away while one thread waits for room and others for the role. */
static void
the_reader_goes_away(void)
{
    struct refused blocked, refused[WAITERS];
    alarm(CASE_SECONDS);
    rig_open();
    CHECK_INT(pthread_create(&blocked.thread, NULL, send_big, &blocked), 0);
    AWAIT(waiting() == 1);
    for (int i = 0; i < WAITERS; i++) {
        CHECK_INT(pthread_create(&refused[i].thread, NULL, wait_for_refusal, &refused[i]), 0);
    }
    AWAIT(waiting() == WAITERS + 1);
    close(far);
    far = -1;
    CHECK_INT(pthread_join(blocked.thread, NULL), 0);
    CHECK_RC(blocked.rc, XC_EOF);
    join_waiters(refused, XC_EOF);
    rig_close();
}

/* Only the pump has something to write when the reader goes away. */
static void
the_pump_meets_the_end(void)
{
    struct parcel parcel;
    rig_open();
    begin(&parcel, 1);
    xc_writer_spill(&writer, &parcel.sending);
    unpack(&parcel);
    close(far);
    far = -1;
    for (bool closed = false; !closed;) {
        check_pause_ms(1);
        xc_lock(&writer.mu);
        closed = writer.closed;
        xc_unlock(&writer.mu);
    }
    post(1, 0, SMALL, XC_EOF);
    rig_close();
}

/* --- want of memory ------------------------------------------------------------------------------------------- */

static void
spilled_without_memory(void)
{
    struct parcel parcel;
    xc_err err;
    rig_open();
    begin(&parcel, 2);
    xc_set_alloc_hook(check_allow_some);
    atomic_store(&check_allowed, 0);
    xc_writer_spill(&writer, &parcel.sending);
    xc_set_alloc_hook(NULL);
    unpack(&parcel);
    /* Half a frame is out and its rest is lost: nothing may follow it. */
    pack(&parcel, 3, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &parcel.sending, &err), XC_NOMEM);
    unpack(&parcel);
    post(3, 0, SMALL, XC_NOMEM);
    CHECK(writer.closed);
    rig_close();
}

/* Somebody waits for what is lost: the connection ends, and says why, once what was begun before is out or broken off.
 */
static void
posted_without_memory(void)
{
    for (int busy = 0; busy < 2; busy++) {
        struct parcel parcel, next;
        xc_err err;
        rig_open();
        if (busy) {
            begin(&parcel, 1);
        }
        CHECK(!xc_writer_failed_here(&writer, &err));
        xc_set_alloc_hook(check_allow_some);
        atomic_store(&check_allowed, 0);
        post(2, 0, SMALL, XC_NOMEM);
        xc_set_alloc_hook(NULL);
        CHECK(xc_writer_failed_here(&writer, &err));
        CHECK(strcmp(err.detail, "no memory for a frame") == 0);
        if (busy) {
            CHECK_RC(xc_writer_send_nogil(&writer, &parcel.sending, XC_FOREVER, &err), XC_NOMEM);
            unpack(&parcel);
        }
        CHECK(writer.closed);
        pack(&next, 3, 0, SMALL);
        CHECK_RC(xc_writer_try(&writer, &next.sending, &err), XC_NOMEM);
        unpack(&next);
        post(3, 0, SMALL, XC_NOMEM);
        rig_close();
    }
}

/* --- order and room ------------------------------------------------------------------------------------------- */

static void *
read_late(void *arg)
{
    (void)arg;
    check_pause_ms(50);
    expect_parcel(1, 0, BIG);
    expect_parcel(2, 0, SMALL);
    expect_parcel(3, 0, SMALL);
    return NULL;
}

/* A frame does not overtake what was posted while the rest of another one was still to be written. */
static void
what_was_posted_goes_first(void)
{
    struct parcel first, last;
    pthread_t reader;
    xc_err err;
    rig_open();
    pack(&first, 1, 0, BIG);
    pack(&last, 3, 0, SMALL);
    CHECK_RC(xc_writer_try(&writer, &first.sending, &err), XC_AGAIN);
    xc_writer_spill(&writer, &first.sending);
    post(2, 0, SMALL, XC_OK);
    CHECK_INT(pthread_create(&reader, NULL, read_late, NULL), 0);
    CHECK_RC(xc_writer_send_nogil(&writer, &last.sending, XC_FOREVER, &err), XC_OK);
    pthread_join(reader, NULL);
    unpack(&first);
    unpack(&last);
    rig_close();
}

static void
note_room(xc_job *job)
{
    atomic_fetch_add((atomic_int *)job->owner, 1);
}

/* Whoever waits for room is told when all is written, and when nothing ever will be. */
static void
room_is_told(void)
{
    enum { FRAMES = XC_WRITER_MUCH / 1000 + 200 };
    for (int broken = 0; broken < 2; broken++) {
        atomic_int told = 0;
        xc_job jobs[2] = {{.run = note_room, .owner = &told}, {.run = note_room, .owner = &told}};
        xc_err why = {.code = XC_EOF, .step = "test"};
        rig_open();
        CHECK(!xc_writer_await_room(&writer, &jobs[0]));
        for (unsigned i = 0; i < FRAMES; i++) {
            post(1, i, 1000, XC_OK);
        }
        AWAIT(xc_writer_await_room(&writer, &jobs[0])); /* what the pump has in hand just now does not count */
        AWAIT(xc_writer_await_room(&writer, &jobs[1]));
        for (unsigned i = 0; i < 100; i++) {
            expect_parcel(1, i, 1000);
        }
        check_pause_ms(20);
        CHECK_INT(atomic_load(&told), 0);
        if (broken) {
            xc_writer_break(&writer, &why);
        }
        for (unsigned i = 100; !broken && i < FRAMES; i++) {
            expect_parcel(1, i, 1000);
        }
        AWAIT(atomic_load(&told) == 2);
        CHECK(!xc_writer_await_room(&writer, &jobs[0]));
        rig_close();
    }
}

int
main(void)
{
    check_io_begin("writer", PROGRAM_SECONDS);
    RUN_IO(frames_never_tear);
    RUN_IO(a_full_pipe_times_out);
    RUN_IO(spilled_frames_are_written);
    RUN_IO(without_the_role_nothing_is_kept);
    RUN_IO(a_frame_inside_another);
    RUN_IO(both_are_given_up);
    RUN_IO(end_writes_first);
    RUN_IO(an_idle_end_is_at_once);
    RUN_IO(break_wakes_everybody);
    RUN_IO(break_drops_leftovers);
    RUN_IO(nobody_reads);
    RUN_IO(the_reader_goes_away);
    RUN_IO(the_pump_meets_the_end);
    RUN_IO(spilled_without_memory);
    RUN_IO(posted_without_memory);
    RUN_IO(what_was_posted_goes_first);
    RUN_IO(room_is_told);
    return check_end();
}
