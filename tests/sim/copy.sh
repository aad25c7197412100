# Copies the sources of the core, changed by a script for sed. What has not changed keeps its time.
# usage: copy.sh FROM TO [SED-SCRIPT]
set -eu
from=$1 to=$2 script=${3:-/dev/null}
for file in "$from"/system/*.[ch] "$from"/wire/*.[ch] "$from"/link/*.[ch] "$from"/start/*.[ch]; do
    copy=$to/${file#"$from"/}
    mkdir -p "${copy%/*}"
    sed -f "$script" "$file" > "$copy.new"
    if cmp -s "$copy.new" "$copy"; then rm "$copy.new"; else mv "$copy.new" "$copy"; fi
done
# Each line of the script must have found its place.
grep -c '^s/' "$script" > "$to/lines" || true
diff -r "$from" "$to" | grep -c '^<' > "$to/changed" || true
if [ "$(cat "$to/lines")" != "$(cat "$to/changed")" ]; then
    echo "copy.sh: $script changes $(cat "$to/changed") lines, not $(cat "$to/lines")" >&2
    exit 1
fi
