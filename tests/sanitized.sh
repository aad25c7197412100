#!/bin/sh
# Runs Python tests on extensions that were built for a sanitizer. The interpreter was not, so that the sanitizer's library
# must be loaded before all else, in far ends, too. What it reports, of any process of a test, is a file; the tests go on, and
# at the end a file means that they failed.
#
# usage: sanitized.sh asan|tsan FOLDER PYTHON ARGUMENTS...     the arguments are pytest's
# CC has built what is in FOLDER/lib. SANITIZERS=required: fail where that does not run.
set -u
kind=$1
folder=$2
python=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
random=$(setarch -R true 2>/dev/null && echo "setarch -R")

# A test may end a process by a signal, and ask for more memory than there is.
signals=handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0
options=exitcode=0:log_path=$folder/report

library() {
    ${CC:-cc} -print-file-name="lib$1.so"
}

# With a short history a stack that a suppression goes by may be lost.
# With PYTHONMALLOC=malloc each small object of Python is looked after, too. use_tls: the search for leaks crashes in a
# process with threads otherwise.
run() {
    $random env PYTHONPATH="$folder/lib" LD_PRELOAD="$(library $kind) $([ $kind = asan ] && library ubsan)" \
        ASAN_OPTIONS="$options:$signals:halt_on_error=0:allocator_may_return_null=1:detect_stack_use_after_return=1" \
        LSAN_OPTIONS=use_tls=0:print_suppressions=0 UBSAN_OPTIONS="print_stacktrace=1" \
        TSAN_OPTIONS="$options:history_size=7:suppressions=$here/tsan.txt" \
        $([ "$kind" = asan ] && echo PYTHONMALLOC=malloc) "$python" "$@"
}

# Memory that Python itself has not given back at the end of a process is no leak of ours, and a test may want more than there is.
reports() {
    cat "$folder"/report.* 2>/dev/null | grep -v "WARNING: AddressSanitizer failed to allocate" |
        awk -v RS= '/ leak of [0-9]+ byte/ ? /src\/(core|py|tagger)\// : !/ERROR: LeakSanitizer: |^SUMMARY: / { print; print "" }'
}

rm -f "$folder"/report.*
cd "$here" || exit 1
if ! run -c "import execnet_c._core, execnet_c._tagger" 2>&1; then
    echo "left out: what $CC builds for this sanitizer ($kind) does not run in $python"
    test "${SANITIZERS:-}" != required
    exit
fi
run -m pytest "$@"
result=$?
found=$(reports)
if [ -n "$found" ]; then
    echo "$found"
    exit 1
fi
exit $result
