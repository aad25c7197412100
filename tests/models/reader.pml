/*
 * The reader role: does everybody who waits at a link get what is there for him, and does somebody always watch the
 * stream? src/core/link/xc_wait.c, xc_reader.c, xc_link_pump.c.
 *
 * What happens under link->mu is one step in here, and so is what two sides do to each other at a ring, which ring.pml
 * looks into. The stream is a ring (RING=1) or an fd (RING=0).
 *
 * Deadlines and signals come only now and then, and no sleep ends by a slice. So when nobody can go on (`timeout`)
 * those who sleep would sleep for ever; then nothing may be there for them. A name that begins with NO_ takes one line
 * out; ONLY_SLEEPERS then leaves to that last check to find it.
 */
#ifndef RING
#define RING 1
#endif
#ifndef ITEMS
#define ITEMS 2 /* the far end sends at most so many */
#endif
#ifndef DISTURBANCES
#define DISTURBANCES 1 /* at most so often a wait ends by a signal or its deadline */
#endif
#define PUMP_READS 2 /* 16 in C */
#define SOON_READS 2

/* What the far end's index has to notify, as in ring.pml. */
#define AWAKE  0
#define THREAD 1
#define PUMP   2

/* Result codes. */
#define OK      0
#define AGAIN   1
#define ENDED   2 /* XC_CLOSED */
#define STOPPED 3 /* XC_TIMEOUT, XC_INTR */

/* Outside: the stream, the far end's process, the kernel. */
chan stream = [ITEMS] of { bit }; /* items for channel 0 or 1 */
bool closed;                      /* behind them the stream ends */
bool dead;                        /* the far end's process has ended */
byte sleeps;                      /* ring: whom the next change wakes */
bool pipe;                        /* ring: a notification for the pump */
byte disturbances;                /* so many are still to come */

/* The link, under its mutex. The waiter of channel 0, of channel 1. */
byte items[2];    /* chan->items */
bool waits[2];    /* stands in link->wait.waiters */
bool may_read[2]; /* may_read(): false for a callback thread or a spare thread */
bool rung[2];     /* waiter->rung */
bool bell[2];     /* its doorbell has been rung */
bool asleep[2];   /* for the checks */
bool reading;     /* link->wait.reading */
bool armed;       /* fd: link->pump.watch.armed */
bool notified;    /* ring: link->pump.notified */
bool used;        /* link->pump.used */
bool rearm_set;   /* link->pump.rearm_set */
bool timer;       /* that timer runs */
bool pump_reads;  /* the pump is about to call drain() */
bool peer_gone;   /* link->end.peer_gone */
bool eof;         /* link->end.eof */
bool fin;         /* link->end.fin: all channels are closed */

#define READY(i)    (items[i] > 0 || fin)                 /* xc_ready_locked() in xc_wait.c, XC_WAIT_ITEM */
#define CAN_READ(i) (waits[i] && may_read[i] && !rung[i]) /* next_reader_locked() in xc_wait.c */
#define WATCHED     (RING -> notified : armed)            /* xc_watched_locked() in xc_link_pump.c */
#define COMES(i)    (waits[i] && may_read[i] && rung[i])  /* was woken and will look for the role */

/* The invariant of xc_link_pump.c, whenever the mutex is free. */
inline somebody_watches()
{
#ifndef ONLY_SLEEPERS
    assert(eof || reading || WATCHED || rearm_set || pump_reads || COMES(0) || COMES(1))
#else
    skip
#endif
}

/* xc_ring_waiter() in xc_wait.c. */
inline ring_waiter(i)
{
    rung[i] = true;
    bell[i] = true
}

/* xc_wake_locked() in xc_wait.c. */
inline wake_locked()
{
    if
    :: waits[0] && !rung[0] && READY(0) -> ring_waiter(0)
    :: else
    fi;
    if
    :: waits[1] && !rung[1] && READY(1) -> ring_waiter(1)
    :: else
    fi
}

/* xc_ring_all_locked() in xc_wait.c. */
inline ring_all_locked()
{
    if
    :: waits[0] -> ring_waiter(0)
    :: else
    fi;
    if
    :: waits[1] -> ring_waiter(1)
    :: else
    fi
}

/* set_sleeping() in xc_ring.c: at once, as ring.pml shows. */
inline set_sleeping(who)
{
    sleeps = (len(stream) == 0 && !closed -> who : AWAKE)
}

/* xc_unwatch_locked() in xc_link_pump.c. */
inline unwatch_locked()
{
    armed = false;
    if
    :: notified -> sleeps = AWAKE; notified = false
    :: else
    fi
}

/* watch_locked() in xc_link_pump.c. */
inline watch_locked()
{
    if
    :: RING -> set_sleeping(PUMP); notified = (sleeps == PUMP)
    :: else -> armed = true
    fi
}

/* xc_pump_set() of link->pump.rearm, as in read_again_soon_locked() in xc_link_pump.c. A timer may fire at any time. */
inline set_timer()
{
    rearm_set = true;
    timer = true
}

