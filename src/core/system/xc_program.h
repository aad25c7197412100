/*
 * What to start: arguments, environment, and the files that may be the program, by PATH. All are copies, because other
 * threads may change the environment while a process starts.
 */
#ifndef XC_PROGRAM_H
#define XC_PROGRAM_H

#include "xc_base.h"

typedef struct {
    char **argv;   /* NULL-terminated, as the two others */
    char **env;    /* "NAME=value" */
    char **places; /* the files to try, in order: one of each directory in PATH, or argv[0] if that has a slash */
} xc_program;

/* Copies a NULL-terminated argv of at least one string, and this process's environment. Call it with the GIL held where
 * Python threads may change the environment. Owned by the caller; NULL: no memory. */
xc_program *xc_program_new(char *const argv[]);

/* The same with this environment, NULL-terminated strings "NAME=value". */
xc_program *xc_program_in(char *const argv[], char *const env[]);

/* Takes NULL. */
void xc_program_free(xc_program *program);

#endif
