/*
 * Processes: start one on pipes, know when and how it ended, end it.
 * Nothing here watches by itself: whoever owns the child hands its fds to the I/O thread.
 */
#ifndef XC_CHILD_H
#define XC_CHILD_H

#include <sys/types.h>

#include "xc_program.h"
#include "xc_sync.h"

typedef struct {
    pid_t pid;   /* 0: never started */
    int pidfd;   /* owned; readable once the process has ended; -1: none to be had, ask with xc_child_reap */
    bool reaped; /* the fields below are final */
    bool known;  /* false: somebody else took the status (SIGCHLD ignored, a stray waitpid): it is unknown */
    int status;  /* exit status, or -signal */
} xc_child;

/* The parent's ends of the child's three standard streams, all close-on-exec. */
typedef struct {
    int in;  /* write end of its stdin */
    int out; /* read end of its stdout */
    int err; /* read end of its stderr; -1: that is no pipe of ours */
} xc_child_pipes;

enum { XC_CHILD_KEEPS = 3 };

/* What a child gets beside its pipes; borrowed. */
typedef struct {
    int err;                  /* in place of its stderr's pipe; -1: nothing */
    int keep[XC_CHILD_KEEPS]; /* its fds from 3 on; the first -1 ends them */
} xc_child_fds;

/*
 * Starts the program with pipes for its standard streams, every other fd closed, no signal blocked, SIGPIPE and SIGXFSZ
 * at default, directory inherited; it stays in the caller's process group. Returns once it has exec'd. On failure
 * nothing is left behind and *err names the step: "start a process" with errno of execve and argv[0] in detail, "make a
 * pipe" (EMFILE), "fork". May be called with or without the GIL; it blocks for the few hundred microseconds of vfork
 * and exec.
 */
xc_status xc_child_start(xc_child *child, const xc_program *program, xc_child_pipes *pipes, xc_err *err);

/* The same with SIGINT blocked over there: a Ctrl-C during its start waits until the program lets it in. */
xc_status xc_child_start_shielded(xc_child *child, const xc_program *program, const xc_child_fds *fds,
                                  xc_child_pipes *pipes, xc_err *err);

/* Never blocks. XC_OK: it has ended and `reaped`, `known`, `status` say how. XC_AGAIN: it lives. */
xc_status xc_child_reap(xc_child *child);

/* Sends a signal unless it has been reaped; through the pidfd where there is one, so that it cannot hit a stranger. */
void xc_child_signal(xc_child *child, int sig);

/* Closes the pidfd. Does not wait and does not kill. */
void xc_child_fini(xc_child *child);

#endif
