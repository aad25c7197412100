/*
 * A ring: does each side that sleeps wake? src/core/wire/xc_ring.c, with the sleep of src/core/system/xc_sync.c.
 *
 * Each side has a store buffer, as a CPU of x86 has: what it stores comes into memory later, in order. A fence (in C:
 * the store is sequentially consistent), an atomic exchange and a system call wait until the buffer is empty.
 *
 * No sleep ends by a slice or a deadline in here, so one that nobody ends is an invalid end state. A name that begins
 * with NO_ takes one line out; some have the side where it is missing as a value: -DNO_FENCE=W.
 */
#ifndef SIZE
#define SIZE 4 /* bytes in the ring; a quarter must be free before a writer is woken */
#endif
#ifndef BYTES
#define BYTES 5 /* at most so many are written */
#endif
#ifndef DISTURBANCES
#define DISTURBANCES 1 /* so often a signal comes to each side, or another thread, or the bell of the reader is rung */
#endif

#define W      0
#define R      1
#define NOBODY 9

#ifndef NO_FENCE
#define NO_FENCE NOBODY /* between the own index and the other side's flag */
#endif
#ifndef NO_FENCE_OF_FLAG
#define NO_FENCE_OF_FLAG NOBODY /* between the own flag and the second look */
#endif
#ifndef NO_SECOND_LOOK
#define NO_SECOND_LOOK NOBODY
#endif
#ifndef NO_WAKE_AT_CLOSE
#define NO_WAKE_AT_CLOSE NOBODY
#endif

/* The flag `sleeps`. */
#define AWAKE  0
#define THREAD 1
#define PUMP   2

/* The state of a bell. */
#define IDLE        0
#define SLEEPING_AT 1
#define RUNG        2

/* What is stored. */
#define AT     0
#define SLEEPS 1
#define CLOSED 2

/* The shared memory: what the writer's end and the reader's end show. */
byte at[2];
byte sleeps[2];
bool closed[2];

chan stores[2] = [3] of { byte, byte }; /* the store buffers: what, value */
bool queued[2];                         /* in the kernel: that side's thread sleeps at its flag */
bool pipe[2];                           /* in the kernel: a notification for that side's pump */
byte bell;                              /* of the reader's thread */
bool news;                              /* something else that this thread must see, for which its bell is rung */
byte disturbed[2];                      /* so many signals, and changes of the role, are still to come */
byte bytes;                             /* so many are written */
bool ends;                              /* the writer then closes the ring, or else only stops */

#define store(me, what, value) stores[me]!what,value
#define fence(me)              empty(stores[me])
#define smaller(a, b)          (a < b -> a : b)
#define known(me)              (me == W -> SIZE - (mine - seen) : seen - mine) /* known() in xc_ring.c */

/* The CPU of a side: brings its stores into memory whenever it likes. */
proctype cpu(bit me)
{
    byte value;
end:
    do
    :: atomic { stores[me]?AT,value -> at[me] = value }
    :: atomic { stores[me]?SLEEPS,value -> sleeps[me] = value }
    :: atomic { stores[me]?CLOSED,value -> closed[me] = value }
    od
}

/* wake_other() in xc_ring.c. */
inline wake_other(me)
{
    who = sleeps[1 - me];
    if
    :: who == AWAKE
    :: who != AWAKE ->
        atomic { /* compare and exchange */
            fence(me);
            if
            :: sleeps[1 - me] == who -> sleeps[1 - me] = AWAKE
            :: else -> who = AWAKE
            fi
        }
        if
#ifndef NO_FUTEX_WAKE
        :: atomic { who == THREAD -> queued[1 - me] = false; who = AWAKE }
#endif
#ifndef NO_NOTIFICATION
        :: atomic { who == PUMP -> pipe[1 - me] = true; who = AWAKE }
#endif
        :: else -> who = AWAKE
        fi
    fi
}

/* publish() in xc_ring.c. */
inline publish(me)
{
    store(me, AT, mine);
    if
    :: me == NO_FENCE
    :: else -> fence(me)
    fi;
    if
#ifdef NO_LIMIT_OF_ROOM
    :: me == W || SIZE - (seen - mine) > SIZE -> wake_other(me)
#else
    :: me == W || SIZE - (seen - mine) >= SIZE / 4 -> wake_other(me)
#endif
    :: else
    fi
}

/* xc_ring_close() in xc_ring.c. */
inline close_ring(me)
{
    store(me, CLOSED, true);
#ifndef NO_FENCE_OF_CLOSE
    fence(me);
#endif
    if
    :: me == NO_WAKE_AT_CLOSE
    :: else -> wake_other(me)
    fi
}

/* move() in xc_ring.c: copies `part` bytes, or those that are known, and publishes after each quarter of the ring. */
inline move(me)
{
    do
    :: part > 0 && known(me) > 0 ->
        d_step {
            count = smaller(part, known(me));
            count = smaller(count, SIZE / 4);
            mine = mine + count;
            part = part - count;
            count = 0
        }
        publish(me)
    :: else -> part = 0; break
    od
}

/* has_changed() in xc_ring.c. */
inline look(me)
{
    changed = (me == W -> at[1 - me] + SIZE != mine : at[1 - me] != mine);
#ifndef NO_LOOK_FOR_CLOSE
    changed = (changed || closed[1 - me])
#endif
}

