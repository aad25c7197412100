/*
 * Channels: the table id -> channel, what each end of a channel does to it, channels that travel inside items, and
 * that chains and rings of them are freed.
 */
#include <sys/resource.h>

#include "link_rig.h"

/* --- the table ------------------------------------------------------------------------------------------------ */

enum { IDS = 600 };

/* Random steps against an array that says what must be found. */
static void
table_against_a_model(void)
{
    xc_chan_table table = {.slots = NULL};
    static xc_chan *model[IDS];
    unsigned seed = 99;
    size_t n = 0;
    CHECK(xc_chan_find(&table, 1) == NULL);
    for (int step = 0; step < 40000; step++) {
        uint32_t at = (uint32_t)rand_r(&seed) % IDS;
        size_t skipped = 0;
        uint32_t id = at * UINT32_C(0x10000001); /* such as a simple table would put into one slot */
        CHECK(xc_chan_find(&table, id) == model[at]);
        if (model[at] == NULL) {
            model[at] = xc_chan_new(&table, id);
            CHECK(model[at] != NULL && model[at]->id == id && model[at]->refs == 1);
            n++;
        }
        else {
            xc_chan_unlist(&table, model[at]);
            CHECK(xc_chan_find(&table, id) == NULL); /* and yet it is there */
            CHECK(xc_chan_find_any(&table, id, &skipped) == model[at] &&
                  xc_chan_find_any(&table, id, &skipped) == NULL);
            CHECK_INT(table.n_placed, n);
            xc_chan_remove(&table, model[at]);
            xc_chan_remove(&table, model[at]);
            xc_chan_free(model[at]);
            model[at] = NULL;
            n--;
        }
        CHECK_INT(table.n_used, n);
        CHECK_INT(table.n_placed, n);
        CHECK(table.n_placed * 2 <= table.n_slots);
    }
    size_t seen = 0, at = 0;
    for (xc_chan *chan; (chan = xc_chan_next(&table, &at)) != NULL; seen++) {
        CHECK(xc_chan_find(&table, chan->id) == chan);
    }
    CHECK_INT(seen, n);
    xc_chan_remove_all(&table);
    CHECK_INT(table.n_used, 0);
    at = 0;
    CHECK(xc_chan_next(&table, &at) == NULL);
    seen = 0;
    for (xc_chan *chan; (chan = table.all) != NULL; seen++) {
        CHECK(!chan->listed);
        xc_chan_free(chan);
    }
    CHECK_INT(seen, n);
    xc_chan_table_fini(&table);
    memset(model, 0, sizeof model);
}

static void
table_without_memory(void)
{
    xc_chan_table table = {.slots = NULL};
    int made = 0;
    for (int allowed = 0; made < 20; allowed++) {
        atomic_store(&check_allowed, allowed % 3);
        xc_set_alloc_hook(check_allow_some);
        xc_chan *chan = xc_chan_new(&table, (uint32_t)made);
        xc_set_alloc_hook(NULL);
        CHECK(allowed % 3 != 0 || chan == NULL);
        made += chan != NULL;
        CHECK_INT(table.n_used, made);
        for (int i = 0; i < made; i++) {
            CHECK(xc_chan_find(&table, (uint32_t)i) != NULL);
        }
    }
    xc_chan_remove_all(&table);
    while (table.all != NULL) {
        xc_chan_free(table.all);
    }
    xc_chan_table_fini(&table);
}

/* --- ids ------------------------------------------------------------------------------------------------------ */

static void
ids_of_both_sides(void)
{
    for (int worker = 0; worker < 2; worker++) {
        rig it = rig_open(worker);
        xc_chan *theirs = chan_of(&it, worker ? 4 : 3); /* the far end gave away one of our ids, of all things */
        xc_chan *first = new_chan(&it), *second = new_chan(&it), *again = chan_of(&it, first->id);
        CHECK_INT(first->id, worker ? 2 : 1);
        CHECK_INT(second->id, worker ? 6 : 5);
        CHECK(again == first && first->refs == 2);
        CHECK_INT(state_of(&it).channels, 3);
        xc_link_drop_chan(it.link, theirs);
        xc_link_drop_chan(it.link, first);
        xc_link_drop_chan(it.link, again);
        xc_link_drop_chan(it.link, second);
        CHECK_INT(state_of(&it).channels, 0);
        rig_close(&it);
    }
}

/* Everything that was sent before has taken effect. */
static void
settle(rig *it, xc_chan *mark)
{
    send_int(it, mark->id, 4711);
    expect_int(it, mark, 4711);
}

/* --- how a channel ends --------------------------------------------------------------------------------------- */

