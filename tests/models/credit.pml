/*
 * Flow control: does each sender that waits for credit go on? src/core/link/xc_credit.c, src/py/flow.c; and
 * xc_owe_locked() and xc_pay() in src/core/link/xc_answer.c: a credit is told at once, or noted while the outbox is full.
 *
 * Two claims of one end send on a limited channel, one as a waiter and one by a job, or both in the same way; they have
 * one owner or two. The other
 * end's program takes the items when it likes, or gives them to a callback, and may change the limit. What happens under
 * link->mu is one step. Frames of one direction stay in order; but what was claimed may be written behind a WAITS.
 *
 * Deadlines come only now and then. So a sender who could go on and is never woken is an invalid end state. A name that
 * begins with NO_ takes one line out.
 */
#ifndef ITEMS
#define ITEMS 2 /* of each sender */
#endif
#ifndef LIMIT
#define LIMIT 4
#endif
#ifndef GIVE_UPS
#define GIVE_UPS 1 /* at most so many waits end by a deadline, and so many claimed items are not sent */
#endif
#ifndef CHANGES
#define CHANGES 1 /* at most so often the limit is changed: to 1, or to none */
#endif
#ifndef ONE_OWNER
#define ONE_OWNER 1 /* 0: they have two */
#endif
#define NO_LIMIT 99
#define NOBODY   2
#define MOST     LIMIT /* the cost of an item is 1 or this */

/* Frames. */
#define DATA   0
#define WAITS  1
#define CREDIT 2

chan there = [20] of { byte, byte };       /* from the senders: code, cost */
chan back = [20] of { byte, byte, byte }; /* code, taken, limit */

/* The senders' link. A thread's claim: */
byte cost[2];
bool waits[2];  /* it stands in the line */
bool by_job[2]; /* claim->job: line_moves_locked() wakes it; else xc_wake_locked() */
bool posted[2];
bool woken[2];
byte first = NOBODY, second = NOBODY; /* the line */
byte sent, taken_there;
byte limit_out = LIMIT;
bool asked;
bool one_owner;
byte give_ups, changes; /* so many are still to come */

/* The receiver's link. */
chan items = [2 * ITEMS] of { byte };
byte behind; /* the cost of the item that a callback has */
byte taken, told;
byte limit_in = LIMIT;
bool peer_waits;
bool owed;  /* a credit is due, and not told yet */
byte noted; /* so many answers wait in `answers.owed` */

#define under_way      (sent - taken_there)
#define is_free        (limit_out == NO_LIMIT)
#define fits(who)      (is_free || under_way == 0 || under_way + cost[who] <= limit_out)
#define has_turn(who)  (first == NOBODY || first == who || one_owner) /* place_in_line_locked() */
#define ready(who)     (is_free || (has_turn(who) && fits(who)))
#define all_taken      (len(items) == 0 && behind == 0)

inline line_moves()
{
    if
    :: first != NOBODY && by_job[first] && !posted[first] && ready(first) ->
        posted[first] = true;
        woken[first] = true
    :: else
    fi;
    if
    :: second != NOBODY && by_job[second] && !posted[second] && ready(second) ->
        posted[second] = true;
        woken[second] = true
    :: else
    fi;
    if
#ifndef NO_WAITS
    :: first != NOBODY && !asked && !fits(first) -> asked = true; there!WAITS,0
#endif
    :: else
    fi
}

/* xc_wake_locked(): the waiters whose condition holds. */
inline wake()
{
    woken[0] = (woken[0] || (waits[0] && !by_job[0] && ready(0)));
    woken[1] = (woken[1] || (waits[1] && !by_job[1] && ready(1)))
}

inline leave_line(me)
{
    if
    :: first == me -> first = second; second = NOBODY
    :: else -> second = NOBODY
    fi;
    waits[me] = false;
#ifndef NO_MOVE_AT_LEAVE
    line_moves();
#endif
#ifndef NO_WAKE_AT_LEAVE
    wake();
#endif
}

