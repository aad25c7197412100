/*
 * Invariant: the pump holds a count until the process is reaped and its stderr is closed or no longer of use. So a
 * worker never stays a zombie, whoever forgets it.
 *
 * Our own stderr may be a pipe that nobody empties, and the pump must not block on it. If our stderr takes no more, the
 * pump tries again a little later; meanwhile it does not read from the worker, which waits as if it wrote to our stderr
 * itself. A thread that asks for the worker's stderr (`listens`) must delay neither the worker nor the pump: the newest
 * bytes are kept for it, the dropped ones counted.
 */
#include "xc_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "xc_forkfd.h"
#include "xc_stderr.h"
#include "xc_trace.h"

enum {
    CHUNK = 4096,
    CHUNKS = 16,       /* in one turn, so that one noisy worker does not delay the others */
    LAST_CHUNKS = 512, /* of a process that has ended: more than a pipe holds */
};
#define RETRY_NS (20 * XC_MS) /* until a full stderr of ours, or a process without a pidfd, is looked at again */

struct xc_launch {
    atomic_uint refs;
    uint32_t forks;                           /* const */
    void (*over)(void *arg) XC_OF_ROLE(pump); /* NULL once it was called */
    void *arg XC_OF_ROLE(pump);
    xc_mutex mu;
    xc_child child XC_GUARDED(launch);
    bool ended XC_GUARDED(launch);
    xc_buf tail XC_GUARDED(launch);                /* of its stderr; XC_STDERR_TAIL at most */
    bool listens;                                  /* const */
    bool closed XC_GUARDED(launch);                /* err_fd is closed */
    xc_buf said XC_GUARDED(launch);                /* for xc_launch_listen_nogil; XC_STDERR_UNHEARD at most */
    size_t lost XC_GUARDED(launch);                /* bytes before these that were dropped */
    xc_bell *listener XC_GUARDED(launch);          /* borrowed from the thread in xc_launch_listen_nogil; NULL: none */
    xc_lent lent;                                  /* const from the start on, except the contents of its file */
    atomic_bool passing;                           /* the pump's thread has read something that is not passed on yet */
    int err_fd;                                    /* the pump's thread, closed under mu; -1 when closed */
    unsigned char pending[CHUNK] XC_OF_ROLE(pump); /* read from err_fd, not passed on yet */
    size_t n_pending XC_OF_ROLE(pump);
    xc_watch exit_watch XC_OF_ROLE(pump);
    xc_watch err_watch XC_OF_ROLE(pump);
    xc_timer retry XC_OF_ROLE(pump);
    xc_job start;
};

void
xc_launch_release(xc_launch *launch)
{
    XC_ASSERT(launch == NULL || atomic_load(&launch->refs) > 0);
    if (launch == NULL || atomic_fetch_sub(&launch->refs, 1) != 1 || launch->forks != xc_fork_count()) {
        return;
    }
    xc_buf_fini(&launch->tail);
    xc_buf_fini(&launch->said);
    xc_lent_close(&launch->lent);
    xc_mutex_fini(&launch->mu);
    xc_free(launch);
}

/* --- stderr --------------------------------------------------------------------------------------------------- */

static void
ring_listener_locked(xc_launch *launch) XC_NEEDS(launch)
{
    if (launch->listener != NULL) {
        xc_bell_ring(launch->listener);
    }
}

static void
keep_said_locked(xc_launch *launch, const unsigned char *bytes, size_t n) XC_NEEDS(launch)
{
    size_t over = xc_buf_size(&launch->said) + n;
    over = over > XC_STDERR_UNHEARD ? over - XC_STDERR_UNHEARD : 0;
    xc_buf_take(&launch->said, over);
    launch->lost += over;
    if (xc_buf_add(&launch->said, bytes, n) != XC_OK) {
        launch->lost += xc_buf_size(&launch->said) + n;
        xc_buf_take(&launch->said, xc_buf_size(&launch->said));
    }
    ring_listener_locked(launch);
}