static void
expect_state(rig *it, xc_chan *chan, bool closed, bool recv_closed)
{
    xc_chan_state state = xc_link_chan_state(it->link, chan);
    CHECK_INT(state.closed, closed);
    CHECK_INT(state.recv_closed, recv_closed);
    CHECK_INT(is_ready(it, XC_WAIT_CLOSE, chan), recv_closed);
}

static xc_status
close_chan(rig *it, xc_chan *chan, bool want_tell, xc_msg *error)
{
    bool tell;
    xc_status rc = xc_link_close_chan(it->link, chan, &tell, error);
    CHECK_INT(tell, want_tell);
    return rc;
}

static void
closed_by_this_side(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *mark = new_chan(&it);
    send_int(&it, chan->id, 1);
    settle(&it, mark);
    expect_state(&it, chan, false, false);
    CHECK_RC(close_chan(&it, chan, true, NULL), XC_OK);
    expect_state(&it, chan, true, true);
    CHECK_RC(close_chan(&it, chan, false, NULL), XC_CLOSED);
    send_int(&it, chan->id, 2); /* too late */
    settle(&it, mark);
    expect_int(&it, chan, 1); /* what came before is still there */
    CHECK(take(&it, chan) == NULL);
    CHECK(!xc_link_set_callback(it.link, chan));
    xc_link_drop_chan(it.link, chan); /* tells nobody: it is closed */
    xc_link_drop_chan(it.link, mark);
    expect_frame(it.from, XC_CLOSE, 3, NULL, 0);
    rig_close(&it);
}

static void
closed_by_the_far_side(void)
{
    rig it = rig_open(false);
    xc_chan *mark = new_chan(&it);
    /* CLOSE: for both directions. */
    xc_chan *chan = new_chan(&it);
    send_int(&it, chan->id, 1);
    rig_send(&it, XC_CLOSE, chan->id, NULL, 0);
    settle(&it, mark);
    expect_state(&it, chan, true, true);
    CHECK_RC(close_chan(&it, chan, false, NULL), XC_CLOSED);
    expect_int(&it, chan, 1);
    CHECK(take(&it, chan) == NULL);
    CHECK(xc_link_take_error(it.link, chan) == NULL);
    xc_link_drop_chan(it.link, chan);
    /* LAST_MESSAGE: we may still send, and closing it says nothing that the far end would not know. */
    chan = new_chan(&it);
    rig_send(&it, XC_LAST_MESSAGE, chan->id, NULL, 0);
    settle(&it, mark);
    expect_state(&it, chan, false, true);
    CHECK(take(&it, chan) == NULL);
    rig_send(&it, XC_CLOSE, chan->id, NULL, 0); /* behind it: the id is unknown by now */
    settle(&it, mark);
    expect_state(&it, chan, false, true);
    CHECK_RC(close_chan(&it, chan, false, NULL), XC_OK);
    CHECK_RC(close_chan(&it, chan, false, NULL), XC_CLOSED);
    xc_link_drop_chan(it.link, chan);
    /* CLOSE_ERROR: the text is kept for whoever asks. */
    chan = new_chan(&it);
    rig_send(&it, XC_CLOSE_ERROR, chan->id, "N\0\0\0\4oopsQ", 10);
    settle(&it, mark);
    expect_state(&it, chan, true, true);
    xc_msg *error = xc_link_take_error(it.link, chan);
    CHECK(error != NULL && error->size == 10 && memcmp(error->data + 5, "oops", 4) == 0);
    xc_link_free_msg(it.link, error);
    CHECK(xc_link_take_error(it.link, chan) == NULL);
    CHECK_INT(atomic_load(&rig_orphans), 0);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, mark);
    expect_frame(it.from, XC_CLOSE, 1, NULL, 0); /* of all of them, only `mark` was open */
    rig_close(&it);
}

