/*
 * Registrations, and frames that come in two reads: is each one told, whoever reads for it? src/core/link/xc_wait.c,
 * xc_link_pump.c; what has come of a frame is in link->reader.
 *
 * A registration waits without a thread and never reads: a thread that waits for something else does, or the pump. It is
 * told by a number in an fd. The link is one of pipes. What happens under link->mu is one step.
 *
 * Nobody may sleep for ever beside what it waits for. A name that begins with NO_ takes one line out.
 */
#ifndef ITEMS
#define ITEMS 3 /* at most so many come, for the registration or for the thread */
#endif
#ifndef GIVE_UPS
#define GIVE_UPS 2 /* so many waits end before anything comes: by a signal, a deadline, or the program's will */
#endif

#define REGISTRATION 0
#define THREAD       1

chan stream = [2 * ITEMS] of { bit }; /* the halves of frames that have come: for whom */
bool half;                            /* of a frame was read */
byte items[2];
byte give_ups = GIVE_UPS;

bool waits, rung, bell; /* the thread is a waiter; waiter->rung; its bell */
bool joined, told;      /* the registration is among the waiters; its `rung` */
byte numbers;           /* in the fd */

bool reading, armed, rearm_set, used;

/* xc_wake_locked(), xc_ring_waiter() */
inline wake_locked()
{
    if
    :: waits && !rung && items[THREAD] > 0 -> rung = true; bell = true
    :: else
    fi;
    if
    :: joined && !told && items[REGISTRATION] > 0 ->
        told = true;
#ifndef NO_NUMBER
        numbers++
#endif
    :: else
    fi
}

inline hand_on_locked()
{
    if
    :: reading
#ifdef NO_CHECK_WHO_MAY_READ
    :: !reading && joined && !told -> told = true; numbers++
    :: !reading && !(joined && !told) && waits && !rung -> rung = true; bell = true
    :: !reading && !(joined && !told) && !(waits && !rung) ->
#else
    :: !reading && waits && !rung -> rung = true; bell = true
    :: !reading && !(waits && !rung) ->
#endif
        used = true;
#ifndef NO_TIMER
        rearm_set = (rearm_set || !armed)
#endif
    fi
}

/* xc_read_some() in xc_reader.c */
inline read_half()
{
    stream?whose;
    items[whose] = items[whose] + half;
    half = !half;
    whose = 0;
    wake_locked()
}

/* xc_link_wait_nogil(), again and again */
proctype thread()
{
    bool reader;
    bit whose;
end:
    do
    :: atomic { waits = true; rung = false }
check:
        atomic {
            if
            :: items[THREAD] > 0 -> goto leave
            :: else -> rung = false
            fi;
            if
            :: !reader && !reading -> reading = true; reader = true; armed = false /* xc_unwatch_locked() */
            :: else
            fi
        }
end_asleep:
        if
        :: atomic { reader && nempty(stream) -> read_half() }
        :: atomic { bell -> bell = false }
        :: atomic { give_ups > 0 -> give_ups--; goto leave }
        fi;
        goto check;
leave:
        atomic {
            waits = false;
            reading = (reader -> false : reading);
#ifdef NO_HALF_FRAME_IN_LINK
            half = (reader -> false : half);
#endif
            reader = false;
            items[THREAD] = (items[THREAD] > 0 -> items[THREAD] - 1 : 0);
#ifndef NO_HAND_ON
            hand_on_locked()
#endif
        }
        if
        :: true
        :: goto done /* it does something else from now on */
        fi
    od;
done:
}

/* Who registers: a program with many channels, again and again. */
proctype program()
{
end:
    do
    :: atomic {
            joined = true;
#ifdef NO_LOOK_AT_BEGIN
            told = false
#else
            told = (items[REGISTRATION] > 0)
#endif
        }
        do
        :: told -> break /* xc_registration_over() */
        :: !told ->
end_registered:
            if
            :: numbers > 0 -> numbers--
            :: atomic { give_ups > 0 -> give_ups-- } break
            fi
        od;
        atomic {
            joined = false;
            items[REGISTRATION] = (items[REGISTRATION] > 0 -> items[REGISTRATION] - 1 : 0)
        }
    od
}

/* The pump's thread: xc_readable(), drain(), xc_rearm(). */
proctype pump()
{
    bit whose;
end:
    do
    :: armed && nempty(stream) ->
        if
        :: atomic { reading -> armed = false }
        :: atomic { !reading -> reading = true }
            do
            :: atomic { nempty(stream) -> read_half() }
            :: empty(stream) -> break
            od;
            atomic {
                reading = false;
                hand_on_locked()
            }
        fi
    :: atomic { rearm_set -> rearm_set = false;
            if
            :: reading
            :: !reading && used -> used = false; rearm_set = true
            :: !reading && !used ->
#ifndef NO_WATCH_AT_TIMER
                armed = true
#endif
            fi
        }
    od
}

proctype far_end()
{
    byte sent;
    do
    :: sent < ITEMS -> sent++;
        if
        :: stream!REGISTRATION; stream!REGISTRATION
        :: stream!THREAD; stream!THREAD
        fi
    :: break
    od
}

/* Nobody can go on. */
proctype check_sleepers()
{
end:
    timeout;
    assert(!(joined && items[REGISTRATION] > 0) && !(waits && items[THREAD] > 0) && empty(stream) && !half)
}

init
{
    atomic {
        rearm_set = true; /* xc_link_new() in xc_link.c */
        run thread();
        run program();
        run pump();
        run far_end();
        run check_sleepers()
    }
}
