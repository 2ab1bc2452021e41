#!/bin/sh
# generate.sh JOB EVENTS: writes events, a table that all jobs share, and something for this site's cache.
set -eu
job=$1 events=$2 n=0
: > events.txt
while [ "$n" -lt "$events" ]; do
  echo "$job $n $(( (job * 7 + n * 3) % 10 ))" >> events.txt
  n=$((n + 1))
done
echo "threshold 4" > calibration.txt
echo "made here" > cache.txt
echo "{\"events\": $events}" > "$ICEPROD_STATISTICS"
