/*
 * A worker process of ours: started on pipes that become a link, watched by the I/O thread, reaped at once. Its stderr
 * passes through to ours, or is kept for somebody who listens, and the end of it is kept for the message that says how
 * it died; or it is lent ours, see xc_lend.h.
 */
#ifndef XC_LAUNCH_H
#define XC_LAUNCH_H

#include "xc_child.h"
#include "xc_lend.h"
#include "xc_link.h"

typedef struct xc_launch xc_launch;

enum {
    XC_STDERR_TAIL = XC_LEND_CHUNK, /* bytes of stderr that are kept for the message */
    XC_STDERR_UNHEARD = 1 << 20     /* bytes that are kept for who listens: the oldest go first */
};

/* Starts the program, with SIGINT blocked (a worker lets it in when it can take it), and makes the link to it: two
 * counts for the caller, one each. With a region in `opts` the process gets its memory as fd 3. On failure nothing is
 * left behind. `listens`: its stderr is for xc_launch_listen_nogil. Where `lent` (taken) is something it gets its file
 * as the next fd, and our stderr as the one behind that. */
xc_status xc_launch_start(const xc_program *program, const xc_link_opts *opts, bool listens, xc_lent *lent,
                          xc_launch **out, xc_link **link, xc_err *err);

/*
 * The same in steps, for who makes something else than a link of the process's pipes: *fd_in is what it writes, *fd_out
 * what it reads, both the caller's. Then xc_launch_watch, or xc_launch_abandon.
 */
xc_status xc_launch_spawn(const xc_program *program, xc_launch **out, pid_t *pid, int *fd_in, int *fd_out, xc_err *err);
/* From now on the I/O thread watches it. `over` is called there, once, when xc_launch_get_state says that it has ended.
 */
void xc_launch_watch(xc_launch *launch, void (*over)(void *arg), void *arg);
/* Kills it, and frees it all but the two fds. */
void xc_launch_abandon(xc_launch *launch);

/* One count less. The process is not ended by it, and is reaped whenever it ends. */
void xc_launch_release(xc_launch *launch);

typedef struct {
    pid_t pid;
    bool ended;  /* `known`, `status` are final, all its stderr has been read */
    bool known;  /* false: somebody else took its status */
    int status;  /* exit status, or -signal */
    bool passed; /* all that it has said on a stderr of ours is where it belongs */
    bool words;  /* `tail` are its last words, which stand in no stderr */
    size_t n_tail;
    char tail[XC_STDERR_TAIL]; /* the end of its stderr so far, of the part that we have seen */
} xc_launch_state;

void xc_launch_get_state(xc_launch *launch, xc_launch_state *out);

typedef struct {
    size_t lost; /* bytes in front of these that nobody listened to in time */
    size_t n;
    bool ended;  /* the process has, and this is the last of what it had said by then */
    bool closed; /* nothing more will come; until then others, to whom it gave its stderr, may go on */
} xc_said;

/*
 * What it has said since the last call, `size` bytes at most; waits until there is something, or
 * `closed` holds, or `ended` unless `knows_end`. XC_OK; XC_TIMEOUT, XC_INTR: nothing was taken. One thread at a time;
 * sleeps without a mutex.
 */
xc_status xc_launch_listen_nogil(xc_launch *launch, bool knows_end, int64_t until, void *into, size_t size,
                                 xc_said *out);

/* Unless it has ended. */
void xc_launch_signal(xc_launch *launch, int sig);

/* SIGKILL to an xc_launch: for xc_link_keepalive. */
void xc_launch_kill(void *launch);

#endif
