"""Make the raw files of the example, always the same: make_data.py DIRECTORY."""

import sys
from pathlib import Path

EVENTS = 2_000
RUNS = (1200, 1201, 1202)


def raw(run: int) -> str:
    """Return one run as CSV: event number, energy with a power-law spectrum, zenith angle."""
    state, lines = run, ["event,energy_gev,zenith_deg"]
    for event in range(EVENTS):
        state = (1_103_515_245 * state + 12_345) % 2**31
        fraction = (state + 1) / 2**31
        state = (1_103_515_245 * state + 12_345) % 2**31
        lines.append(f"{event},{1 / fraction:.3f},{180 * state / 2**31:.2f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for run in RUNS:
        (directory / f"run_{run}.csv").write_text(raw(run))