/* A text that is raised by this side, put back for the next who asks. */
static void
closed_with_an_own_error(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    CHECK_RC(close_chan(&it, chan, true, xc_msg_new(XC_CLOSE_ERROR, chan->id, 5)), XC_OK);
    CHECK_RC(close_chan(&it, chan, false, xc_msg_new(XC_CLOSE_ERROR, chan->id, 6)), XC_CLOSED); /* freed */
    xc_msg *error = xc_link_take_error(it.link, chan);
    CHECK(error != NULL && error->size == 5);
    xc_link_free_msg(it.link, error);
    CHECK(xc_link_take_error(it.link, chan) == NULL);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* An error for a channel that nobody holds, or only a callback does, is told otherwise. */
static void
orphaned_errors(void)
{
    rig it = rig_open(false);
    xc_chan *mark = new_chan(&it), *chan = new_chan(&it);
    int object;
    rig_send(&it, XC_CLOSE_ERROR, 77, "NQ", 2);
    settle(&it, mark);
    CHECK_INT(atomic_load(&rig_orphans), 1);
    CHECK(xc_link_object(it.link, chan, &object, rig_keep) == (void *)&object);
    rig_send(&it, XC_CLOSE_ERROR, chan->id, "NQ", 2);
    settle(&it, mark);
    CHECK_INT(atomic_load(&rig_orphans), 1); /* its object may ask ... */
    xc_link_drop_object(it.link, chan, chan->object);
    CHECK_INT(atomic_load(&rig_orphans), 2); /* ... and went without having asked */
    xc_link_drop_chan(it.link, mark);
    rig_close(&it);
}

static void
given_up(void)
{
    rig it = rig_open(false);
    int object;
    xc_chan *chan = new_chan(&it);
    CHECK(xc_link_object(it.link, chan, &object, rig_keep) == (void *)&object);
    xc_link_drop_object(it.link, chan, chan->object);
    expect_frame(it.from, XC_CLOSE, 1, NULL, 0);
    /* A callback goes on listening: nothing more is sent. */
    chan = new_chan(&it);
    CHECK(xc_link_set_callback(it.link, chan));
    CHECK(xc_link_chan_state(it.link, chan).callback);
    xc_link_drop_object(it.link, chan, chan->object);
    expect_frame(it.from, XC_LAST_MESSAGE, 3, NULL, 0);
    xc_link_end_callback(it.link, chan);
    expect_frame(it.from, XC_CLOSE, 3, NULL, 0);
    rig_close(&it);
    /* The link goes while a callback is still there. */
    it = rig_open(false);
    chan = new_chan(&it);
    CHECK(xc_link_set_callback(it.link, chan));
    send_int(&it, chan->id, 1);
    xc_link_drop_object(it.link, chan, chan->object);
    rig_close(&it);
}

static void
coercion(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *other = new_chan(&it);
    CHECK_INT(coercion_of_an_item(&it, chan), XC_COERCE_DEFAULT);
    send_int(&it, chan->id, 1);
    settle(&it, other);
    xc_link_set_coerce(it.link, chan, 2);
    xc_link_set_coerce(it.link, NULL, 3);
    xc_msg *before = take(&it, chan);
    CHECK_INT(before->coerce, XC_COERCE_DEFAULT);
    xc_link_free_msg(it.link, before);
    xc_chan *late = new_chan(&it);
    CHECK_INT(coercion_of_an_item(&it, chan), 2);
    CHECK_INT(coercion_of_an_item(&it, other), XC_COERCE_DEFAULT);
    CHECK_INT(coercion_of_an_item(&it, late), 3);
    xc_link_drop_chan(it.link, chan);
    xc_link_drop_chan(it.link, other);
    xc_link_drop_chan(it.link, late);
    rig_close(&it);
}

/* --- channels inside items ------------------------------------------------------------------------------------ */

static void
carried_channels_exist_at_once(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it);
    unsigned char payload[5 * 3 + 6];
    rig_send(&it, XC_DATA, chan->id, payload, put_chans(payload, 100, 2, 3));
    send_int(&it, 102, 7); /* before anybody has loaded the item */
    send_int(&it, 104, 8);
    rig_send(&it, XC_CLOSE, 104, NULL, 0);
    send_int(&it, 106, 9); /* not carried: dropped */
    xc_msg *msg = take(&it, chan);
    settle(&it, chan);
    CHECK_INT(msg->n_ids, 3);
    xc_chan *held = xc_link_carried(it.link, msg, 2, 104);
    CHECK(held == msg->carried[2] && held->id == 104);
    CHECK(xc_link_carried(it.link, msg, 2, 102) == NULL && xc_link_carried(it.link, msg, 3, 104) == NULL);
    xc_chan *loaded = chan_of(&it, 102);
    CHECK(loaded == msg->carried[1]);
    xc_link_free_msg(it.link, msg); /* 100 was not loaded: the far end learns that nobody listens there */
    expect_frame(it.from, XC_CLOSE, 100, NULL, 0);
    expect_int(&it, loaded, 7);
    expect_int(&it, held, 8);
    CHECK(take(&it, held) == NULL);
    xc_link_drop_chan(it.link, held);
    xc_link_drop_chan(it.link, loaded);
    expect_frame(it.from, XC_CLOSE, 102, NULL, 0);
    xc_chan *unknown = chan_of(&it, 106);
    CHECK(!is_ready(&it, XC_WAIT_ITEM, unknown));
    xc_link_drop_chan(it.link, unknown);
    xc_link_drop_chan(it.link, chan);
    rig_close(&it);
}

