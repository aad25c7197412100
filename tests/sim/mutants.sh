# Takes out the lines of ../c/mutants.sh, one at a time, and some more: how many seeds does the simulation need for each?
# usage: mutants.sh BUILD SEEDS [NAME], with CC and FLAGS and LINK in the environment
set -u
build=$1 seeds=$2 only=${3:-}

# usage: try NAME ROOM SED-COMMAND
try() {
    [ -z "$only" ] || [ "$only" = "$1" ] || return
    dir=$build/mutants/$1 source=$(ls "$build"/source/*/"$2.c")
    mkdir -p "$dir"
    sed "$3" "$source" > "$dir/$2.c"
    if [ "$(diff "$source" "$dir/$2.c" | grep -c '^[<>]')" = 0 ]; then
        echo "$1: the line is not in $2.c" > "$dir/result"
        return
    fi
    # shellcheck disable=SC2086
    $CC $FLAGS -w -include points.h -c -o "$dir/$2.o" "$dir/$2.c" &&
        objcopy --rename-section .data=sim_data --rename-section .bss=sim_bss "$dir/$2.o" &&
        $CC $FLAGS $LINK -o "$dir/sim" "$dir/$2.o" $(ls "$build"/*.o "$build"/core/*.o | grep -v "/$2\.o") || return
    if "$dir/sim" 1 "$seeds" > "$dir/output" 2>&1; then
        echo "$1: not found" > "$dir/result"
    else
        echo "$1: found: $(grep -m 1 failed "$dir/output" || tail -n 1 "$dir/output")" > "$dir/result"
    fi
}
mutant() {
    try "$1" "$2" "/^ *$4/d"
}
over_rings() {
    mutant "$@"
}

# Two cannot be seen in this world: `old`, because no id is used for a second channel, and `lifted`, because a relay is told
# of each close that lifts a limit, and looks then.
rm -rf "$build/mutants"
eval "$(grep -E '^(mutant|over_rings) ' ../c/mutants.sh | sed 's/ &$//')"
# The deadline is looked at only when nothing is left to read.
try deadline xc_wait 's/if (woken \&\& (rc = check_clock(&state)) != XC_OK)/if (false)/'
# A task that waits for the main thread is not refused; what waits in the backlog for a forward is not taken.
try timeout xc_tasks 's/xc_task_timeout_begin_locked(link);//'
try backlog xc_forward '/^    take_backlog_locked(link, chan);/d'
cat "$build"/mutants/*/result
