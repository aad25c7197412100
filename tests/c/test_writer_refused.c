/*
 * Nobody who comes to the line after the end of the connection waits there: nobody would wake him.
 */
#include <signal.h>

#include "writer_rig.h"

enum { LARGE = 3 * XC_PIECE_SIZE };

static atomic_bool held, let_go;

static void
hold(int number)
{
    (void)number;
    atomic_store(&held, true);
    while (!atomic_load(&let_go)) {
        check_pause_ms(1);
    }
}

static void *
stand_in_line(void *arg)
{
    struct parcel *parcel = arg;
    xc_err err;
    xc_status rc;
    do {
        rc = xc_writer_send_nogil(&writer, &parcel->sending, XC_FOREVER, &err);
    } while (rc == XC_INTR);
    CHECK_RC(rc, XC_EOF);
    return NULL;
}

static bool
somebody_stands_in_line(void)
{
    xc_lock(&writer.mu);
    bool stands = writer.waiters != NULL;
    xc_unlock(&writer.mu);
    return stands;
}

/* Its first frame is out, and nothing of the second. */
static void
send_first_frame(xc_long_sending *sending)
{
    unsigned char bytes[4096];
    xc_err err;
    do {
        CHECK_RC(xc_writer_send_long_nogil(&writer, sending, 1, &err), XC_TIMEOUT);
        while (read(far, bytes, sizeof bytes) > 0) {
        }
    } while (sending->frame.n > 0);
}

/* Others have been woken by the end, but not left the line yet, when a long message comes to its next piece. It lets
 * those who stand there go first. */
static void
the_next_piece_after_the_end(void)
{
    struct parcel has_role, in_line;
    unsigned char *payload = calloc(1, LARGE);
    struct iovec room[2] = {{NULL, 0}, {payload, LARGE}};
    xc_long_frame message = {.code = XC_DATA, .chan = 1, .size = LARGE};
    xc_long_sending sending;
    pthread_t thread;
    xc_err err, why;
    struct sigaction action = {.sa_handler = hold};
    CHECK(payload != NULL);
    rig_open();
    CHECK_INT(fcntl(far, F_SETFL, O_NONBLOCK), 0);
    xc_long_begin(&sending, &message, room + 1);
    send_first_frame(&sending);
    begin(&has_role, 2);
    pack(&in_line, 3, 0, SMALL);
    CHECK_INT(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_INT(pthread_create(&thread, NULL, stand_in_line, &in_line), 0);
    AWAIT(somebody_stands_in_line());
    CHECK_INT(pthread_kill(thread, SIGUSR1), 0);
    AWAIT(atomic_load(&held));
    (void)xc_fail(&why, XC_EOF, 0, "read");
    xc_writer_break(&writer, &why);
    xc_writer_spill(&writer, &has_role.sending);
    CHECK(somebody_stands_in_line());
    CHECK_RC(xc_writer_send_long_nogil(&writer, &sending, xc_after(3 * XC_S), &err), XC_EOF);
    CHECK(!xc_writer_drop(&writer, &sending));
    atomic_store(&let_go, true);
    CHECK_INT(pthread_join(thread, NULL), 0);
    unpack(&has_role);
    unpack(&in_line);
    free(payload);
    rig_close();
}

int
main(void)
{
    check_io_begin("writer_refused", 60);
    RUN_IO(the_next_piece_after_the_end);
    return check_end();
}
