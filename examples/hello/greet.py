"""Write a greeting some number of times: a plain script, which knows nothing of IceProd but one variable."""

import argparse
import json
import os
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--text", default="hello")
parser.add_argument("--lines", type=int, default=1)
parser.add_argument("--output", type=Path, default=Path("greeting.txt"))
options = parser.parse_args()

options.output.write_text(f"{options.text}\n" * options.lines)
print(f"wrote {options.lines} lines to {options.output}")

# Statistics are optional: a JSON object of numbers in the file that this variable names.
if statistics := os.environ.get("ICEPROD_STATISTICS"):
    Path(statistics).write_text(json.dumps({"lines_written": options.lines}))
