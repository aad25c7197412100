/*
 * What bulk bytes cost at best: so many MiB from one process to another, which takes them into memory of its own.
 *
 *   bandwidth pipe|memory MIB
 *
 * prints megabytes a second, until the far end has said that it has them all; it looks at both ends of them. The memory
 * that they come into is as fresh as that of a new object: its pages are got while they come.
 */
#define MIB ((size_t)1 << 20)

#include "common.h"

#include <fcntl.h>
#include <string.h>

enum { SLOTS = 8, SLOT = 256 * 1024 };

/* What the system gives a pipe at most, without privileges. */
static void
widen(int fd)
{
    if (fcntl(fd, F_SETPIPE_SZ, (int)MIB) < 0) {
        fprintf(stderr, "the pipe stays as it is\n");
    }
}

static int fds[2];

static void
take_from_pipe(char *into, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = read(fds[0], into + at, size - at);
        check(n > 0, "read");
        at += (size_t)n;
    }
}

static void
put_into_pipe(const char *from, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = write(fds[1], from + at, size - at);
        check(n > 0, "write");
        at += (size_t)n;
    }
}

/* Slots that go round; `filled` and `emptied` count them. */
static struct ring {
    word filled, emptied;
    char slots[SLOTS][SLOT];
} * ring;

static size_t
part(size_t size, size_t at)
{
    return size - at < SLOT ? size - at : SLOT;
}

static void
take_from_memory(char *into, size_t size)
{
    uint32_t number = 0;
    for (size_t at = 0; at < size; at += SLOT, number++) {
        if (atomic_load_explicit(&ring->filled.value, memory_order_acquire) == number) {
            word_wait(&ring->filled, number);
        }
        memcpy(into + at, ring->slots[number % SLOTS], part(size, at));
        word_set(&ring->emptied, number + 1);
    }
}

static void
put_into_memory(const char *from, size_t size)
{
    uint32_t number = 0;
    for (size_t at = 0; at < size; at += SLOT, number++) {
        uint32_t emptied = atomic_load_explicit(&ring->emptied.value, memory_order_acquire);
        while (number - emptied == SLOTS) {
            emptied = word_wait(&ring->emptied, emptied);
        }
        memcpy(ring->slots[number % SLOTS], from + at, part(size, at));
        word_set(&ring->filled, number + 1);
    }
}

static char *
fresh(size_t size)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "mmap");
    madvise(p, size, MADV_HUGEPAGE);
    return p;
}

int
main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[1], "pipe") != 0 && strcmp(argv[1], "memory") != 0)) {
        fprintf(stderr, "usage: bandwidth pipe|memory MIB\n");
        return 2;
    }
    bool pipes = strcmp(argv[1], "pipe") == 0;
    size_t size = strtoul(argv[2], NULL, 10) * MIB;
    word *taken = shared(sizeof *taken);
    if (pipes) {
        check(pipe(fds) == 0, "pipe");
        widen(fds[1]);
    }
    else {
        ring = shared(sizeof *ring);
    }
    char *data = fresh(size);
    memset(data, 'x', size);
    data[size - 1] = 'z';
    if (fork_far_end()) {
        char *into = fresh(size);
        word_set(taken, 1);
        (pipes ? take_from_pipe : take_from_memory)(into, size);
        word_set(taken, into[0] == 'x' && into[size - 1] == 'z' ? 2 : 3);
        _exit(0);
    }
    word_wait(taken, 0);
    int64_t start = now_ns();
    (pipes ? put_into_pipe : put_into_memory)(data, size);
    uint32_t answer = word_wait(taken, 1);
    int64_t spent = now_ns() - start;
    check(answer == 2, "other bytes");
    printf("%.1f\n", (double)size / (double)spent * 1e3);
    return 0;
}
