/*
 * What a round trip costs at best: so many bytes there and back between two processes.
 *
 *   pingpong pipe|memory BYTES SECONDS
 *
 * prints microseconds a round trip. Both ends read and write the bytes whole each time, and the last answer is compared
 * with what was sent.
 */
#include "common.h"

#include <string.h>

static size_t size;
static char *item, *answer;

/* --- pipes */

static bool
read_whole(int fd, char *at)
{
    for (size_t left = size; left > 0;) {
        ssize_t n = read(fd, at, left);
        check(n >= 0, "read");
        if (n == 0) {
            return false;
        }
        at += n;
        left -= (size_t)n;
    }
    return true;
}

static void
write_whole(int fd, const char *at)
{
    for (size_t left = size; left > 0;) {
        ssize_t n = write(fd, at, left);
        check(n >= 0, "write");
        at += n;
        left -= (size_t)n;
    }
}

static int there[2], back[2];

static void
start_pipes(void)
{
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    if (fork_far_end()) {
        close(there[1]);
        while (read_whole(there[0], item)) {
            write_whole(back[1], item);
        }
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
}

static void
trip_pipes(void)
{
    write_whole(there[1], item);
    check(read_whole(back[0], answer), "the far end is gone");
}

/* --- shared memory: a place for one item each way, and a word that counts what was put there */

typedef struct {
    word put;
    char data[];
} place;

static place *to, *fro;

static void
start_memory(void)
{
    to = shared(sizeof *to + size);
    fro = shared(sizeof *fro + size);
    if (fork_far_end()) {
        for (uint32_t number = 0;;) {
            number = word_wait(&to->put, number);
            memcpy(item, to->data, size);
            memcpy(fro->data, item, size);
            word_set(&fro->put, number);
        }
    }
}

static void
trip_memory(void)
{
    static uint32_t number;
    memcpy(to->data, item, size);
    word_set(&to->put, number + 1);
    number = word_wait(&fro->put, number);
    memcpy(answer, fro->data, size);
}

int
main(int argc, char **argv)
{
    if (argc != 4 || (strcmp(argv[1], "pipe") != 0 && strcmp(argv[1], "memory") != 0)) {
        fprintf(stderr, "usage: pingpong pipe|memory BYTES SECONDS\n");
        return 2;
    }
    bool pipes = strcmp(argv[1], "pipe") == 0;
    size = strtoul(argv[2], NULL, 10);
    int64_t budget = (int64_t)(atof(argv[3]) * 1e9);
    item = malloc(size);
    answer = malloc(size);
    check(item != NULL && answer != NULL, "malloc");
    memset(item, 'x', size);
    (pipes ? start_pipes : start_memory)();

    void (*trip)(void) = pipes ? trip_pipes : trip_memory;
    for (int64_t until = now_ns() + budget / 2; now_ns() < until;) {
        trip();
    }
    int64_t start = now_ns(), spent;
    long trips = 0;
    do {
        for (int i = 0; i < 10; i++) {
            trip();
        }
        trips += 10;
        spent = now_ns() - start;
    } while (spent < budget);
    check(memcmp(item, answer, size) == 0, "another answer");
    printf("%.4f\n", (double)spent / (double)trips / 1e3);
    return 0;
}
