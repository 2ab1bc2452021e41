"""Keep the events of a CSV file whose energy is high enough: select_events.py SOURCE DESTINATION ENERGY_GEV."""

import csv
import json
import os
import sys

source, destination, least = sys.argv[1], sys.argv[2], float(sys.argv[3])
with open(source, newline="") as raw, open(destination, "w", newline="") as out:
    rows = csv.DictReader(raw)
    writer = csv.DictWriter(out, rows.fieldnames or [], lineterminator="\n")
    writer.writeheader()
    seen = kept = 0
    for row in rows:
        seen += 1
        if float(row["energy_gev"]) >= least:
            writer.writerow(row)
            kept += 1
print(f"kept {kept} of {seen} events")
with open(os.environ["ICEPROD_STATISTICS"], "w") as file:
    json.dump({"events_seen": seen, "events_kept": kept}, file)
