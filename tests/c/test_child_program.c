/* What a child's program is: found along the path, given its arguments and environment, and refused where it cannot
 * run. */
#include "child_rig.h"

/* ---- programs that cannot run ---- */

static void
write_file(const char *path, const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    CHECK_INT(chmod(path, mode), 0);
}

static void
programs_are_searched(void)
{
    char dir[] = "/tmp/xc_child_XXXXXX", path[200], text[100];
    CHECK(mkdtemp(dir) != NULL && chdir(dir) == 0);
    CHECK(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0 && mkdir("b/folder", 0755) == 0);
    write_file("a/tool", "no program", 0644);
    write_file("b/tool", "#!/bin/sh\necho tool $1\n", 0755);
    write_file("a/secret", "no program", 0644);
    write_file("b/text", "neither", 0755);
    write_file("file", "", 0755);
    write_file("here", "#!/bin/sh\necho here\n", 0755);

    snprintf(path, sizeof(path), "%s/nowhere:%s/file:%s/a:%s/b:/bin", dir, dir, dir, dir);
    CHECK_INT(setenv("PATH", path, 1), 0);
    CHECK_INT(run((char *[]){"tool", "x", NULL}, text, sizeof(text)), 0);
    CHECK(strcmp(text, "tool x\n") == 0);
    CHECK_INT(run((char *[]){"b/tool", "y", NULL}, text, sizeof(text)), 0);
    CHECK(strcmp(text, "tool y\n") == 0);
    check_refused((char *[]){"xc-no-such-program", NULL}, ENOENT);
    check_refused((char *[]){"/xc/no/such/program", NULL}, ENOENT);
    check_refused((char *[]){"./file/x", NULL}, ENOTDIR);
    check_refused((char *[]){"secret", NULL}, EACCES);
    check_refused((char *[]){"folder", NULL}, EACCES);
    check_refused((char *[]){"./b", NULL}, EACCES);
    check_refused((char *[]){"text", NULL}, ENOEXEC);
    check_refused((char *[]){"here", NULL}, ENOENT);
    check_refused((char *[]){"", NULL}, ENOENT);

    CHECK_INT(setenv("PATH", "/bin::", 1), 0);
    CHECK_INT(run((char *[]){"here", NULL}, text, sizeof(text)), 0);
    CHECK(strcmp(text, "here\n") == 0);
    CHECK_INT(setenv("PATH", "", 1), 0);
    CHECK_INT(run((char *[]){"here", NULL}, text, sizeof(text)), 0);
    CHECK_INT(unsetenv("PATH"), 0);
    CHECK_INT(run(SHELL("echo $1"), text, sizeof(text)), 0);
    check_refused((char *[]){"here", NULL}, ENOENT);
    CHECK_INT(setenv("PATH", "/bin:/usr/bin", 1), 0);
    CHECK_INT(run((char *[]){"rm", "-r", dir, NULL}, text, sizeof(text)), 0);
}

static void
search_follows_path(void)
{
    CHECK_INT(check_in_child(programs_are_searched), 0);
}

static void
program_gets_arguments_and_environment(void)
{
    char text[200];
    CHECK_INT(setenv("XC_TEST_VALUE", "from here", 1), 0);
    CHECK_INT(run((char *[]){"sh", "-c", "echo \"$0|$1|$2|$XC_TEST_VALUE\"", "a b", "", "\xc3\xa4", NULL}, text,
                  sizeof(text)),
              0);
    CHECK(strcmp(text, "a b||\xc3\xa4|from here\n") == 0);
    CHECK_INT(unsetenv("XC_TEST_VALUE"), 0);
}

/* Later changes of the environment do not get to what was copied before, nor do they decide where it is looked for. */
static void
program_is_a_copy(void)
{
    char text[200];
    xc_child child;
    xc_child_pipes pipes;
    xc_err err;
    CHECK_INT(setenv("PATH", "/bin:/usr/bin", 1), 0);
    CHECK_INT(setenv("XC_TEST_VALUE", "before", 1), 0);
    char script[] = "echo $XC_TEST_VALUE";
    xc_program *program = xc_program_new(SHELL(script));
    CHECK(program != NULL);
    memset(script, '?', sizeof(script) - 1);
    CHECK_INT(setenv("XC_TEST_VALUE", "afterwards", 1), 0);
    CHECK_INT(setenv("PATH", "/nowhere", 1), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_RC(xc_child_start(&child, program, &pipes, &err), XC_OK);
        read_all(pipes.out, text, sizeof(text));
        CHECK(strcmp(text, "before\n") == 0);
        reap(&child);
        close_pipes(&pipes);
        xc_child_fini(&child);
        CHECK_INT(clearenv(), 0);
    }
    xc_program_free(program);
    program = xc_program_new((char *[]){"true", NULL}); /* of no environment at all */
    CHECK(program != NULL && program->env[0] == NULL && strcmp(program->places[0], "/bin/true") == 0);
    CHECK(strcmp(program->places[1], "/usr/bin/true") == 0 && program->places[2] == NULL);
    xc_program_free(program);
}

static void
later_changes_are_not_seen(void)
{
    CHECK_INT(check_in_child(program_is_a_copy), 0);
}

int
main(void)
{
    check_begin("child_program", 120);
    RUN(search_follows_path);
    RUN(program_gets_arguments_and_environment);
    RUN(later_changes_are_not_seen);
    return check_end();
}