/* xc_hand_on_locked() in xc_wait.c. */
inline hand_on_locked()
{
    if
    :: reading || eof
#ifndef NO_RING_NEXT
    :: !reading && !eof && CAN_READ(0) -> ring_waiter(0)
    :: !reading && !eof && CAN_READ(1) -> ring_waiter(1)
#else
    :: !reading && !eof && (CAN_READ(0) || CAN_READ(1))
#endif
    :: else ->
        used = true;
        if
#ifndef NO_TIMER
        :: !WATCHED && !rearm_set -> set_timer()
#endif
        :: else
        fi
    fi
}

/* xc_end_reading() in xc_link.c. FIN takes effect now, or after a callback: dispatcher(). */
inline end_reading()
{
    atomic {
        assert(empty(stream)); /* nothing that was written is lost */
        eof = true;
        armed = false;
        notified = false;
        if
        :: fin = true
        :: skip
        fi;
#ifndef NO_RING_ALL
        ring_all_locked()
#endif
    }
}

/* xc_read_some() and deliver() in xc_reader.c. Sets rc; what ended the stream has taken effect then. */
inline read_some(gone, item)
{
    gone = peer_gone;
    atomic {
        if
        :: stream?item ->
            rc = OK;
            items[item]++;
            item = 0;
#ifndef NO_WAKE
            wake_locked();
#endif
            somebody_watches()
        :: empty(stream) && closed -> rc = ENDED
        :: empty(stream) && !closed -> rc = (gone -> ENDED : AGAIN)
        fi;
        gone = false
    }
    if
    :: rc == ENDED -> end_reading()
    :: rc != ENDED
    fi
}

/* A thread of the program that waits for items of channel `me`: xc_link_take_soon() and xc_link_wait_nogil() in
 * xc_wait.c, as channel.receive() calls them again and again. */
proctype waiter(bit me)
{
    byte rc, reads;
    bit item;
    bool reader, woken, gone;

receive: /* xc_link_take_soon() */
    atomic {
        if
        :: items[me] > 0 -> items[me]--; goto receive
        :: items[me] == 0 && RING && !CAN_READ(0) && !CAN_READ(1) && !reading && !eof && may_read[me] ->
            reading = true;
            unwatch_locked()
        :: items[me] == 0 -> goto wait
        fi;
        reads = SOON_READS
    }
    do
    :: reads > 0 && items[me] == 0 && rc == OK ->
        atomic {
            reads--;
            if
            :: empty(stream) && !closed -> rc = AGAIN /* it has spun for nothing */
            :: nempty(stream) || closed
            fi
        }
        if
        :: rc == OK -> read_some(gone, item)
        :: rc != OK
        fi
    :: else -> break
    od;
    atomic {
        reads = 0;
        rc = OK;
        reading = false;
#ifndef NO_HAND_ON_SOON
        hand_on_locked();
#endif
        somebody_watches();
        if
        :: items[me] > 0 -> items[me]--; goto receive
        :: items[me] > 0 -> items[me]--; goto done /* does something else from now on */
        :: items[me] == 0
        fi
    }

wait: /* xc_link_wait_nogil() */
    atomic { waits[me] = true }
check:
    atomic {
        asleep[me] = false;
        if
        :: READY(me) || rc == STOPPED -> goto leave
        :: woken && disturbances > 0 -> disturbances--; goto leave /* check_clock() */
        :: !READY(me) && rc != STOPPED
        fi;
        woken = false;
        rung[me] = false;
        if
        :: reader && eof -> reading = false; reader = false
        :: else
        fi;
        if
        :: !reader && !reading && !eof && may_read[me] -> /* take_role_locked() */
            reading = true;
            reader = true;
            unwatch_locked()
        :: else
        fi;
        somebody_watches();
        asleep[me] = !reader
    }
    if
    :: !reader -> /* xc_bell_sleep_nogil(): another one reads. A ring stays for the next sleep after a signal */
end_at_bell:
        if
        :: atomic { bell[me] -> bell[me] = false; woken = true }
        :: atomic { disturbances > 0 -> disturbances--; rc = STOPPED }
        fi
    :: reader ->
        read_some(gone, item); /* read_round() */
        if
        :: atomic { rc != AGAIN -> rc = OK; woken = true }
        :: atomic { rc == AGAIN && RING -> rc = OK; set_sleeping(THREAD); asleep[me] = (sleeps == THREAD) }
end_at_ring:
            if
            :: atomic { sleeps != THREAD || bell[me] -> bell[me] = false }
            :: atomic { disturbances > 0 -> disturbances--; rc = STOPPED }
            fi;
            atomic { sleeps = AWAKE; asleep[me] = false }
        :: atomic { rc == AGAIN && !RING -> rc = OK; asleep[me] = true }
end_at_fd:
            if
            :: atomic { nempty(stream) || closed || bell[me] -> bell[me] = false }
            :: atomic { disturbances > 0 -> disturbances--; rc = STOPPED }
            fi
        fi
    fi;
    goto check;

leave: /* the one way out */
    atomic {
        waits[me] = false;
        rung[me] = false;
        reading = (reader -> false : reading);
        reader = false;
        woken = false;
        rc = OK;
#ifndef NO_HAND_ON
        hand_on_locked();
#endif
        somebody_watches();
        if
        :: items[me] > 0 -> items[me]--; goto receive
        :: items[me] == 0 && fin
        :: items[me] == 0 && !fin -> goto receive /* a signal handler has run: receives again */
        :: items[me] == 0 && !fin                 /* a timeout: does something else from now on */
        fi
    }
done:
}

