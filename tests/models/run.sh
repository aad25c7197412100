# Checks with spin the models beside this file: that nobody sleeps for ever. And that each line is needed: where a NO_
# takes one out, a sleeper must be found that nobody wakes. usage: run.sh WHERE-TO-BUILD, with CC in the environment
#
#   ring          a ring's two sides, up to 9 bytes in rings of 4 and 8; store buffers as a CPU of x86 has
#   reader        who reads a link: two waiters, the pump, the callbacks' thread; up to 2 items
#   registration  a registration, a waiter and the pump; up to 3 frames, each of which comes in two reads
#   credit        flow control: two senders of 2 items each
#   move          from the pipes to the rings: up to 3 items of one side and 1 of the other
set -u
build=$1 here=$(cd "$(dirname "$0")" && pwd)

if ! command -v spin >/dev/null 2>&1; then
    echo "the models are left out: there is no spin (the Debian package \"spin\")"
    test "${CI:-}" != true
    exit
fi
rm -rf "$build"
mkdir -p "$build"
build=$(cd "$build" && pwd)
. "$here/../verdicts.sh"

# usage: search NAME MODEL DEFINES: leaves what the search says in NAME/output; not 0 if it did not end
search() {
    dir=$build/$1 model=$2
    shift 2
    mkdir -p "$dir" && cd "$dir" && # there: spin -t -p
        spin -a "$@" "$here/$model.pml" >output 2>&1 </dev/null &&
        ${CC:-cc} "$optimized" -w -DSAFETY -DNOFAIR -DMEMLIM=4000 -o pan pan.c &&
        ./pan -m100000 -w24 >output 2>&1 </dev/null && grep -q 'errors:' output
}

# usage: proved MODEL DEFINES: nobody sleeps for ever
proved() {
    name=$(file_of "$*")
    optimized=-O2
    search "$name" "$@" && grep -q 'errors: 0' output && ! grep -q 'not completed\|too small' output
    verdict "$name" "proved: $* ($(grep -o '[0-9]* states, stored' "$build/$name/output"))" "$build/$name/output"
}

# usage: mutant WHAT MODEL DEFINES: somebody sleeps for ever. WHAT: what pan says of that
mutant() {
    what=$1
    shift
    name=$(file_of "$*")
    optimized=-O0 # it is found sooner than compiled
    search "$name" "$@" && grep -q "$what" output
    verdict "$name" "found: $*" "$build/$name/output"
}

sleeps='invalid end state'
misses='assertion violated *!((asleep\|assertion violated *(eof||'

ring() {
    proved ring -DBYTES=3
    proved ring -DBYTES=6 -DDISTURBANCES=0
    proved ring -DSIZE=8 -DBYTES=9 -DDISTURBANCES=0
    for line in NO_FENCE=W NO_FENCE=R NO_FENCE_OF_FLAG=W NO_FENCE_OF_FLAG=R NO_SECOND_LOOK=W NO_SECOND_LOOK=R \
        NO_WAKE_AT_CLOSE=W NO_WAKE_AT_CLOSE=R NO_FENCE_OF_CLOSE NO_LOOK_FOR_CLOSE NO_FUTEX_WAKE NO_NOTIFICATION \
        NO_LIMIT_OF_ROOM; do
        mutant "$sleeps" ring -DBYTES=6 -DDISTURBANCES=0 -D$line
    done
    mutant "$sleeps" ring -DBYTES=3 -DNO_WORD
    mutant "$sleeps" ring -DBYTES=3 -DNO_WAKE_AT_WORD
    mutant 'assertion violated' ring -DBYTES=3 -DNO_LOOK_BEHIND_CLOSE
}

reader() {
    proved reader -DRING=1 -DITEMS=1
    proved reader -DRING=0 -DITEMS=1
    proved reader -DRING=0 -DITEMS=2 -DDISTURBANCES=0
    for kind in 0 1; do
        for line in NO_HAND_ON NO_RING_NEXT NO_TIMER NO_WAKE NO_RING_ALL NO_WAKE_AT_FIN NO_RING_AT_DEATH NO_TIMER_AT_DEATH; do
            mutant "$misses" reader -DRING=$kind -DITEMS=1 -DONLY_SLEEPERS -D$line
        done
    done
    mutant "$misses" reader -DRING=0 -DITEMS=1 -DONLY_SLEEPERS -DNO_WATCH_AT_TIMER
    for line in NO_HAND_ON_SOON NO_DRAIN_AT_TIMER; do
        mutant "$misses" reader -DRING=1 -DITEMS=1 -DONLY_SLEEPERS -D$line
    done
}

credit() {
    proved credit -DONE_OWNER=0
    proved credit -DGIVE_UPS=0
    proved credit -DCHANGES=0
    for line in NO_WAITS NO_ANSWER NO_CREDIT_FOR_WAITS NO_NEW_QUESTION NO_WAKE_AT_CREDIT NO_MOVE_AT_CREDIT NO_MOVE_AT_PASSING \
        NO_END_OF_DEBT NO_PAY; do
        mutant "$sleeps" credit -DGIVE_UPS=0 -DCHANGES=0 -D$line
    done
    for line in NO_WAKE_AT_LEAVE NO_MOVE_AT_LEAVE NO_MOVE_AT_UNSENT; do
        mutant "$sleeps" credit -DCHANGES=0 -D$line
    done
}

move() {
    proved move -DITEMS=3
    proved move -DITEMS=1 -DANSWERS=3
    for line in NO_LOOK_BEFORE_FLAG NO_SECOND_LOOK NO_FLUSH_AT_MOVE NO_DRAIN_AT_MOVE NO_FLUSH_AT_NOTIFICATION; do
        mutant 'assertion violated' move -DITEMS=3 -D$line
    done
}

registration() {
    proved registration
    for line in NO_NUMBER NO_CHECK_WHO_MAY_READ NO_TIMER NO_HAND_ON NO_LOOK_AT_BEGIN NO_WATCH_AT_TIMER NO_HALF_FRAME_IN_LINK; do
        mutant 'assertion violated' registration -D$line
    done
}

{ credit; move; registration; ring; } & # one beside the other
reader &
wait
sum_up models
