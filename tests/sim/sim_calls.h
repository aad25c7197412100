/*
 * The functions that the linker puts in the place of the C library's, and of some of the core's own: see the Makefile.
 */
#ifndef SIM_CALLS_H
#define SIM_CALLS_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "sim.h"

int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *span, const sigset_t *mask);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int most, int ms);
ssize_t __wrap_read(int fd, void *into, size_t n);
ssize_t __wrap_readv(int fd, const struct iovec *parts, int n);
ssize_t __wrap_write(int fd, const void *from, size_t n);
ssize_t __wrap_writev(int fd, const struct iovec *parts, int n);
int __wrap_ioctl(int fd, unsigned long what, ...);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_close(int fd);
int __wrap_shutdown(int fd, int how);
int __wrap_fcntl(int fd, int what, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_pthread_mutex_init(pthread_mutex_t *mu, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *mu);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mu);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mu);
pthread_t __wrap_pthread_self(void);
int __wrap_pthread_once(pthread_once_t *once, void (*setup)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *value));
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_clock_gettime(clockid_t clock, struct timespec *into);
int __wrap_nanosleep(const struct timespec *span, struct timespec *left);
int __wrap_xc_cpu_count(void);
int __wrap_sched_getcpu(void);
long __wrap_syscall(long number, ...);
pid_t __wrap_getpid(void);
int __wrap_kill(pid_t pid, int number);
void __wrap__exit(int status);
_Noreturn void __wrap_xc_assert_failed(const char *file, int line, const char *function, const char *condition);
void __wrap_xc_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void __wrap_xc_trace_frame(const char *verb, uint8_t code, uint32_t chan, size_t size);
int __wrap_munmap(void *at, size_t n);
void *__wrap_xc_alloc(size_t n);
void *__wrap_xc_realloc(void *p, size_t n);
void __wrap_xc_free(void *p);

/* For a new run. */
void sim_reset_calls(void);

#endif
