"""Writes iceprod-p2p.dtd and iceprod-p2p.xsd beside this file: run it after a change of the XML vocabulary."""

from __future__ import annotations

from pathlib import Path

from iceprod_p2p.steering import schemas

if __name__ == "__main__":
    here = Path(__file__).parent
    (here / "iceprod-p2p.dtd").write_text(schemas.dtd(), encoding="utf-8")
    (here / "iceprod-p2p.xsd").write_text(schemas.xsd(), encoding="utf-8")
