#!/bin/sh
# Tests of the command given as $TALLY; the results are printed as TAP.
set -u
TALLY=${TALLY:-tally}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
number=0
failures=0

# is NAME EXPECTED ACTUAL
is() {
	number=$((number + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $number - $1"
	else
		failures=1
		echo "not ok $number - $1"
		printf '# expected: %s\n# actual: %s\n' "$2" "$3"
	fi
}

printf 'b\na\nb\n' >"$directory/one"
printf 'c\nb\n' >"$directory/two"

is "lines are counted" "      2 b
      1 a" "$("$TALLY" "$directory/one")"
is "standard input is read" "      2 x" "$(printf 'x\nx\n' | "$TALLY")"
is "several files are counted together" "      3 b" "$("$TALLY" -n 1 "$directory/one" "$directory/two")"
is "a last line without a line end counts" "      1 z" "$(printf 'z' | "$TALLY" -)"
is "nothing in, nothing out" "" "$("$TALLY" /dev/null)"
"$TALLY" "$directory/missing" >"$directory/out" 2>"$directory/err"
is "a missing file gives status 1" 1 $?
is "a missing file is named" "tally: $directory/missing: No such file or directory" "$(cat "$directory/err")"
"$TALLY" -n many /dev/null 2>/dev/null
is "a count that is no number gives status 2" 2 $?
is "the version is printed" "tally" "$("$TALLY" --version | cut -d ' ' -f 1)"
echo "1..$number"
exit $failures
