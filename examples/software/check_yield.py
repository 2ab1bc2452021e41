"""Compare a table of light yields with what the software's library says."""

from pathlib import Path

from iceprod_p2p.modules import module_function


@module_function
def check_yield(path: str = "yield.txt") -> dict[str, float]:
    """Read the table and compare each line."""
    from lightyield import PHOTONS_PER_GEV

    rows = [tuple(map(int, line.split())) for line in Path(path).read_text().splitlines()]
    assert all(photons == energy * PHOTONS_PER_GEV for energy, photons in rows), rows
    return {"rows": len(rows), "photons_per_gev": PHOTONS_PER_GEV}
