#!/bin/sh
# Runs Python tests on extensions that were built for a sanitizer, or with assertions alone (debug). What is reported, of any
# process of a test, is a file; the tests go on, and at the end a file means that they failed.
#
# usage: sanitized.sh asan|tsan|debug FOLDER PYTHON ARGUMENTS...     the arguments are pytest's
# FOLDER is an environment with what CC has built for PYTHON. SANITIZERS=required: fail where that does not run.
set -u
compiler=${CC:-cc}
kind=$1
folder=$2
python=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
random=$(setarch -R true 2>/dev/null && echo "setarch -R")

library() {
    $compiler -print-file-name="lib$1.so"
}

# What a process needs in its environment. A test may end it by a signal, and ask for more memory than there is. With
# PYTHONMALLOC=malloc each small object of Python is looked after, too. use_tls: the search for leaks crashes in a process with
# threads otherwise. With a short history a stack that a suppression goes by may be lost.
settings() {
    options=handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:exitcode=0:log_path=$folder/report
    echo "EXECNET_C_TEST_SANITIZER=$kind"
    echo "XC_REPORT=$folder/report.assertion"
    case $kind in
    asan)
        echo "LD_PRELOAD=$(library asan) $(library ubsan)"
        echo "ASAN_OPTIONS=$options:halt_on_error=0:allocator_may_return_null=1:detect_stack_use_after_return=1"
        echo LSAN_OPTIONS=use_tls=0:print_suppressions=0
        echo UBSAN_OPTIONS=print_stacktrace=1
        echo PYTHONMALLOC=malloc
        ;;
    tsan)
        echo "LD_PRELOAD=$(library tsan)"
        echo "TSAN_OPTIONS=$options:history_size=7:suppressions=$here/tsan.txt"
        ;;
    esac
}

# Python was not built for the sanitizer, whose library must be loaded before all else; in Pythons alone, as a shell crashes
# with that of threads. So FOLDER/bin/python is a program that sets what is needed and becomes Python, which forgets it.
# Forked children are noted: they leave what is their parent's as it is.
launcher() {
    {
        echo '#include <stdlib.h>'
        echo '#include <unistd.h>'
        echo 'int main(int argc, char **argv) { (void)argc;'
        settings | sed 's/.*/putenv("&");/'
        "$python" -c 'import os, sys; print("execv(\"%s\", argv); return 127; }" % os.path.realpath(sys.executable))'
    } >"$folder/launcher.c"
    rm -f "$folder"/bin/python*
    $compiler -static -o "$folder/bin/python" "$folder/launcher.c" || $compiler -o "$folder/bin/python" "$folder/launcher.c"
    ln -s python "$folder/bin/python3"
    site=$(run -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    {
        "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
        echo "import os; os.environ.pop('LD_PRELOAD', None); os.register_at_fork(after_in_child=lambda: os.close(os.open(" \
            "'$folder/forked.%d' % os.getpid(), os.O_CREAT)))"
    } >"$site/rest.pth"
}

run() {
    $random "$folder/bin/python" "$@"
}

# Memory that Python itself has not given back at the end of a process is no leak of ours, and a test may want more than there is.
reports() {
    for file in "$folder"/report.*; do
        [ -e "$file" ] || continue
        leaks=yes
        [ -e "$folder/forked.${file##*.}" ] && leaks=
        grep -v "WARNING: AddressSanitizer failed to allocate" "$file" | awk -v RS= -v leaks=$leaks '
            / leak of [0-9]+ byte| was not suspended[.] False leaks/ ? leaks && /src\/(core|py|tagger)\// : !/ERROR: LeakSanitizer: |^SUMMARY: / { print; print "" }'
    done
}

rm -f "$folder"/report.* "$folder"/forked.*
cd "$here" || exit 1
launcher || exit 1
if ! run -c "import execnet_c._core, execnet_c._tagger" 2>&1; then
    echo "left out: what $compiler builds for this ($kind) does not run in $python"
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
