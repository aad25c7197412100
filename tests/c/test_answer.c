/*
 * What a link answers by itself: status requests with and without facts, the current directory whatever its name,
 * without memory; tasks at a link that runs none.
 */
#include <limits.h>
#include <sys/stat.h>

#include "link_rig.h"
#include "xc_opcodes.h"

enum { PROGRAM_SECONDS = 60 };

/* {"a": None} as the Python side gives it. */
static const char facts[] = "JN\0\0\0\1aLPQ";
enum { FACTS = sizeof facts - 1 };

static void
set_facts(rig *it)
{
    xc_err err;
    CHECK_RC(xc_link_set_facts(it->link, facts, FACTS, &err), XC_OK);
}

/* Asks on that channel; the answer has these bytes. */
static void
expect_answer(rig *it, uint32_t id, bool with_payload, const wire *want)
{
    rig_send(it, XC_STATUS, id, "RQ", with_payload ? 2 : 0);
    expect_frame(it->from, XC_DATA, id, want->data, want->n);
    expect_frame(it->from, XC_CLOSE, id, NULL, 0);
}

static void
add(wire *to, const void *bytes, size_t n)
{
    memcpy(wire_room(to, n), bytes, n);
}

static void
add_text(wire *to, const char *text)
{
    unsigned char head[5] = {XC_OP_STR};
    put32(head + 1, (uint32_t)strlen(text));
    add(to, head, 5);
    add(to, text, strlen(text));
}

/* The facts with that directory; NULL: there is none. */
static wire
with_cwd(const char *cwd)
{
    wire want = {NULL, 0, 0};
    add(&want, facts, FACTS - 1);
    add_text(&want, "cwd");
    if (cwd != NULL) {
        add_text(&want, cwd);
    }
    else {
        add(&want, "L", 1);
    }
    add(&want, "PQ", 2);
    return want;
}

static wire
plain(void)
{
    wire want = {NULL, 0, 0};
    add(&want, "J", 1);
    add_text(&want, "numchannels");
    add(&want, "F\0\0\0\0P", 6);
    add_text(&want, "numexecuting");
    add(&want, "F\0\0\0\0P", 6);
    add_text(&want, "execmodel");
    add_text(&want, "thread");
    add(&want, "PQ", 2);
    return want;
}

static void
facts_for_who_asks(void)
{
    rig it = rig_open(true);
    char here[PATH_MAX];
    CHECK(getcwd(here, sizeof here) != NULL);
    wire status = plain(), long_one = with_cwd(here);
    expect_answer(&it, 7, false, &status);
    expect_answer(&it, 7, true, &status); /* there are no facts yet */
    set_facts(&it);
    expect_answer(&it, 9, true, &long_one);
    expect_answer(&it, 9, false, &status);
    set_facts(&it); /* the earlier ones are forgotten */
    expect_answer(&it, 9, true, &long_one);
    CHECK(wait_for(&it, XC_WAIT_TASK, NULL, xc_after(XC_MS)) == XC_TIMEOUT); /* it is watched, and read by hand */
    expect_answer(&it, 11, true, &long_one);
    wire_free(&status);
    wire_free(&long_one);
    rig_close(&it);
}

/* A waiter reads the request. */
static void
answered_by_a_waiter(void)
{
    rig it = rig_open(true);
    wire want = with_cwd("/");
    int back = open(".", O_RDONLY | O_CLOEXEC);
    CHECK(back >= 0 && chdir("/") == 0);
    set_facts(&it);
    wire stream = {NULL, 0, 0};
    wire_add(&stream, XC_STATUS, 5, "LQ", 2);
    wire_add(&stream, XC_EXEC, 3, "LQ", 2);
    rig_send_wire(&it, &stream);
    CHECK_RC(wait_for(&it, XC_WAIT_TASK, NULL, XC_FOREVER), XC_OK);
    expect_frame(it.from, XC_DATA, 5, want.data, want.n);
    expect_frame(it.from, XC_CLOSE, 5, NULL, 0);
    CHECK(fchdir(back) == 0);
    close(back);
    wire_free(&stream);
    wire_free(&want);
    rig_close(&it);
}

/* What the name of a directory becomes: what is no UTF-8 is escaped, byte by byte. */
static const struct {
    const char *name, *told;
} names[] = {
    {"plain", "plain"},
    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x8d", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x8d"},
    {"latin-\xfc", "latin-\\udcfc"},
    {"\xc3", "\\udcc3"},
    {"\x80x\xbf", "\\udc80x\\udcbf"},
    {"\xe2\x82x", "\\udce2\\udc82x"},
    {"\xc0\xaf", "\\udcc0\\udcaf"},
    {"\xe0\x80\xaf", "\\udce0\\udc80\\udcaf"},
    {"\xed\xa0\x80", "\\udced\\udca0\\udc80"},
    {"\xf4\x90\x80\x80", "\\udcf4\\udc90\\udc80\\udc80"},
    {"\xf8\x88\x80\x80\x80", "\\udcf8\\udc88\\udc80\\udc80\\udc80"},
    {"\xf0\x9f\x90", "\\udcf0\\udc9f\\udc90"},
    {"\xef\xbf\xbf\xee\x80\x80", "\xef\xbf\xbf\xee\x80\x80"},
};

