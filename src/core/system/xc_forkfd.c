#include "xc_forkfd.h"

#include <pthread.h>
#include <unistd.h>

static struct {
    xc_mutex mu;
    int *fds; /* mu: owned array */
    size_t n, cap;
} list;

static pthread_once_t once = PTHREAD_ONCE_INIT;

XC_ANNOTATE(no_thread_safety_analysis)
static void
before_fork(void)
{
    xc_lock(&list.mu);
}

XC_ANNOTATE(no_thread_safety_analysis)
static void
after_fork_parent(void)
{
    xc_unlock(&list.mu);
}

XC_ANNOTATE(no_thread_safety_analysis)
static void
after_fork_child(void)
{
    for (size_t i = 0; i < list.n; i++) {
        xc_fd_close(list.fds[i]);
    }
    list.n = 0;
    xc_unlock_in_child(&list.mu);
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
    xc_status rc = XC_OK;
    (void)pthread_once(&once, setup);
    xc_fd_own(fd);
    xc_lock(&list.mu);
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
    xc_unlock(&list.mu);
    return rc;
}

void
xc_forkfd_remove(int fd)
{
    if (fd < 0) {
        return;
    }
    xc_lock(&list.mu);
    for (size_t i = 0; i < list.n; i++) {
        if (list.fds[i] == fd) {
            list.fds[i] = list.fds[--list.n];
            break;
        }
    }
    xc_unlock(&list.mu);
}
