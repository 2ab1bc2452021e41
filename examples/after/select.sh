#!/bin/sh
# select.sh: keeps the events above the threshold, as a table.
set -eu
threshold=$(cut -d' ' -f2 calibration.txt)
echo "job,event,energy" > selected.csv
while read -r job event energy; do
  if [ "$energy" -gt "$threshold" ]; then echo "$job,$event,$energy" >> selected.csv; fi
done < events.txt
echo "{\"selected\": $(( $(wc -l < selected.csv) - 1 ))}" > "$ICEPROD_STATISTICS"