static void
any_directory(void)
{
    char base[] = "/tmp/xc_answerXXXXXX", told[PATH_MAX];
    rig it = rig_open(true);
    int back = open(".", O_RDONLY | O_CLOEXEC);
    CHECK(back >= 0 && mkdtemp(base) != NULL);
    set_facts(&it);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK(chdir(base) == 0 && mkdir(names[i].name, 0700) == 0 && chdir(names[i].name) == 0);
        snprintf(told, sizeof told, "%s/%s", base, names[i].told);
        wire want = with_cwd(told), none = with_cwd(NULL);
        expect_answer(&it, 5, true, &want);
        CHECK(chdir(base) == 0 && rmdir(names[i].name) == 0);
        CHECK(mkdir("gone", 0700) == 0 && chdir("gone") == 0 && rmdir("../gone") == 0);
        expect_answer(&it, 5, true, &none);
        wire_free(&want);
        wire_free(&none);
    }
    CHECK(fchdir(back) == 0 && rmdir(base) == 0);
    close(back);
    rig_close(&it);
}

/* The answer, or why there is none; or the connection ends, and this end says why: nobody waits in vain. */
static void
answered_or_told(rig *it, int said)
{
    static const char cause[] = "no memory";
    char words[400] = "";
    xc_frame frame = {.code = XC_DATA};
    unsigned char *payload;
    size_t items = 0;
    bool told = false;
    while (!told && frame.code != XC_CLOSE && read_frame(it->from, &frame, &payload)) {
        CHECK_INT(frame.chan, 5);
        items += frame.code == XC_DATA ? 1 : 0;
        told = frame.code == XC_CLOSE_ERROR && memmem(payload, frame.size, cause, strlen(cause)) != NULL;
        free(payload);
    }
    if (told || (frame.code == XC_CLOSE && items == 1)) {
        rig_send(it, XC_TERMINATE, 0, NULL, 0);
    }
    else {
        CHECK(!read_frame(it->from, &frame, &payload));
        rig_hang_up(it);
    }
    AWAIT(state_of(it).ended_by.code != XC_OK);
    if (it->to < 0) {
        CHECK(read(said, words, sizeof words - 1) > 0);
        CHECK(strstr(words, cause) != NULL);
    }
    xc_link_goodbye(it->link);
}

/* Whatever fails; facts are set or the earlier ones stay. */
static void
without_memory(void)
{
    bool failed = true;
    xc_err err;
    for (int k = 1; failed; k++) {
        int words[2];
        rig it = rig_open(true);
        CHECK_INT(pipe2(words, O_CLOEXEC | O_NONBLOCK), 0);
        xc_link_set_words(it.link, words[1]);
        set_facts(&it);
        atomic_store(&until_failure, k);
        xc_set_alloc_hook(fail_one);
        rig_send(&it, XC_STATUS, 5, "RQ", 2);
        answered_or_told(&it, words[0]);
        failed = atomic_load(&until_failure) <= 0;
        xc_set_alloc_hook(NULL);
        rig_close(&it);
        close(words[0]);
        close(words[1]);
    }
    rig it = rig_open(true);
    set_facts(&it);
    atomic_store(&until_failure, 1);
    xc_set_alloc_hook(fail_one);
    CHECK_RC(xc_link_set_facts(it.link, "JQ", 2, &err), XC_NOMEM);
    xc_set_alloc_hook(NULL);
    CHECK_RC(xc_link_set_facts(it.link, facts, (size_t)XC_MAX_PAYLOAD, &err), XC_LIMIT);
    char here[PATH_MAX];
    CHECK(getcwd(here, sizeof here) != NULL);
    wire want = with_cwd(here);
    expect_answer(&it, 5, true, &want);
    wire_free(&want);
    rig_close(&it);
}

static void
no_tasks_here(void)
{
    static const char refusal[] = "N\0\0\0\24execution disallowedQ";
    rig it = rig_open(false);
    rig_send(&it, XC_EXEC, 3, "LQ", 2);
    expect_frame(it.from, XC_CLOSE_ERROR, 3, refusal, sizeof refusal - 1);
    rig_close(&it);
}

int
main(void)
{
    check_io_begin("answer", PROGRAM_SECONDS);
    RUN_IO(facts_for_who_asks);
    RUN_IO(answered_by_a_waiter);
    RUN_IO(any_directory);
    RUN_IO(without_memory);
    RUN_IO(no_tasks_here);
    return check_end();
}