static void
keep(xc_launch *launch, const unsigned char *bytes, size_t n) XC_TAKES_LAUNCH
{
    xc_lock_launch(&launch->mu);
    if (xc_buf_add(&launch->tail, bytes, n) == XC_OK && xc_buf_size(&launch->tail) > XC_STDERR_TAIL) {
        xc_buf_take(&launch->tail, xc_buf_size(&launch->tail) - XC_STDERR_TAIL);
    }
    if (launch->listens) {
        keep_said_locked(launch, bytes, n);
    }
    xc_unlock_launch(&launch->mu);
}

/* False: our stderr takes nothing now. */
static bool
pass_on(xc_launch *launch) XC_NEEDS_ROLE(pump)
{
    while (launch->n_pending > 0) {
        size_t put;
        xc_status rc = xc_stderr_write(launch->pending, launch->n_pending, &put);
        if (rc == XC_AGAIN) {
            return false;
        }
        if (rc != XC_OK) {
            put = launch->n_pending;
        }
        launch->n_pending -= put;
        memmove(launch->pending, launch->pending + put, launch->n_pending);
    }
    return true;
}

static void
close_stderr(xc_launch *launch) XC_NEEDS_ROLE(pump) XC_TAKES_LAUNCH
{
    if (launch->err_fd >= 0) {
        xc_pump_forget(&launch->err_watch, NULL);
        xc_forkfd_remove(launch->err_fd);
        xc_lock_launch(&launch->mu);
        xc_fd_close(launch->err_fd);
        launch->err_fd = -1;
        launch->closed = true;
        ring_listener_locked(launch);
        xc_unlock_launch(&launch->mu);
    }
}

/* Reads what is there. The tail is kept in any case. What our stderr cannot take now waits; with `all` (the process has
 * ended) it is not passed on, so that its last words are known. */
static void
read_stderr(xc_launch *launch, bool all) XC_NEEDS_ROLE(pump) XC_TAKES_LAUNCH
{
    atomic_store(&launch->passing, true);
    for (int i = 0; launch->err_fd >= 0 && i < (all ? LAST_CHUNKS : CHUNKS); i++) {
        unsigned char chunk[CHUNK];
        bool passed = pass_on(launch);
        if (!passed && !all) {
            xc_pump_forget(&launch->err_watch, NULL);
            xc_pump_set(&launch->retry, xc_after(RETRY_NS));
            return;
        }
        ssize_t n = xc_fd_ours(launch->err_fd) ? read(launch->err_fd, chunk, sizeof chunk) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n <= 0) {
            close_stderr(launch);
            break;
        }
        keep(launch, chunk, (size_t)n);
        if (passed && !launch->listens) {
            memcpy(launch->pending, chunk, (size_t)n);
            launch->n_pending = (size_t)n;
        }
    }
    bool passed = pass_on(launch);
    atomic_store(&launch->passing, !passed);
    if (!passed && launch->err_fd >= 0) {
        xc_pump_set(&launch->retry, xc_after(RETRY_NS)); /* it may have been the last, so that no event comes */
    }
}

/* The process ended before it served: passes on what it has printed. */
static void
pass_on_unserved(const xc_launch *launch)
{
    unsigned char chunk[XC_LEND_CHUNK];
    size_t n, put, at = 0;
    while (!xc_lent_taken(&launch->lent) && (n = xc_lent_read(&launch->lent, at, chunk)) > 0 &&
           xc_stderr_write(chunk, n, &put) == XC_OK) {
        at += put;
    }
}

/* If the process is reaped and its stderr closed, the pump has nothing more to do with it. A grandchild that shares the
 * stderr may still write: that is passed on until the grandchild ends, too. */
static void
release_if_done(xc_launch *launch) XC_NEEDS_ROLE(pump) XC_TAKES_PUMP
{
    if (launch->over == NULL && launch->err_fd < 0) {
        xc_pump_forget(NULL, &launch->retry);
        xc_launch_release(launch);
        xc_pump_leave();
    }
}

static void
stderr_ready(xc_watch *watch, short revents)
{
    XC_HAS_ROLE(pump);
    (void)revents;
    read_stderr(watch->owner, false);
    release_if_done(watch->owner);
}

/* --- the end of the process ----------------------------------------------------------------------------------- */

