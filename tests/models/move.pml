/*
 * A link moves from its pipes to its rings: does each frame arrive, and is no notification taken for a frame?
 * src/core/link/xc_move.c, xc_link_pump.c, xc_writer.c, xc_writer_post.c, set_sleeping() in src/core/wire/xc_ring.c.
 *
 * The worker moves first, the near end when it has seen that. Behind a side's MOVE its pipe has only notifications, one
 * byte each, for the other side's pump. Threads only post frames, which the pump writes; the pump also reads. What the
 * worker sends before the near end has moved fits into the ring: it is one hello.
 *
 * Here memory is sequentially consistent; ring.pml has store buffers. A name that begins with NO_ takes one line out.
 */
#ifndef ITEMS
#define ITEMS 3 /* of the worker, through its ring */
#endif
#ifndef ANSWERS
#define ANSWERS 1 /* of the near end */
#endif
#define SIZE 2 /* items in a ring */

#define WORKER   0
#define NEAR_END 1

mtype = { FRAME, MOVE, NOTIFICATION };

/* By the side that writes there. */
chan pipe[2] = [8] of { mtype };
byte ring[2];  /* so many items are in it */
bool moved[2]; /* writes to its ring */
byte outbox[2];
byte posted[2];
byte most[2];
bool writing[2]; /* writer.mu is held */
bool room[2];    /* `sleeps` of the ring's writer: its pump shall be notified of room */

/* By the side that reads. */
bool reads_ring[2];
bool news[2]; /* `sleeps` of the ring's reader: its pump shall be notified of items */
byte got[2];
bool flush[2], again[2]; /* timers: the writer shall try again, the reader too */

/* wake_other() in xc_ring.c: if that flag of the other side is up. A full pipe has a notification already. */
inline notify(me, flag)
{
    atomic {
        if
        :: flag -> flag = false;
            if
            :: nfull(pipe[me]) -> pipe[me]!NOTIFICATION
            :: full(pipe[me])
            fi
        :: else
        fi
    }
}

/* xc_ring_arm() in xc_ring.c; `changed` stays true if the timer must do it. */
inline arm(flag, has_changed, timer)
{
#ifndef NO_LOOK_BEFORE_FLAG
    changed = has_changed;
#endif
    if
    :: changed
    :: !changed ->
        flag = true;
#ifndef NO_SECOND_LOOK
        changed = has_changed
#endif
    fi;
    atomic {
        if
        :: changed -> flag = false; timer = true; changed = false
        :: else
        fi
    }
}

/* Threads that send. */
proctype poster(bit me)
{
    bool changed;
    pipe[me]!FRAME;
    me == WORKER || reads_ring[me];
    atomic { pipe[me]!MOVE; moved[me] = true } /* xc_link_move_nogil(): with the writer role */
    do
    :: posted[me] == most[me] -> break
    :: posted[me] < most[me] ->
        /* xc_writer_post(), xc_writer_release_locked() */
        atomic {
            !writing[me] && (moved[1 - me] || outbox[me] + ring[me] + 1 < SIZE) ->
            writing[me] = true;
            outbox[me]++;
            posted[me]++
        }
        arm(room[me], ring[me] < SIZE, flush[me]);
        writing[me] = false
    od
}

/* drain() in xc_link_pump.c, behind a move. */
inline drain(me)
{
    do
    :: ring[1 - me] > 0 ->
        atomic { ring[1 - me]--; got[me]++ }
        notify(me, room[1 - me])
    :: ring[1 - me] == 0 -> break
    od;
    arm(news[me], ring[1 - me] > 0, again[me])
}

/* The pump's thread. */
proctype pump(bit me)
{
    bool changed;
end:
    do
    :: atomic { flush[me] && !writing[me] -> flush[me] = false; writing[me] = true } /* xc_writer_flush() */
        do
        :: outbox[me] > 0 && ring[me] < SIZE ->
            atomic { outbox[me]--; ring[me]++ }
            notify(me, news[1 - me])
        :: outbox[me] == 0 -> break
        :: outbox[me] > 0 && ring[me] == SIZE -> arm(room[me], ring[me] < SIZE, flush[me]); break
        od;
        writing[me] = false
    :: !reads_ring[me] && nempty(pipe[1 - me]) -> /* xc_read_some() in xc_reader.c */
        if
        :: pipe[1 - me]?FRAME
        :: pipe[1 - me]?NOTIFICATION -> assert(false) /* taken for a frame */
        :: atomic {
                pipe[1 - me]?MOVE -> /* xc_take_move() */
                reads_ring[me] = true;
                do /* what is in the buffer behind it is dropped */
                :: pipe[1 - me]?NOTIFICATION
                :: break
                od;
#ifndef NO_FLUSH_AT_MOVE
                flush[me] = true
#endif
            }
#ifndef NO_DRAIN_AT_MOVE
            drain(me)
#endif
        fi
    :: reads_ring[me] && nempty(pipe[1 - me]) -> /* take_notifications() */
        atomic {
            do
            :: pipe[1 - me]?NOTIFICATION
            :: empty(pipe[1 - me]) -> break
            od;
#ifndef NO_FLUSH_AT_NOTIFICATION
            flush[me] = true
#endif
        }
        drain(me)
    :: atomic { again[me] -> again[me] = false }
        drain(me)
    od
}

/* Nobody can go on. */
proctype check_all_came()
{
end:
    timeout;
    assert(outbox[0] == 0 && outbox[1] == 0 && got[NEAR_END] == ITEMS && got[WORKER] == ANSWERS)
}

init
{
    atomic {
        most[WORKER] = ITEMS;
        most[NEAR_END] = ANSWERS;
        run poster(WORKER);
        run poster(NEAR_END);
        run pump(WORKER);
        run pump(NEAR_END);
        run check_all_came()
    }
}