proctype sender(byte me)
{
    byte n;
    do
    :: n == ITEMS -> break
    :: n < ITEMS ->
        if
        :: cost[me] = 1
        :: cost[me] = MOST
        fi;
claim:
        atomic { /* xc_link_claim() */
            posted[me] = false;
            woken[me] = false;
            if
            :: ready(me) ->
                sent = sent + cost[me];
                if
                :: waits[me] -> leave_line(me)
#ifndef NO_MOVE_AT_PASSING
                :: !waits[me] -> line_moves()
#endif
                :: else
                fi;
                goto claimed
            :: else ->
                if
                :: waits[me]
                :: !waits[me] ->
                    if
                    :: first == NOBODY -> first = me
                    :: first != NOBODY && one_owner -> second = first; first = me
                    :: else -> second = me
                    fi;
                    waits[me] = true;
                    line_moves()
                fi
            fi
        }
        if
        :: woken[me] -> goto claim
        :: atomic { give_ups > 0 -> give_ups--; leave_line(me) } /* xc_link_unclaim() */
            goto next
        fi;
claimed:
        if
        :: there!DATA,cost[me]
        :: atomic { give_ups > 0 -> give_ups--; sent = sent - cost[me]; /* xc_link_unsent() */
                if
#ifndef NO_MOVE_AT_UNSENT
                :: first != NOBODY -> line_moves(); wake()
#endif
                :: else
                fi
            }
        fi;
next:
        n++
    od
}

/* Who reads the senders' link: take_credit_locked(), then xc_wake_locked(). */
proctype senders_reader()
{
    byte its_taken, its_limit;
end:
    do
    :: atomic {
            back?CREDIT,its_taken,its_limit ->
            assert(its_taken <= sent && its_taken >= taken_there);
            taken_there = its_taken;
            limit_out = its_limit;
#ifndef NO_NEW_QUESTION
            asked = false;
#endif
#ifndef NO_MOVE_AT_CREDIT
            line_moves();
#endif
#ifndef NO_WAKE_AT_CREDIT
            wake();
#endif
            its_taken = 0;
            its_limit = 0
        }
    od
}

inline tell()
{
#ifndef NO_END_OF_DEBT
    owed = false;
#endif
    told = taken;
    peer_waits = (peer_waits && !all_taken);
    back!CREDIT,taken,limit_in
}

/* owe_locked(): told at once, or noted behind other answers, or because there is no room. */
inline owe()
{
    if
    :: owed
    :: !owed ->
        owed = true;
        if
        :: noted == 0 -> tell()
        :: noted++
        fi
    fi
}

/* xc_credit_tell_locked() */
inline was_taken(n)
{
    taken = taken + n;
    if
#ifdef NO_CREDIT_FOR_WAITS
    :: limit_in != NO_LIMIT && taken - told >= limit_in / 2 -> owe()
#else
    :: (limit_in != NO_LIMIT && taken - told >= limit_in / 2) || (peer_waits && all_taken) -> owe()
#endif
    :: else
    fi
}

/* xc_pay(): there is room again. */
proctype payer()
{
end:
    do
#ifndef NO_PAY
    :: atomic { noted > 0 -> noted--; tell() }
#else
    :: false
#endif
    od
}

/* Who reads the receiver's link: the inbox, and take_waits_locked(). */
proctype receivers_reader()
{
    byte its_cost;
end:
    do
    :: atomic { there?DATA,its_cost -> items!its_cost; its_cost = 0 }
    :: atomic {
            there?WAITS,_ ->
            peer_waits = true;
            if
#ifndef NO_ANSWER
            :: all_taken && (told < taken || limit_in == NO_LIMIT) -> owe()
#endif
            :: else
            fi
        }
    od
}

/* The program at the receiver's end. */
proctype receiver()
{
    byte its_cost;
end:
    do
    :: atomic { items?its_cost -> was_taken(its_cost); its_cost = 0 } /* receive() */
    :: atomic { items?its_cost -> behind = its_cost }
        atomic { behind = 0; was_taken(its_cost); its_cost = 0 } /* the callback has returned */
    :: atomic { changes > 0 -> changes--; /* xc_link_set_limit() */
            if
            :: limit_in = 1
            :: limit_in = NO_LIMIT
            fi;
            tell()
        }
    od
}

init
{
    atomic {
        select(give_ups : 0 .. GIVE_UPS);
        select(changes : 0 .. CHANGES);
        select(one_owner : 0 .. ONE_OWNER);
        if
        :: by_job[0] = true
        :: by_job[0] = false
        fi;
        if
        :: by_job[1] = true
        :: by_job[1] = false
        fi;
        run sender(0);
        run sender(1);
        run senders_reader();
        run receivers_reader();
        run receiver();
        run payer()
    }
}
