/*
 * Processes: start one on pipes, learn when and how it ended, end it. Nothing here watches the child: its owner gives
 * the fds to the pump.
 */
#ifndef XC_CHILD_H
#define XC_CHILD_H

#include <sys/types.h>

#include "xc_program.h"
#include "xc_sync.h"

typedef struct {
    pid_t pid;   /* 0: never started */
    int pidfd;   /* owned; readable once the process has ended; -1: there is none, poll with xc_child_reap */
    bool reaped; /* the fields below are final */
    bool known;  /* false: somebody else took the exit status (SIGCHLD ignored, a waitpid of the program) */
    int status;  /* exit status, or -signal */
} xc_child;

/* The parent's ends of the child's three standard streams, all close-on-exec. */
typedef struct {
    int in;  /* write end of its stdin */
    int out; /* read end of its stdout */
    int err; /* read end of its stderr; -1: its stderr is no pipe */
} xc_child_pipes;

enum { XC_CHILD_KEEPS = 3 };

/* What a child gets besides its pipes; borrowed. */
typedef struct {
    int err;                  /* becomes its fd 2; -1: that is a pipe */
    int keep[XC_CHILD_KEEPS]; /* become its fds 3, 4, ...; the first -1 ends the list */
} xc_child_fds;

/*
 * Starts the program with pipes for its standard streams, every other fd closed, no signal blocked, SIGPIPE and SIGXFSZ
 * at default, directory inherited; it stays in the caller's process group. Returns once it has exec'd. On failure
 * nothing is left behind and *err names the step: "start a process" with errno of execve and argv[0] in detail, "make a
 * pipe" (EMFILE), "fork". May be called with or without the GIL; it blocks for the few hundred microseconds of vfork
 * and exec.
 */
xc_status xc_child_start(xc_child *child, const xc_program *program, xc_child_pipes *pipes, xc_err *err);

/* The same, but the child starts with SIGINT blocked: a Ctrl-C during its start waits until the program unblocks it. */
xc_status xc_child_start_shielded(xc_child *child, const xc_program *program, const xc_child_fds *fds,
                                  xc_child_pipes *pipes, xc_err *err);

/* Never blocks. XC_OK: it has ended and `reaped`, `known`, `status` say how. XC_AGAIN: it lives. */
xc_status xc_child_reap(xc_child *child);

/* Sends a signal unless the child has been reaped; through the pidfd where there is one, so that no other process with
 * the same pid is hit. */
void xc_child_signal(xc_child *child, int sig);

/* Closes the pidfd. Does not wait and does not kill. */
void xc_child_fini(xc_child *child);

#endif
