#!/bin/sh
# Count the lines and words of $1 into $2, and report them as statistics.
set -eu
lines=$(wc -l < "$1")
words=$(wc -w < "$1")
echo "$((lines)) lines, $((words)) words" | tee "$2"
echo "{\"lines_counted\": $((lines)), \"words_counted\": $((words))}" > "${ICEPROD_STATISTICS:-/dev/null}"