/* What is not received goes with its channel, and what that carries, too. */
static void
unreceived_items_are_freed(void)
{
    rig it = rig_open(false);
    xc_chan *chan = new_chan(&it), *mark = new_chan(&it);
    send_chan(&it, chan->id, 200);
    send_chan(&it, 200, 202);
    settle(&it, mark);
    CHECK_INT(state_of(&it).channels, 4);
    xc_link_drop_chan(it.link, chan);
    CHECK_INT(state_of(&it).channels, 1);
    expect_frame(it.from, XC_CLOSE, 1, NULL, 0);
    expect_frame(it.from, XC_CLOSE, 200, NULL, 0);
    expect_frame(it.from, XC_CLOSE, 202, NULL, 0);
    xc_link_drop_chan(it.link, mark);
    rig_close(&it);
}

enum { CHAIN = 65000 };

static rig chain_rig;
static xc_chan *chain_head;

static void *
drop_chain(void *arg)
{
    xc_link_drop_chan(chain_rig.link, chain_head);
    return arg;
}

/* Each channel's queue holds an item that carries the next one. A stack of 64 KiB is enough to free them all. */
static void
a_long_chain(void)
{
    pthread_t thread;
    pthread_attr_t small;
    wire stream = {NULL, 0, 0};
    unsigned char payload[11];
    chain_rig = rig_open(false);
    chain_head = new_chan(&chain_rig);
    xc_chan *mark = new_chan(&chain_rig);
    for (uint32_t i = 0; i < CHAIN; i++) {
        uint32_t id = i == 0 ? chain_head->id : 1000 + i;
        wire_add(&stream, XC_DATA, id, payload, put_chans(payload, 1000 + i + 1, 0, 1));
    }
    rig_send_wire(&chain_rig, &stream);
    wire_free(&stream);
    settle(&chain_rig, mark);
    CHECK_INT(state_of(&chain_rig).channels, CHAIN + 2);
    CHECK_INT(pthread_attr_init(&small), 0);
    CHECK_INT(pthread_attr_setstacksize(&small, 64 * 1024), 0);
    CHECK_INT(pthread_create(&thread, &small, drop_chain, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&small);
    CHECK_INT(state_of(&chain_rig).channels, 1);
    expect_frame(chain_rig.from, XC_CLOSE, 1, NULL, 0);
    for (uint32_t i = 1; i <= CHAIN; i++) {
        expect_frame(chain_rig.from, XC_CLOSE, 1000 + i, NULL, 0);
    }
    xc_link_drop_chan(chain_rig.link, mark);
    rig_close(&chain_rig);
}

/* One payload with very many channels: made, ended and freed in linear time, or the alarm comes. */
static void
a_crowd_in_one_item(void)
{
    for (int by_end = 0; by_end < 2; by_end++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it);
        unsigned char *payload = malloc(5 * CHAIN + 6);
        CHECK(payload != NULL);
        /* ids that a fixed multiplication would send to few slots */
        rig_send(&it, XC_DATA, chan->id, payload, put_chans(payload, 1 << 20, 1 << 12, CHAIN));
        xc_msg *msg = take(&it, chan);
        CHECK_INT(state_of(&it).channels, CHAIN + 1);
        if (by_end) {
            rig_hang_up(&it);
            await_fin(&it);
            CHECK_INT(state_of(&it).channels, 0);
        }
        xc_link_free_msg(it.link, msg);
        CHECK_INT(state_of(&it).channels, by_end ? 0 : 1);
        xc_link_drop_chan(it.link, chan);
        rig_close(&it);
        free(payload);
    }
}

/* A channel in its own queue, and two in each other's: nobody can ever receive them; they go with the link. */
static void
rings_go_with_the_link(void)
{
    for (int by_end = 0; by_end < 2; by_end++) {
        rig it = rig_open(false);
        xc_chan *chan = new_chan(&it), *one = new_chan(&it), *two = new_chan(&it), *mark = new_chan(&it);
        send_chan(&it, chan->id, chan->id);
        send_chan(&it, one->id, two->id);
        send_chan(&it, two->id, one->id);
        settle(&it, mark);
        xc_link_drop_chan(it.link, chan);
        xc_link_drop_chan(it.link, one);
        xc_link_drop_chan(it.link, two);
        xc_link_drop_chan(it.link, mark);
        if (by_end) {
            rig_hang_up(&it);
            await_fin(&it);
        }
        rig_close(&it);
    }
}

int
main(void)
{
    check_io_begin("chan", 100);
    RUN_IO(table_against_a_model);
    RUN_IO(table_without_memory);
    RUN_IO(ids_of_both_sides);
    RUN_IO(closed_by_this_side);
    RUN_IO(closed_by_the_far_side);
    RUN_IO(closed_with_an_own_error);
    RUN_IO(orphaned_errors);
    RUN_IO(given_up);
    RUN_IO(coercion);
    RUN_IO(carried_channels_exist_at_once);
    RUN_IO(unreceived_items_are_freed);
    RUN_IO(a_long_chain);
    RUN_IO(a_crowd_in_one_item);
    RUN_IO(rings_go_with_the_link);
    return check_end();
}
