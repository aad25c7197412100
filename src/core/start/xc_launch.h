/*
 * A worker process that we start: its pipes become a link, the pump watches it and reaps it as soon as it ends. What it
 * writes to stderr is passed on to our stderr, or kept for a thread that asks for it, and the last part is kept for the
 * message that says how it died. Or it is lent our stderr, see xc_lend.h.
 */
#ifndef XC_LAUNCH_H
#define XC_LAUNCH_H

#include "xc_child.h"
#include "xc_lend.h"
#include "xc_link.h"

typedef struct xc_launch xc_launch;

enum {
    XC_STDERR_TAIL = XC_LEND_CHUNK, /* bytes of stderr that are kept for the message */
    XC_STDERR_UNHEARD = 1 << 20     /* bytes that are kept for xc_launch_listen_nogil; the oldest are dropped first */
};

/*
 * Starts the program with SIGINT blocked (a worker unblocks it when it can handle it), and makes the link to it: the
 * caller gets one count of each. With a region in `opts` the process gets its memory as fd 3. If `lent` (taken) lends
 * something, the process gets its file as the next fd and our stderr as the one behind that. `listens`: its stderr is
 * for xc_launch_listen_nogil. On failure nothing is left behind.
 */
xc_status xc_launch_start(const xc_program *program, const xc_link_opts *opts, bool listens, xc_lent *lent,
                          xc_launch **out, xc_link **link, xc_err *err) XC_TAKES_LINK;

/* The same in steps, for a caller that needs the process's pipes for something else than a link: *fd_in is what it
 * writes, *fd_out what it reads, both owned by the caller. Then comes xc_launch_watch, or xc_launch_abandon. */
xc_status xc_launch_spawn(const xc_program *program, xc_launch **out, pid_t *pid, int *fd_in, int *fd_out,
                          xc_err *err) XC_TAKES_PUMP;
/* From now on the pump watches the process. On its thread it calls `over` once, when xc_launch_get_state says
 * `ended`. */
void xc_launch_watch(xc_launch *launch, void (*over)(void *arg), void *arg) XC_TAKES_FORKFDS;
/* Kills the process and frees everything except the two fds. */
void xc_launch_abandon(xc_launch *launch) XC_TAKES_PUMP;

/* One count less. That does not end the process, which is reaped whenever it ends. Takes NULL. */
void xc_launch_release(xc_launch *launch);

typedef struct {
    pid_t pid;
    bool ended;  /* `known`, `status` are final, all of its stderr has been read */
    bool known;  /* false: somebody else took its exit status */
    int status;  /* exit status, or -signal */
    bool passed; /* all that it wrote for our stderr is there */
    bool words;  /* `tail` has its last words, which are on no stderr */
    size_t n_tail;
    char tail[XC_STDERR_TAIL]; /* the end of its stderr so far, as far as we have read it */
} xc_launch_state;

void xc_launch_get_state(xc_launch *launch, xc_launch_state *out) XC_TAKES_LAUNCH;

typedef struct {
    size_t lost; /* bytes before these that were dropped, as nobody asked in time */
    size_t n;
    bool ended;  /* the process has ended, and this is the last that it wrote before */
    bool closed; /* nothing more will come; until then others to whom it gave its stderr may write */
} xc_said;

/*
 * What the process wrote to stderr since the last call, `size` bytes at most. Waits until there is something, or
 * `closed` is true, or `ended` is true and not `knows_end`. XC_OK; XC_TIMEOUT, XC_INTR: nothing was taken. One thread
 * at a time; sleeps without a mutex.
 */
xc_status xc_launch_listen_nogil(xc_launch *launch, bool knows_end, int64_t until, void *into, size_t size,
                                 xc_said *out) XC_HOLDS_NONE;

/* Sends a signal, unless the process has ended. */
void xc_launch_signal(xc_launch *launch, int sig) XC_TAKES_LAUNCH;

/* Sends SIGKILL to an xc_launch; has the type that xc_link_keepalive needs. */
void xc_launch_kill(void *launch) XC_TAKES_LAUNCH;

#endif
