#!/bin/sh
# Runs a piece of the tests. Its output goes to FOLDER/NAME.log, and one line says whether it succeeded. If it failed, or
# LOUD is set in the environment, the whole output is shown, too.
# usage: piece.sh FOLDER NAME COMMAND...
#        piece.sh FOLDER                     shows the sum of all pieces that have run, and the end of each that failed
set -u
logs=$1
shift

if [ $# = 0 ]; then
    for result in $(grep -ls ^FAILED "$logs"/*.result); do
        tail -n 60 "${result%.result}.log"
    done
    cat "$logs"/*.result 2>/dev/null | awk '
        { n++; for (i = 2; i <= NF; i++) if ($i ~ /^(passed|failed|errors?|skipped|xfailed|xpassed),?$/) {
            kind = $i; sub(/s?,?$/, "", kind); counts[kind] += $(i - 1) } }
        /^FAILED/ { bad++; print }
        END { text = n + 0 " pieces, " bad + 0 " failed; Python tests: " counts["passed"] + 0 " passed"
            for (kind in counts) if (kind != "passed") text = text ", " counts[kind] " " kind
            print text; exit counts["passed"] == 0 || bad > 0 }'
    exit
fi

name=$1
shift
mkdir -p "$logs"
began=$(date +%s)
"$@" >"$logs/$name.log" 2>&1 </dev/null
result=$?
seconds=$(($(date +%s) - began))
if [ $result = 0 ]; then word=ok; else word=FAILED; fi
last=$(tail -n 1 "$logs/$name.log" | sed 's/\x1b\[[0-9;]*m//g; s/^=* *//; s/ *=*$//')
echo "$word $name: $last [$seconds s]" >"$logs/$name.result"
cat "$logs/$name.result"
if [ $result != 0 ] || [ -n "${LOUD:-}" ]; then
    cat "$logs/$name.log"
fi
exit $result
