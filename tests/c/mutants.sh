# Builds the core with one line taken out and runs a test that has to fail for it: `make run-mutants`.
# usage: mutants.sh OBJECTS-OF-THE-PLAIN-BUILD WHERE-TO-BUILD CORE, with CC and FLAGS in the environment
set -u
plain=$1 build=$2 core=$3

# name, room, test, and the line to take out as a basic regular expression, without indentation
mutant() {
    name=$1 room=$2 test=$3 line=$4 dir=$build/$1
    mkdir -p "$dir"
    source=$(ls "$core"/*/"$room.c")
    sed "/^ *$line/d" "$source" > "$dir/$room.c"
    if [ "$(diff "$source" "$dir/$room.c" | grep -c '^<')" != 1 ]; then
        echo "mutant $name: the line is not in $room.c exactly once" > "$dir/result"
        return
    fi
    # shellcheck disable=SC2086
    ${CC:-cc} $FLAGS -w -o "$dir/$test" "$dir/$room.c" "$plain/$test.o" \
        $(ls "$plain"/xc_*.o | grep -v "/$room\.o") || { echo "mutant $name: does not build" > "$dir/result"; return; }
    if "$dir/$test" > "$dir/output" 2>&1; then
        echo "mutant $name: $test passed without it" > "$dir/result"
    else
        echo noticed > "$dir/result"
    fi
}

rm -rf "$build"
mutant hand-on xc_wait test_link 'xc_hand_on_locked(link); .* every way out hands the role on' &
mutant end xc_link test_link 'xc_ring_all_locked(link); .* the link has ended: all check again' &
mutant wake xc_reader test_link 'xc_wake_locked(link); .* the reader wakes those whose items it read' &
mutant gone xc_link_pump test_link 'xc_ring_waiter(waiter); .* the reader must poll again' &
mutant registration xc_wait test_registration 'write_number((const xc_registration \*)waiter);' &
mutant held xc_wait test_registration 'registration->waiter.rung = xc_ready_locked(link, wait);' &
mutant handed xc_writer test_writer_handed 'xc_writer_release_locked(writer); .* so that the pump writes it' &
mutant room xc_writer test_writer_handed 'tell_room(room);' &
mutant refused xc_writer_post test_writer 'xc_writer_wake_all_locked(writer); .* each is refused now' &
mutant nested xc_writer test_writer_long 'xc_writer_spill_own_locked(writer); .* or those in the line would wait for us' &
mutant numbers xc_writer_long test_writer_long 'xc_writer_spill_own_locked(writer); .* or those who have the numbers would wait for us' &
mutant broken xc_writer test_writer 'xc_writer_wake_all_locked(writer);$' &
mutant late xc_writer test_writer_refused 'rc = xc_writer_refusal_locked(writer, err); .* nobody would wake us any more' &
mutant moved xc_move test_move 'xc_pump_set(&link->writer.flush, xc_now()); .* a notification of room may have been thrown away with the buffer' &
mutant line xc_credit test_credit 'xc_wake_locked(link); .* the next one in the line may go on' &
mutant unsent xc_credit test_credit 'xc_wake_locked(link); .* the first in the line may go on' &
mutant job xc_credit test_credit 'xc_pump_post(claim->job); .* it may have waited for just this' &
mutant enough xc_credit test_credit 'line_moves_locked(link, chan); .* it may not have been enough' &
mutant asked xc_credit test_credit 'credit->asked = false;' &
mutant fin xc_credit test_credit 'line_moves_locked(link, chan); .* the link has ended' &
mutant lifted xc_credit test_credit 'line_moves_locked(link, chan); .* no credit will move it' &
mutant goodbye xc_link test_credit 'xc_wake_locked(link); .* those who wait for credit are refused now' &
mutant over xc_inbox test_credit 'xc_credit_end_locked(link, msg); .* whoever waits for credit waits no more' &
mutant closed xc_channels test_credit 'xc_credit_lift_locked(link, chan); .* nobody may wait for credit of a closed channel' &
mutant old xc_channels test_credit 'xc_credit_lift_locked(link, old);' &
mutant told xc_credit test_credit_taken 'owe_locked(link, chan); .* a sender there may wait for just this' &
mutant owed xc_credit test_credit_taken 'xc_owe_locked(link, XC_OWES_CREDIT, id);$' &
mutant little xc_credit test_credit_taken 'owe_locked(link, chan); .* nothing else would tell it' &
mutant waits xc_credit test_credit_taken 'chan->credit.peer_waits = true;' &
mutant behind xc_dispatch test_credit_taken 'xc_credit_behind_locked(link, msg, false);' &
mutant taken xc_relay test_relay_window 'count_taken(relay);$' &
mutant freed xc_relay test_relay_window 'relay->claiming = relay->claiming .* xc_link_unclaim' &
over_rings() { RIG_RINGS=1 && export RIG_RINGS && mutant "$@"; }
over_rings notified xc_link_pump test_link_lives 'xc_writer_flush(&link->writer); .* there may be room' &
mutant news xc_ring test_ring 'wake_other(ring); .* the other end may sleep for just this' &
mutant ended xc_ring test_ring 'wake_other(ring); .* nothing else would ever wake it' &
mutant asleep xc_ring test_ring 'xc_wake_at(&ring->other->sleeps); .* or the thread would sleep on, for up to a second' &
mutant rung xc_sync test_ring 'xc_wake_at(word); .* if the owner sleeps there, it wakes' &
wait

grep -L -x noticed "$build"/*/result | xargs -r cat
! grep -L -x noticed "$build"/*/result | grep -q . && echo "mutants: all $(ls "$build" | wc -l) noticed"