/* set_sleeping() in xc_ring.c. It also looks before: without that look nobody would sleep for ever, but the other side
 * might notify too soon (move.pml). */
inline set_sleeping(me, sleeper)
{
    look(me);
    if
    :: changed
    :: else ->
        store(me, SLEEPS, sleeper);
        if
        :: me == NO_FENCE_OF_FLAG
        :: else -> fence(me)
        fi;
        if
        :: me == NO_SECOND_LOOK
        :: else -> look(me)
        fi
    fi
}

/* xc_bell_sleep_at_nogil() in xc_sync.c. */
inline sleep_at_flag(me)
{
    atomic { /* compare and exchange */
        fence(me);
        if
        :: me == R && bell == IDLE -> bell = SLEEPING_AT
        :: me == R && bell == RUNG -> bell = IDLE; changed = true
        :: me == W
        fi
    }
    if
    :: changed
    :: else ->
        atomic { queued[me] = (sleeps[me] == THREAD) } /* futex(2) looks and joins its queue in one step */
        if
        :: atomic { !queued[me] -> bell = (me == R -> IDLE : bell) }
        :: atomic { queued[me] && disturbed[me] > 0 -> disturbed[me]--; queued[me] = false } /* a signal */
            atomic { bell = (me == R && bell == SLEEPING_AT -> IDLE : bell) } /* a ring is left for the next sleep */
        fi
    fi
}

/* After XC_AGAIN. Either a thread sleeps: xc_ring_sleep_nogil() in xc_ring.c. Or the pump is to be notified:
 * xc_ring_arm() in xc_ring.c, for watch_locked() in xc_link_pump.c and watch_for_room_locked() in xc_writer.c. */
inline wait(me, other_news)
{
    if
    :: set_sleeping(me, THREAD);
        if
        :: changed
        :: else -> sleep_at_flag(me)
        fi;
        store(me, SLEEPS, AWAKE);
        fence(me)
    :: set_sleeping(me, PUMP);
        if
        :: changed -> store(me, SLEEPS, AWAKE); fence(me)
        :: else ->
            fence(me);
            if
            :: pipe[me] -> pipe[me] = false /* take_notifications() in xc_link_pump.c */
            :: atomic { disturbed[me] > 0 -> disturbed[me]-- } /* a thread takes the role: xc_ring_disarm() */
                store(me, SLEEPS, AWAKE);
                fence(me)
            :: other_news -> store(me, SLEEPS, AWAKE); fence(me) /* the same */
            fi
        fi
    fi;
    changed = false
}

/* Who has the writer role, thread or pump: xc_ring_write() in xc_ring.c, called by xc_writer_send_nogil() and
 * xc_writer_flush() in xc_writer.c. */
proctype writer()
{
    byte mine, seen, who, part, count;
    bool changed;
    do
    :: mine == bytes || closed[R] -> break
    :: mine < bytes && !closed[R] ->
        atomic {
            if
            :: part = 1
            :: part = bytes - mine
            fi;
            if
            :: known(W) < part -> seen = at[R]
            :: else
            fi
        }
        if
        :: known(W) == 0 -> part = 0; wait(W, false)
        :: known(W) > 0 -> move(W)
        fi
    od;
    if
    :: ends -> close_ring(W)
    :: else
    fi
}

/* Who has the reader role, thread or pump: read_parts() and nothing_to_read() in xc_ring.c, called through
 * xc_read_some() in xc_reader.c by read_once() in xc_wait.c and drain() in xc_link_pump.c. */
proctype reader()
{
    byte mine, seen, who, part, count;
    bool changed, told;
    do
    :: news && !told -> told = true
    :: told && mine == bytes && !ends -> break
    :: mine > 0 -> close_ring(R); break /* this side ends the link: xc_end_reading() in xc_link.c */
    :: !(news && !told) && !(told && mine == bytes && !ends) ->
        atomic {
            if
            :: part = 1
            :: part = SIZE
            fi;
            if
            :: known(R) < part -> seen = at[W]
            :: else
            fi
        }
        if
        :: known(R) == 0 && closed[W] ->
#ifndef NO_LOOK_BEHIND_CLOSE
            seen = at[W];
#endif
            if
            :: known(R) == 0 -> assert(mine == bytes); break /* the end; nothing may be lost */
            :: else -> move(R)
            fi
        :: known(R) == 0 && !closed[W] -> part = 0; wait(R, news && !told)
        :: known(R) > 0 -> move(R)
        fi
    od
}

/* Another thread of the reader's process: xc_bell_ring() and ring_at_word() in xc_sync.c. */
proctype ringer()
{
    byte was;
    news = true;
    atomic { was = bell; bell = RUNG } /* exchange */
    if
    :: was == SLEEPING_AT ->
#ifndef NO_WORD
        atomic { sleeps[R] = (sleeps[R] == THREAD -> AWAKE : sleeps[R]) } /* compare and exchange */
#endif
#ifndef NO_WAKE_AT_WORD
        queued[R] = false
#endif
    :: else
    fi
}

init
{
    atomic {
        select(bytes : 0 .. BYTES);
        if
        :: ends = true
        :: ends = false
        fi;
        disturbed[W] = DISTURBANCES;
        disturbed[R] = DISTURBANCES;
        run cpu(W);
        run cpu(R);
        run writer();
        run reader();
        if
        :: DISTURBANCES > 0 -> run ringer()
        :: else -> news = true
        fi
    }
}
