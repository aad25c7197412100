/* One block of memory: the struct, its three tables, and all their strings behind those. */
#include "xc_program.h"

#include <string.h>

extern char **environ;

static const char *
path_in(char *const env[])
{
    for (; *env != NULL; env++) {
        if (strncmp(*env, "PATH=", 5) == 0) {
            return *env + 5;
        }
    }
    return "/bin:/usr/bin";
}

static size_t
count(char *const list[], size_t *bytes)
{
    size_t n = 0;
    for (; list[n] != NULL; n++) {
        *bytes += strlen(list[n]) + 1;
    }
    return n;
}

static size_t
count_dirs(const char *path)
{
    size_t n = 1;
    for (; *path != '\0'; path++) {
        n += *path == ':';
    }
    return n;
}

/* Copies the first n strings of `list` to *to, moves *to behind them and fills `table`, which is terminated already. */
static void
copy_list(char *const list[], size_t n, char **table, char **to)
{
    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(list[i]) + 1;
        table[i] = memcpy(*to, list[i], size);
        *to += size;
    }
}

/* "" in PATH is the current directory. */
static void
put_places(const char *path, const char *name, char **table, char *to)
{
    size_t name_size = strlen(name) + 1;
    for (bool more = true; more; table++) {
        size_t len = strcspn(path, ":");
        *table = to;
        if (len == 0) {
            *to++ = '.';
        }
        memcpy(to, path, len);
        to += len;
        *to++ = '/';
        memcpy(to, name, name_size);
        to += name_size;
        more = path[len] != '\0';
        path += len + 1;
    }
}

xc_program *
xc_program_new(char *const argv[])
{
    static char *const none[] = {NULL};
    return xc_program_in(argv, environ != NULL ? environ : none);
}

xc_program *
xc_program_in(char *const argv[], char *const env[])
{
    XC_ASSERT(argv[0] != NULL);
    const char *name = argv[0];
    const char *path = strchr(name, '/') != NULL || name[0] == '\0' ? NULL : path_in(env);
    size_t text = 0, n_argv = count(argv, &text), n_env = count(env, &text);
    size_t n_places = path != NULL ? count_dirs(path) : 1;
    size_t tables = (n_argv + n_env + n_places + 3) * sizeof(char *);
    text += path != NULL ? strlen(path) + n_places * (strlen(name) + 3) : strlen(name) + 1;
    xc_program *program = xc_alloc(sizeof *program + tables + text);
    if (program == NULL) {
        return NULL;
    }
    char **table = (char **)(program + 1);
    memset(table, 0, tables);
    char *to = (char *)table + tables;
    program->argv = table;
    program->env = program->argv + n_argv + 1;
    program->places = program->env + n_env + 1;
    copy_list(argv, n_argv, program->argv, &to);
    copy_list(env, n_env, program->env, &to);
    if (path != NULL) {
        put_places(path, name, program->places, to);
    }
    else {
        copy_list(argv, 1, program->places, &to);
    }
    return program;
}

void
xc_program_free(xc_program *program)
{
    xc_free(program);
}
