# Sourced by models/run.sh and proofs/run.sh: what was proved and which mutants were found, a line in a file each.

# usage: file_of WORDS: the name of their files
file_of() {
    echo "$*" | tr -c '\n[:alnum:]' _
}

# usage: verdict NAME "proved: WORDS" OUTPUT, behind the command that says whether that holds
verdict() {
    if [ $? = 0 ]; then
        echo "$2"
    else
        echo "not $2; see $3"
        grep -E 'FAILURE|^pan:|rror' "$3" | head -n 20
    fi >"$build/$1.result"
}

# usage: sum_up WHAT: shows the verdicts; not 0 if one does not hold
sum_up() {
    cat "$build"/*.result
    ! grep -q '^not ' "$build"/*.result &&
        echo "$1: $(grep -l '^proved' "$build"/*.result | wc -l) proved, $(grep -l '^found' "$build"/*.result | wc -l) mutants found"
}