static void
trace_end(const xc_child *child)
{
    if (child->known) {
        xc_trace("process %ld ended: %d", (long)child->pid, child->status);
    }
    else {
        xc_trace("process %ld ended: unknown", (long)child->pid);
    }
}

static void
poll_for_end(xc_launch *launch) XC_NEEDS_ROLE(pump) XC_TAKES_LAUNCH
{
    xc_lock_launch(&launch->mu);
    bool before = launch->ended;
    bool reaped = !before && xc_child_reap(&launch->child) == XC_OK;
    xc_unlock_launch(&launch->mu);
    if (!reaped) {
        if (!before && launch->exit_watch.fd < 0) {
            xc_pump_set(&launch->retry, xc_after(RETRY_NS));
        }
        return;
    }
    xc_pump_forget(&launch->exit_watch, NULL);
    if (xc_tracing()) {
        trace_end(&launch->child);
    }
    read_stderr(launch, true);
    pass_on_unserved(launch);
    xc_lock_launch(&launch->mu);
    xc_forkfd_remove(launch->child.pidfd);
    xc_child_fini(&launch->child);
    launch->ended = true;
    ring_listener_locked(launch);
    xc_unlock_launch(&launch->mu);
    void (*over)(void *arg) = launch->over;
    launch->over = NULL;
    over(launch->arg);
}

static void
exited(xc_watch *watch, short revents)
{
    XC_HAS_ROLE(pump);
    xc_launch *launch = watch->owner;
    (void)revents;
    if (!xc_fd_ours(watch->fd)) {
        xc_pump_forget(watch, NULL);
        watch->fd = -1;
    }
    poll_for_end(launch);
    release_if_done(watch->owner);
}

static void
retry(xc_timer *timer)
{
    XC_HAS_ROLE(pump);
    xc_launch *launch = timer->owner;
    bool passed = pass_on(launch);
    atomic_store(&launch->passing, !passed);
    if (launch->err_fd >= 0 && (!passed || xc_pump_arm(&launch->err_watch, POLLIN) != XC_OK)) {
        xc_pump_set(timer, xc_after(RETRY_NS));
    }
    poll_for_end(launch);
    release_if_done(launch);
}

static void
start_watching(xc_job *job)
{
    XC_HAS_ROLE(pump);
    xc_launch *launch = job->owner;
    if (launch->exit_watch.fd < 0 || xc_pump_arm(&launch->exit_watch, POLLIN) != XC_OK) {
        launch->exit_watch.fd = -1;
        xc_pump_set(&launch->retry, xc_after(RETRY_NS));
    }
    if (launch->err_fd >= 0 && xc_pump_arm(&launch->err_watch, POLLIN) != XC_OK) {
        xc_pump_set(&launch->retry, xc_after(RETRY_NS));
    }
}

/* --- what others call ----------------------------------------------------------------------------------------- */

static void
free_unstarted(xc_launch *launch) XC_TAKES_PUMP
{
    xc_mutex_fini(&launch->mu);
    xc_free(launch);
    xc_pump_leave();
}

static xc_status
spawn(const xc_program *program, const xc_child_fds *fds, xc_launch **out, pid_t *pid, int *fd_in, int *fd_out,
      xc_err *err) XC_TAKES_PUMP
{
    xc_child_pipes pipes;
    xc_err ignored;
    err = err != NULL ? err : &ignored;
    xc_status rc = xc_pump_join(err);
    if (rc != XC_OK) {
        return rc;
    }
    xc_launch *launch = xc_alloc(sizeof *launch);
    if (launch == NULL) {
        xc_pump_leave();
        return xc_fail(err, XC_NOMEM, 0, "start a worker");
    }
    XC_ALONE(launch);
    memset(launch, 0, sizeof *launch);
    xc_mutex_init(&launch->mu);
    launch->forks = xc_fork_count();
    atomic_init(&launch->refs, 2); /* the caller's and the pump's */
    rc = xc_child_start_shielded(&launch->child, program, fds, &pipes, err);
    if (rc != XC_OK) {
        free_unstarted(launch);
        return rc;
    }
    if (xc_tracing()) {
        xc_trace("started process %ld: %s", (long)launch->child.pid, program->argv[0]);
    }
    launch->lent = XC_LENT_NOTHING;
    launch->err_fd = pipes.err;
    *pid = launch->child.pid;
    *fd_in = pipes.out;
    *fd_out = pipes.in;
    *out = launch;
    return XC_OK;
}

