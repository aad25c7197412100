# Proves with the bounded model checker CBMC, on the C sources themselves, what the heads of the harnesses beside this
# file say, for all inputs up to a size. In each proof no read or write is out of bounds or through a null pointer, no
# sum of signed numbers overflows, each XC_ASSERT holds, and each loop ends. And that a proof can fail: each mutant has a
# line changed, and must be found. usage: run.sh WHERE-TO-BUILD; PROOFS=required in the environment: fail without CBMC
#
#   scan     xc_scan.c: one turn of its loop from every state, so payloads of any size; and whole payloads of 8 bytes.
#            The same of xc_sieve_next(), so parts of any size
#   pickle   xc_pickle.c: operands of 30 bytes, that is up to two buffers, and of 11
#   ring     xc_ring.c: one call from every state, so any number of calls. Against a hostile far end: every index, reads
#            and writes of two parts, each up to a step, in a ring of 4 KiB. Against one that keeps the rules: up to two
#            steps of a ring of 4 bytes, with indices from -8 to 7, so that they wrap around
#   frames   xc_frame.c: every header and every head of a long message. xc_cut.c: two parts, up to three pieces
#   preamble xc_preamble.c: 1, 9, 10, 11 or 16 bytes in one call, with the marker anywhere or nowhere; 20 cut in two anywhere
#   arrive   xc_arrival.c, and parse_one() of xc_reader.c: one frame, one read in place, one lending of memory, and the end,
#            each from every state, with buffer and messages of real size. The list of long messages has up to two that
#            are looked at, and counts up to 64
#   reader   xc_reader.c: one xc_read_some() from every state, where the frames do what is proved in arrive; and batches of
#            up to three messages
#
# What is not in here: who wakes whom (tests/models), and what messages do when they take effect (xc_inbox.c and others).
set -u
build=$1 here=$(cd "$(dirname "$0")" && pwd)
core=$here/../../src/core
mkdir -p "$build"
build=$(cd "$build" && pwd)
tool=$build/cbmc
. "$here/../verdicts.sh"

