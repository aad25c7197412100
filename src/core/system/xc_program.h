/*
 * What is to be started: arguments, environment, and the places where the program may be, by PATH. All of it is a copy,
 * made while nobody changes the environment: what others do to that later does not reach a process that is just
 * starting.
 */
#ifndef XC_PROGRAM_H
#define XC_PROGRAM_H

#include "xc_base.h"

typedef struct {
    char **argv;   /* NULL-terminated, as the two others */
    char **env;    /* "NAME=value" */
    char **places; /* the files to try, in order: one of each directory in PATH, or argv[0] if that has a slash */
} xc_program;

/* Of a NULL-terminated argv with at least one string, and this process's environment. Where that may be changed by
 * other threads, as Python's is, call it with the GIL held. Owned by the caller; NULL: no memory. */
xc_program *xc_program_new(char *const argv[]);

/* Takes NULL. */
void xc_program_free(xc_program *program);

#endif
