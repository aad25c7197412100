#include "xc_forkfd.h"

#include <pthread.h>
#include <unistd.h>

static struct {
    xc_mutex mu;
    int *fds XC_GUARDED(forkfds); /* owned array */
    size_t n XC_GUARDED(forkfds);
    size_t cap XC_GUARDED(forkfds);
} list;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
before_fork(void) XC_LOCKS(xc_forkfds_mu, list.mu)
{
    xc_lock_forkfds(&list.mu);
}

static void
after_fork_parent(void) XC_UNLOCKS(xc_forkfds_mu, list.mu)
{
    xc_unlock_forkfds(&list.mu);
}

static void
after_fork_child(void) XC_UNLOCKS(xc_forkfds_mu, list.mu)
{
    for (size_t i = 0; i < list.n; i++) {
        xc_fd_close(list.fds[i]);
    }
    list.n = 0;
    xc_unlock_forkfds_in_child(&list.mu);
}

static void
setup(void)
{
    xc_mutex_init(&list.mu);
    xc_sync_setup();
    (void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

xc_status
xc_forkfd_add(int fd)
{
    XC_ASSERT(fd >= 0);
    xc_status rc = XC_OK;
    (void)pthread_once(&once, setup);
    xc_fd_own(fd);
    xc_lock_forkfds(&list.mu);
    if (list.n == list.cap) {
        size_t cap = list.cap == 0 ? 16 : list.cap * 2;
        int *fds = xc_realloc(list.fds, cap * sizeof *fds);
        if (fds == NULL) {
            rc = XC_NOMEM;
        }
        else {
            list.fds = fds;
            list.cap = cap;
        }
    }
    if (rc == XC_OK) {
        list.fds[list.n++] = fd;
    }
    xc_unlock_forkfds(&list.mu);
    return rc;
}

void
xc_forkfd_remove(int fd)
{
    if (fd < 0) {
        return;
    }
    xc_lock_forkfds(&list.mu);
    for (size_t i = 0; i < list.n; i++) {
        if (list.fds[i] == fd) {
            list.fds[i] = list.fds[--list.n];
            break;
        }
    }
    xc_unlock_forkfds(&list.mu);
}
