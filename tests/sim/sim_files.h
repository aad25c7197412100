/*
 * What sim_files.c and sim_poll.c share: the table of fds.
 */
#ifndef SIM_FILES_H
#define SIM_FILES_H

#include <sys/epoll.h>

#include "sim.h"

enum { WATCHES = 16 };

typedef struct {
    int fd;
    struct epoll_event event;
} watch;

typedef struct {
    enum { FREE, PIPE, EVENT, EPOLL } kind;
    sim_process *owner;
    bool inherited;     /* its owner had it from birth */
    sim_pipe *in, *out; /* of a pipe's end one is NULL; of a socket none */
    uint64_t count;     /* of an eventfd */
    watch watches[WATCHES];
    int n_watches;
} file;

/* NULL: there is no such fd, errno is EBADF. */
file *sim_file_of(int fd);
int sim_new_fd(int kind, sim_process *owner);
/* POLLIN and so on, as they are now. */
short sim_ready_events(int fd);

#endif