/* drain() in xc_link_pump.c. */
inline drain()
{
    atomic {
        pump_reads = false;
        if
        :: reading || eof -> unwatch_locked()
        :: else -> reading = true; notified = false; rc = OK; reads = PUMP_READS
        fi;
        somebody_watches()
    }
    if
    :: reads == 0
    :: reads > 0 ->
        do
        :: reads > 0 && rc == OK -> read_some(gone, item); reads--
        :: else -> break
        od;
        atomic {
            reading = false;
            if
            :: RING && !eof && rc == OK -> set_timer()
            :: RING && !eof && rc != OK ->
                watch_locked();
                if
                :: !notified -> set_timer()
                :: else
                fi
            :: else
            fi;
            hand_on_locked();
            somebody_watches();
            reads = 0;
            rc = OK
        }
    fi
}

/* The pump's thread: xc_readable() and xc_rearm() in xc_link_pump.c. */
proctype pump()
{
    byte rc, reads;
    bit item;
    bool gone, over, drains;
end:
    do
    :: atomic { RING && pipe && !eof -> pipe = false } drain()
    :: atomic { !RING && armed && (nempty(stream) || closed) -> skip } drain() /* perhaps disarmed meanwhile */
    :: atomic { timer -> timer = false; over = peer_gone }
        atomic { /* xc_rearm() */
            rearm_set = false;
            drains = over;
            if
            :: eof || reading -> drains = false
            :: !eof && !reading && used && !over -> used = false; set_timer()
            :: !eof && !reading && !used && !over ->
#ifndef NO_WATCH_AT_TIMER
                watch_locked();
#endif
#ifndef NO_DRAIN_AT_TIMER
                drains = (RING && !notified) /* XC_AGAIN */
#endif
            :: else
            fi;
            pump_reads = drains;
            somebody_watches()
        }
        if
        :: drains -> drains = false; drain();
            atomic {
                if
                :: over && !eof && !reading -> set_timer()
                :: else
                fi
            }
        :: else
        fi;
        over = false
    od
}

/* The thread that runs callbacks: FIN takes effect behind them. xc_dispatch.c, xc_apply_locked() in xc_inbox.c. */
proctype dispatcher()
{
end:
    atomic {
        eof && !fin -> fin = true;
#ifndef NO_WAKE_AT_FIN
        wake_locked()
#endif
    }
}

/* Who learns that the far end's process is dead, or that its fds hang up: xc_link_peer_gone() and xc_poll_soon() in
 * xc_link_pump.c, called by xc_launch.c and by take_notifications(). */
proctype watcher()
{
end:
    dead;
    peer_gone = true;
    atomic {
#ifndef NO_RING_AT_DEATH
        ring_all_locked();
#endif
        if
#ifndef NO_TIMER_AT_DEATH
        :: !eof -> set_timer()
#endif
        :: else
        fi;
        somebody_watches()
    }
}

/* The far end: publish() and xc_ring_close() in xc_ring.c, or write(2). It stops, closes its end, or dies. */
proctype far_end()
{
    byte sent;
    bool over;
    do
    :: !over ->
        atomic {
            if
            :: sent < ITEMS -> stream!0; sent++
            :: sent < ITEMS -> stream!1; sent++
            :: closed = true; over = true
            :: dead = true; over = true; goto done /* nobody says it in the stream: others hold it open */
            :: goto done
            fi;
            pipe = (sleeps == PUMP -> true : pipe);
            sleeps = AWAKE
        }
    :: over -> break
    od;
done:
}

/* Nobody can go on. */
proctype check_sleepers()
{
end:
    timeout;
    assert(!(asleep[0] && READY(0)));
    assert(!(asleep[1] && READY(1)));
    assert(eof || (empty(stream) && !closed && !peer_gone))
}

init
{
    atomic {
        may_read[0] = true;
        if
        :: may_read[1] = true
        :: may_read[1] = false
        fi;
        select(disturbances : 0 .. DISTURBANCES);
        hand_on_locked(); /* xc_link_new() in xc_link.c */
        run waiter(0);
        run waiter(1);
        run pump();
        run dispatcher();
        run watcher();
        run far_end();
        run check_sleepers()
    }
}