xc_status
xc_launch_spawn(const xc_program *program, xc_launch **out, pid_t *pid, int *fd_in, int *fd_out, xc_err *err)
{
    return spawn(program, &(xc_child_fds){.err = -1, .keep = {-1}}, out, pid, fd_in, fd_out, err);
}

void
xc_launch_abandon(xc_launch *launch)
{
    XC_ASSERT(launch->start.run == NULL && xc_locks_held() == 0); /* the pump does not know it */
    /* It would end by itself, as its stdin gets closed; but nobody would reap it then. */
    if (launch->err_fd >= 0) {
        close(launch->err_fd);
    }
    xc_child_signal(&launch->child, SIGKILL);
    while (xc_child_reap(&launch->child) == XC_AGAIN) {
        (void)poll(NULL, 0, 1);
    }
    xc_child_fini(&launch->child);
    xc_lent_close(&launch->lent);
    free_unstarted(launch);
}

void
xc_launch_watch(xc_launch *launch, void (*over)(void *arg), void *arg)
{
    XC_ASSERT(over != NULL && launch->start.run == NULL); /* it is not watched already */
    XC_HAS_ROLE(pump);
    XC_ALONE(launch);
    if (launch->err_fd >= 0) {
        (void)fcntl(launch->err_fd, F_SETFL, O_NONBLOCK);
        (void)xc_forkfd_add(launch->err_fd);
    }
    if (launch->child.pidfd >= 0) {
        (void)xc_forkfd_add(launch->child.pidfd);
    }
    launch->over = over;
    launch->arg = arg;
    launch->exit_watch = (xc_watch){.fd = launch->child.pidfd, .ready = exited, .owner = launch};
    launch->err_watch = (xc_watch){.fd = launch->err_fd, .ready = stderr_ready, .owner = launch};
    launch->retry = (xc_timer){.fire = retry, .owner = launch};
    launch->start = (xc_job){.run = start_watching, .owner = launch};
    xc_pump_post(&launch->start);
}

static void
tell_link(void *arg)
{
    xc_link_peer_gone(arg);
    xc_link_release(arg);
}

/* The fds that the process is to get; all borrowed. */
static xc_child_fds
fds_for(const xc_region *region, const xc_lent *lent)
{
    xc_child_fds fds = {.err = xc_lent_stderr(lent), .keep = {-1, -1, -1}};
    int n = 0;
    if (region != NULL) {
        fds.keep[n++] = region->fd;
    }
    fds.keep[n++] = lent->file;
    fds.keep[n++] = lent->ours;
    return fds;
}

xc_status
xc_launch_start(const xc_program *program, const xc_link_opts *opts, bool listens, xc_lent *lent, xc_launch **out,
                xc_link **link, xc_err *err)
{
    int in, to;
    pid_t pid;
    xc_launch *launch;
    xc_err ignored;
    XC_ASSERT(opts->region == NULL || opts->region->fd >= 0);
    XC_ASSERT((lent->file < 0) == (lent->ours < 0));
    err = err != NULL ? err : &ignored;
    xc_child_fds fds = fds_for(opts->region, lent);
    xc_status rc = spawn(program, &fds, &launch, &pid, &in, &to, err);
    if (opts->region != NULL) {
        xc_region_close_fd(opts->region);
    }
    xc_lent_passed(lent);
    if (rc != XC_OK) {
        xc_lent_close(lent);
        if (opts->region != NULL) {
            xc_region_close(opts->region);
        }
        return rc;
    }
    launch->lent = *lent;
    *lent = XC_LENT_NOTHING;
    if (launch->lent.ends[0] >= 0) { /* read like any worker's stderr */
        launch->err_fd = launch->lent.ends[0];
        launch->lent.ends[0] = -1;
    }
    *link = xc_link_new(opts, in, to, err);
    if (*link == NULL) {
        xc_launch_abandon(launch);
        return err->code;
    }
    launch->listens = listens;
    xc_link_hold(*link);
    xc_link_owns_peer(*link);
    xc_launch_watch(launch, tell_link, *link);
    *out = launch;
    return XC_OK;
}