# CBMC of Debian 13, where the system has none: unpacked, not installed, and run with the C library that it was built for.
fetch() {
    command -v apt-get && command -v dpkg-deb && [ "$(dpkg --print-architecture)" = amd64 ] || return 1
    rm -rf "$tool"
    mkdir -p "$tool/lists/partial" "$tool/cache/archives/partial" "$tool/root" && cd "$tool" && : >status || return 1
    from=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${from:-http://deb.debian.org/debian} trixie main" >list
    set -- -qq -o Dir::Etc::SourceList="$tool/list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$tool/lists" \
        -o Dir::State::Status="$tool/status" -o Dir::Cache="$tool/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)"
    timeout 120 apt-get "$@" update && timeout 300 apt-get "$@" download cbmc minisat libstdc++6 libgcc-s1 libc6 || return 1
    for package in *.deb; do
        dpkg-deb -x "$package" root || return 1
    done
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$tool/root/usr/lib64/ld-linux-x86-64.so.2" \
        "$tool/root/usr/lib/x86_64-linux-gnu:$tool/root/usr/lib" "$tool/root/usr/bin/cbmc" >run
    chmod +x run
    rm -rf ./*.deb lists cache
    ./run --version
}

if command -v cbmc >/dev/null && cbmc --version | grep -q '^[6-9]'; then
    cbmc=cbmc
elif "$tool/run" --version >/dev/null 2>&1 || (fetch) >"$build/fetch.log" 2>&1; then
    cbmc=$tool/run
else
    echo "the proofs are left out: there is no cbmc 6 (a package of Debian 13), and it could not be fetched: $build/fetch.log"
    test "${PROOFS:-}" != required
    exit
fi

# usage: check NAME CORE HARNESS OPTIONS: what cbmc says is in NAME.output
check() {
    name=$1 from=$2 harness=$3
    shift 3
    "$cbmc" -I "$here" -I "$from/wire" -I "$from/link" -I "$from/system" -D_GNU_SOURCE -DXC_DEBUG "$@" \
        --unwinding-assertions --no-malloc-may-fail --slice-formula "$here/$harness.c" >"$build/$name.output" 2>&1
}

# usage: proved HARNESS OPTIONS
proved() {
    name=$(file_of "$*")
    check "$name" "$core" "$@"
    grep -q '^VERIFICATION SUCCESSFUL' "$build/$name.output"
    verdict "$name" "proved: $*" "$build/$name.output"
}

# usage: mutant SOURCE EXPRESSION HARNESS OPTIONS. EXPRESSION: for sed, changes one line of src/core/SOURCE
mutant() {
    source=$1 expression=$2
    shift 2
    name=$(file_of "$source $expression")
    mkdir -p "$build/$name" && cp -R "$core/." "$build/$name"
    sed "$expression" "$core/$source" >"$build/$name/$source"
    if [ "$(diff "$core/$source" "$build/$name/$source" | tee "$build/$name.output" | grep -c '^>')" = 1 ]; then
        check "$name" "$build/$name" "$@" --stop-on-fail
    fi
    grep -q '^VERIFICATION FAILED' "$build/$name.output"
    verdict "$name" "found: $source $expression" "$build/$name.output"
    rm -rf "${build:?}/$name"
}

scan() {
    proved scan -DONE --unwind 13
    proved scan -DBYTES --unwind 2
    proved scan -DSIZE=8 --unwind 10
    for expression in 's/> size - at)/> size - op_at)/' 's/height == 1 ?/height > 0 ?/' \
        's/\*height < 3/*height < 2/' 's/number > \*height/number > *height + 1/' 's/kind == ID && on_id/kind == ATOM_4 \&\& on_id/' \
        's/number > 0x7fffffff/number == 0xffffffff/' 's/\[XC_OP_LONGLONG\] = TEXT/[XC_OP_LONGLONG] = LIST/' \
        's/kind == TEXT || kind == HUGE/kind == TEXT/'; do
        mutant wire/xc_scan.c "$expression" scan -DONE --unwind 13
    done
    proved scan -DSIEVE --unwind 20
    for expression in 's/sieve->n <= FIXED/sieve->n < FIXED/' 's/^        sieve->n = 0;/        ;/' 's/= kind == STOP || kind == UNKNOWN/= kind == UNKNOWN/' \
        's/< size - at ? (size_t)sieve->skip : size - at/< size ? (size_t)sieve->skip : size/'; do
        mutant wire/xc_scan.c "$expression" scan -DSIEVE --unwind 20
    done
    for expression in 's/== size - 10 /== size - 9 /' 's/ && !negative//'; do
        mutant wire/xc_scan.c "$expression" scan -DBYTES --unwind 2
    done
}

pickle() {
    proved pickle -DSIZE=31 --unwind 4
    proved pickle -DSIZE=12 --unwind 4
    mutant wire/xc_pickle.c 's/< XC_PICKLE_HEAD/< XC_PICKLE_HEAD - 1/' pickle -DSIZE=12 --unwind 4
    for expression in 's/if (n > (size - at) /if (n > size /' 's/if (length > size - at)/if (length > size)/' \
        's/at > size || more > size - at/more > size - at/' 's/more > size - at)/at + more > size)/'; do
        mutant wire/xc_pickle.c "$expression" pickle -DSIZE=31 --unwind 4
    done
}

preamble() {
    for size in 1 9 10 11 16; do
        proved preamble -DSIZE=$size --unwind $((size + 2))
    done
    proved preamble -DSIZE=20 -DCUT --unwind 22
    for expression in 's/here < XC_MARKER_SIZE ? here : XC_MARKER_SIZE/XC_MARKER_SIZE/' \
        's/here < XC_MARKER_SIZE ? here : XC_MARKER_SIZE/1/' 's/        at++;/        at += XC_MARKER_SIZE;/' \
        's/preamble > XC_PREAMBLE_MAX - /preamble >= XC_PREAMBLE_MAX - /' 's/n < room ? n : room/n/' \
        's/n - preamble < XC_MARKER_SIZE/n - preamble <= XC_MARKER_SIZE/' 's/xc_buf_add(kept, bytes, preamble)/xc_buf_add(kept, bytes, n)/'; do
        mutant wire/xc_preamble.c "$expression" preamble -DSIZE=12 --unwind 14
    done
}

ring() {
    for writes in 0 1; do
        proved ring -DHOSTILE -DWRITES=$writes --unwind 3
        proved ring -DSIZE=4 -DWRITES=$writes --unwind 3 $no_pointers
    done
    for expression in 's/between > ring->size)/between > 2 * ring->size)/' 's/& (ring->size - 1))/\& (2 * ring->size - 1))/' \
        's/k = k < left ? k : left;/k = k < left + 1 ? k : left + 1;/' 's/between < ring->size ?/between != ring->size ?/'; do
        mutant wire/xc_ring.c "$expression" ring -DHOSTILE -DWRITES=0 --unwind 3
    done
    early='s/k = k < room ? k : room;/& atomic_store(\&ring->mine->at, ring->at + k);/' # before the bytes are copied
    for expression in 's/> 0 || sum == 0 ? XC_OK/>= 0 ? XC_OK/' "$early"; do
        mutant wire/xc_ring.c "$expression" ring -DSIZE=4 -DWRITES=1 --unwind 3 $no_pointers
    done
    mutant wire/xc_ring.c 's/xc_status rc = see(in, err);/xc_status rc = XC_OK;/' ring -DSIZE=4 -DWRITES=0 --unwind 3 $no_pointers
    mutant wire/xc_ring.c "s/^    if (known(in) < sum_of(parts, n))/    if (known(in) == 0)/" ring -DSIZE=4 -DWRITES=0 --unwind 3 $no_pointers
}

frames() {
    proved frames -DFRAMES --unwind 14
    proved frames -DCUT --unwind 4 $no_pointers
    for expression in 's/in\[0\] > XC_INTERRUPT)/in[0] > XC_INTERRUPT + 1)/' 's/size > XC_MAX_PAYLOAD)/size > XC_MAX_PAYLOAD + 1u)/' \
        's/in\[0\] >= XC_DROP)/in[0] == XC_DROP)/' 's/? XC_CREDIT_SIZE :/? XC_LONG_SIZE :/' 's/size == 0 || size > XC_MAX_LONG/size > XC_MAX_LONG/'; do
        mutant wire/xc_frame.c "$expression" frames -DFRAMES --unwind 14
    done
    for expression in 's/left == 1 ? 1 : //' 's/iov_len <= more; n++/iov_len < more; n++/' 's/cut->tail.iov_len = 0;/;/'; do
        mutant wire/xc_cut.c "$expression" frames -DCUT --unwind 4 $no_pointers
    done
}

arrive() {
    proved arrive -DFRAME -DABOUT=FIRST --unwind 5
    proved arrive -DFRAME -DABOUT=OVERSIZED --unwind 5
    for about in OVERSIZED SECOND; do
        proved arrive -DPLACE -DABOUT=$about --unwind 5
        proved arrive -DGIVE -DABOUT=$about --unwind 5
        proved arrive -DABOUT=$about --unwind 5
    done
    for expression in 's/have < frame->size ? have : frame->size, frame->size/have, frame->size/' \
        's/> arrival->head.size - arrival->got)/> arrival->head.size)/' 's/arrival->got < arrival->skip ? arrival->skip : 0;/0;/' \
        's/have < XC_BYTES_HEAD_MAX/have < 5/' 's/frame_left = size - have;/frame_left = size;/' 's/(\*p)->msg != NULL/(*p)->msg == NULL/'; do
        mutant link/xc_arrival.c "$expression" arrive -DFRAME -DABOUT=FIRST --unwind 5 $no_pointers
    done
    mutant link/xc_arrival.c 's/n_longs == XC_LONG_COUNT/n_longs > XC_LONG_COUNT/' arrive -DFRAME -DABOUT=OVERSIZED --unwind 5 $no_pointers
    for expression in 's/XC_HEADER_SIZE <= XC_INBUF/0 <= XC_INBUF/' 's/ && frame.code == XC_CREDIT)/ \&\& false)/' \
        's/start += XC_HEADER_SIZE + frame.size;/start += frame.size;/'; do
        mutant link/xc_reader.c "$expression" arrive -DFRAME -DABOUT=OVERSIZED --unwind 5 $no_pointers
    done
    for expression in 's/reader->frame_left < XC_INBUF ? reader->frame_left : XC_INBUF/reader->frame_left/' \
        's/^    size_t mine = .*/    size_t mine = got;/' 's/end = got - mine;/end = got;/' \
        's/data + (arrival->got - arrival->skip)/data + arrival->got/' 's/^    reader->n_longs--;/    ;/'; do
        mutant link/xc_arrival.c "$expression" arrive -DPLACE -DABOUT=SECOND --unwind 5 $no_pointers
    done
    for expression in 's/link->wait.reading || link->end.eof ? NULL/link->end.eof ? NULL/' 's/ && arrival->head.size - arrival->skip == space)/)/'; do
        mutant link/xc_arrival.c "$expression" arrive -DGIVE -DABOUT=SECOND --unwind 5 $no_pointers
    done
    mutant link/xc_arrival.c 's/^    arrival->msg = NULL;/    ;/' arrive -DPLACE -DABOUT=OVERSIZED --unwind 5 $no_pointers
    mutant link/xc_arrival.c 's/^        link->reader.oversized.msg = NULL;/        ;/' arrive -DABOUT=OVERSIZED --unwind 5 $no_pointers
}

reader() {
    proved reader -DREAD --unwind 3 $no_pointers
    proved reader -DDELIVER --unwind 5
    for expression in 's/XC_INBUF - link->reader.end, &got/XC_INBUF, \&got/' 's/^            link->reader.end -= link->reader.start;/            ;/' \
        's/rc == XC_AGAIN && gone/false/' 's/^    link->reader.unparsed = false;/    ;/' 's/^    link->reader.start += used;/    ;/'; do
        mutant link/xc_reader.c "$expression" reader -DREAD --unwind 3 $no_pointers
    done
    for expression in 's/; rc == XC_OK && (msg = xc_queue_pop/; (msg = xc_queue_pop/' 's/n_hellos++ == XC_UNREAD/n_hellos++ > XC_UNREAD/'; do
        mutant link/xc_reader.c "$expression" reader -DDELIVER --unwind 5
    done
}

no_pointers="--no-pointer-check --no-pointer-primitive-check" # where only addresses are used
rm -f "$build"/*.result
{ scan; pickle; frames; preamble; reader; } & # one beside the other
{ ring; arrive; } &
wait
sum_up proofs
