# Changes the core so that a lock is left out or taken out of order. clang has to refuse each change: `make lint-core`.
# First it looks for what clang could not check: a lock that a function's name but no XC_NEEDS says it needs, and
# mutexes of no kind.
# usage: lock_mutants.sh CORE, with CLANG (and its flags) in the environment
set -u
core=$1 count=0 failed=0

# A declaration in a header, or the definition of a static function, up to its `;` or `{`.
awk 'FNR == 1 { head = "" }
    /^static/ || (FILENAME ~ /\.h$/ && /^[a-z].*_locked\(/) || (head != "" && /^[a-z ]/) { head = head $0 " " }
    /[;{]/ { if (head ~ /_locked\(/ && head !~ /XC_NEEDS|XC_UNLOCKS/) { print FILENAME ": " head; bad = 1 } head = "" }
    END { exit bad }' "$core"/*/*.[ch] || { echo 'these do not say by XC_NEEDS which lock they need' && failed=1; }
grep -n 'xc_\(un\)\{0,1\}lock(' "$core"/*/*.c | grep -v /xc_sync.c && echo 'these do not name the kind of mutex' && failed=1

# name, room, function, the change as a sed command, and what clang has to say
mutant() {
    source=$(ls "$core"/*/"$2.c")
    change="/^$3(/,/^}/{$4
}"
    count=$((count + 1))
    if sed "$change" "$source" | cmp -s - "$source"; then
        echo "lock mutant $1: changes nothing in $2.c" && failed=1
    elif ! sed "$change" "$source" | $CLANG -I"$(dirname "$source")" -fsyntax-only -x c - 2>&1 | grep -q "error: .*$5"; then
        echo "lock mutant $1: clang did not notice" && failed=1
    fi
}

mutant lock xc_channels xc_link_set_coerce '/xc_lock_link/d' "releasing mutex 'xc_link_mu' that was not held"
mutant unlock xc_channels xc_link_set_coerce '/xc_unlock_link/d' "mutex 'xc_link_mu' is still held"
mutant field xc_channels xc_link_chan_state '/lock_link/d' "reading variable 'recv_closed' requires holding mutex"
mutant part xc_link xc_link_get_state '/lock_link/d' "reading variable 'fin' requires holding mutex"
mutant locked xc_channels xc_link_new_chan '/lock_link/d' "calling function 'new_chan_locked' requires holding mutex"
mutant other xc_channels xc_link_set_coerce 's/xc_unlock_link(&link->mu)/xc_unlock_link(\&link[1].mu)/' 'still held'
mutant writer xc_writer_post xc_writer_end '/lock_writer/d' "'ending' requires holding mutex 'xc_writer_mu'"
mutant launch xc_launch xc_launch_signal '/lock_launch/d' "'ended' requires holding mutex 'xc_launch_mu'"
mutant relay xc_relay run_job '/lock_relay/d' "'posted' requires holding mutex 'xc_relay_mu'"
mutant pump xc_pump xc_pump_leave '/lock_pump/d' "'users' requires holding mutex 'xc_pump_mu'"
mutant forkfds xc_forkfd xc_forkfd_remove '/lock_forkfds/d' "'n' requires holding mutex 'xc_forkfds_mu'"
mutant bells xc_sync thread_ends '/lock_bells/d' "'link' requires holding mutex 'xc_bells_mu'"
mutant role xc_link_pump xc_rearm 's/ drain(link);/xc_read_some(link, false, NULL, NULL);/' "'xc_read_some' requires holding role"
mutant thread xc_launch xc_launch_signal 's/xc_child_signal/pass_on(launch);&/' "'pass_on' requires holding role 'xc_pump_role'"
mutant asleep xc_writer wait_role_locked '/xc_unlock_writer/d' "cannot call function 'xc_bell_sleep_nogil' while"
mutant twice xc_tasks xc_link_task_done 's/xc_wake_locked(link);/xc_link_goodbye(link);/' "'xc_link_goodbye' while"
mutant order xc_writer_post xc_writer_end 's/xc_unlock_writer/xc_lock_link(\&writer->mu);&/' "'xc_link_mu' must be acquired before 'xc_writer_mu'"
mutant under xc_link retire 's/xc_unlock_writer/xc_poll_soon(link);&/' "'xc_poll_soon' while mutex 'xc_writer_mu'"

[ $failed = 0 ] && echo "lock mutants: clang noticed all $count"