/* Whether the pipe is empty, and what was read from it is written. Checked in this order, because the pump sets
 * `passing` before it reads. */
static bool
has_passed_locked(xc_launch *launch) XC_NEEDS(launch)
{
    struct pollfd pipe = {.fd = launch->err_fd, .events = POLLIN};
    return (launch->err_fd < 0 || poll(&pipe, 1, 0) == 0) && !atomic_load(&launch->passing);
}

/* Of last words the beginning matters, of other output the end. */
static void
check_lent(const xc_launch *launch, xc_launch_state *out)
{
    char chunk[XC_STDERR_TAIL];
    size_t n, at = 0;
    out->words = xc_lent_taken(&launch->lent) && (n = xc_lent_read(&launch->lent, 1, chunk)) > 0;
    if (out->words) {
        memcpy(out->tail, chunk, n);
        out->n_tail = n;
        return;
    }
    while (!xc_lent_taken(&launch->lent) && (n = xc_lent_read(&launch->lent, at, chunk)) > 0) {
        size_t kept = at == 0 ? 0 : out->n_tail < sizeof chunk - n ? out->n_tail : sizeof chunk - n;
        memmove(out->tail, out->tail + out->n_tail - kept, kept);
        memcpy(out->tail + kept, chunk, n);
        out->n_tail = kept + n;
        at += n;
    }
}

void
xc_launch_get_state(xc_launch *launch, xc_launch_state *out)
{
    xc_lock_launch(&launch->mu);
    out->pid = launch->child.pid;
    out->ended = launch->ended;
    out->known = launch->child.known;
    out->status = launch->child.status;
    out->n_tail = xc_buf_size(&launch->tail);
    if (out->n_tail > 0) {
        memcpy(out->tail, xc_buf_head(&launch->tail), out->n_tail);
    }
    out->passed = has_passed_locked(launch);
    check_lent(launch, out);
    xc_unlock_launch(&launch->mu);
}

static bool
has_news_locked(xc_launch *launch, bool knows_end) XC_NEEDS(launch)
{
    return xc_buf_size(&launch->said) > 0 || launch->lost > 0 || (launch->ended && (launch->closed || !knows_end));
}

xc_status
xc_launch_listen_nogil(xc_launch *launch, bool knows_end, int64_t until, void *into, size_t size, xc_said *out)
{
    XC_ASSERT_NOGIL();
    xc_status rc = XC_OK;
    XC_ASSERT(launch->listens);
    xc_bell *bell = xc_bell_mine();
    xc_lock_launch(&launch->mu);
    XC_ASSERT(launch->listener == NULL);
    while (rc == XC_OK && !has_news_locked(launch, knows_end)) {
        launch->listener = bell;
        xc_unlock_launch(&launch->mu);
        rc = xc_bell_sleep_nogil(bell, -1, 0, until);
        xc_lock_launch(&launch->mu);
        launch->listener = NULL;
    }
    if (rc != XC_OK) { /* what has come meanwhile is for the next call */
        xc_unlock_launch(&launch->mu);
        return rc;
    }
    size_t there = xc_buf_size(&launch->said), n = there < size ? there : size;
    *out = (xc_said){.lost = launch->lost,
                     .n = n,
                     .ended = launch->ended && n == there,
                     .closed = launch->ended && launch->closed && n == there};
    launch->lost = 0;
    if (n > 0) {
        memcpy(into, xc_buf_head(&launch->said), n);
        xc_buf_take(&launch->said, n);
    }
    xc_unlock_launch(&launch->mu);
    return XC_OK;
}

void
xc_launch_signal(xc_launch *launch, int sig)
{
    xc_lock_launch(&launch->mu);
    if (!launch->ended) {
        xc_child_signal(&launch->child, sig);
    }
    xc_unlock_launch(&launch->mu);
}

void
xc_launch_kill(void *launch)
{
    xc_launch_signal(launch, SIGKILL);
}
