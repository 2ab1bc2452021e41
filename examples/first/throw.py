"""Throw points into a square and count those in the circle."""

import argparse
import json
import os
import random

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--points", type=int, default=1000)
options = parser.parse_args()

generator = random.Random(options.seed)  # Physics, no secret.
hits = sum(generator.random() ** 2 + generator.random() ** 2 < 1 for _ in range(options.points))
print(f"{hits} of {options.points} points are in the circle")
with open("pi.txt", "w") as out:
    out.write(f"{4 * hits / options.points}\n")
with open(os.environ["ICEPROD_STATISTICS"], "w") as out:
    json.dump({"hits": hits, "points": options.points}, out)
