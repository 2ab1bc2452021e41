"""A module's process where this package lies in no site-packages: started by its path, out of a bundle's directory."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Let the bundle's own packages be found first, then run the module as `iceprod_p2p.modules.child` does."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from iceprod_p2p.modules import child

    return child.main()


if __name__ == "__main__":
    raise SystemExit(main())
