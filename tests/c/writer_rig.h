/*
 * A writer over a small pipe, whose other end the test reads; frames to send, and what is to be read of them.
 */
#ifndef WRITER_RIG_H
#define WRITER_RIG_H

#include <fcntl.h>

#include "check_io.h"
#include "wire.h"
#include "xc_writer.h"

enum { PIPE_SIZE = 64 * 1024, BIG = 300 * 1024, SMALL = 100 };

static xc_stream stream;
static xc_writer writer;
static int far; /* the reading end */

/* The pipe is small, so that it is full soon. */
__attribute__((unused)) static void
rig_open(void)
{
    int ends[2];
    xc_err err;
    CHECK_RC(xc_pump_join(&err), XC_OK);
    CHECK_INT(pipe(ends), 0);
    far = ends[0];
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_RC(xc_stream_open(&stream, in, ends[1], &err), XC_OK);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE) >= 0);
    memset(&writer, 0, sizeof writer);
    xc_writer_init(&writer, &stream);
}

__attribute__((unused)) static void
forget_writer(xc_job *job)
{
    xc_pump_forget(&writer.watch, NULL);
    atomic_store((atomic_bool *)job->owner, true);
}

__attribute__((unused)) static void
rig_close(void)
{
    atomic_bool forgotten = false;
    xc_job job = {.run = forget_writer, .owner = &forgotten};
    xc_pump_post(&job);
    AWAIT(atomic_load(&forgotten));
    xc_writer_fini(&writer);
    xc_stream_close(&stream);
    if (far >= 0) {
        close(far);
    }
    xc_pump_leave();
}

/* A frame and what is needed to send it. Lives on its sender's stack or heap. */
struct parcel {
    unsigned char header[XC_HEADER_SIZE];
    unsigned char *payload; /* owned */
    size_t size;
    struct iovec parts[3];
    xc_sending sending;
};

__attribute__((unused)) static void
pack(struct parcel *parcel, unsigned who, unsigned seq, size_t size)
{
    memset(parcel, 0, sizeof *parcel);
    parcel->payload = malloc(size + 1);
    CHECK(parcel->payload != NULL);
    parcel->size = size;
    fill_pattern(parcel->payload, size, who, seq);
    xc_frame_pack(parcel->header, XC_DATA, who, (uint32_t)size);
    parcel->parts[0] = (struct iovec){parcel->header, XC_HEADER_SIZE};
    parcel->parts[1] = (struct iovec){parcel->payload, size / 3};
    parcel->parts[2] = (struct iovec){parcel->payload + size / 3, size - size / 3};
    parcel->sending = (xc_sending){.parts = parcel->parts, .n = 3};
}

__attribute__((unused)) static void
unpack(struct parcel *parcel)
{
    /* Whatever was kept of it was copied. */
    memset(parcel->payload, 0xee, parcel->size);
    free(parcel->payload);
}

/* A frame larger than the pipe, of which a part is out. */
__attribute__((unused)) static void
begin(struct parcel *parcel, unsigned who)
{
    xc_err err;
    for (bool idle = false; !idle;) { /* the pump may have the role a moment longer than its bytes take */
        xc_lock(&writer.mu);
        idle = !writer.writing;
        xc_unlock(&writer.mu);
    }
    pack(parcel, who, 0, BIG);
    CHECK_RC(xc_writer_try(&writer, &parcel->sending, &err), XC_AGAIN);
    CHECK(parcel->sending.mine && parcel->sending.started);
}

__attribute__((unused)) static void
expect_parcel(unsigned who, unsigned seq, size_t size)
{
    xc_frame frame;
    unsigned char *got;
    CHECK(read_frame(far, &frame, &got));
    CHECK_INT(frame.chan, who);
    CHECK_INT(frame.size, size);
    CHECK(has_pattern(got, size, who, seq));
    free(got);
}

__attribute__((unused)) static void
post(unsigned who, unsigned seq, size_t size, xc_status want)
{
    unsigned char frame[XC_HEADER_SIZE + 1000];
    xc_frame_pack(frame, XC_DATA, who, (uint32_t)size);
    fill_pattern(frame + XC_HEADER_SIZE, size, who, seq);
    CHECK_RC(xc_writer_post(&writer, frame, XC_HEADER_SIZE + size), want);
}

__attribute__((unused)) static size_t
waiting(void)
{
    size_t n = 0;
    xc_lock(&writer.mu);
    for (void *const *waiter = (void *const *)writer.waiters; waiter != NULL; waiter = *waiter) {
        n++;
    }
    xc_unlock(&writer.mu);
    return n;
}

#endif
