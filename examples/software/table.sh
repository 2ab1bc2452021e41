#!/bin/sh
# Write a table of light yields; the program is that of the software named in the steering file.
set -eu
for energy in 1 10 100; do
  echo "$energy $(lightyield "$energy")"
done > "$1"
