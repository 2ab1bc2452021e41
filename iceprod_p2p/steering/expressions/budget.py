"""The work that expressions may cost, counted in units of about a microsecond: equal on every machine."""

from __future__ import annotations

from iceprod_p2p.steering.expressions.errors import Exhausted


class Budget:
    """A number of work units; a budget inside another one takes from both."""

    def __init__(self, units: int, *, of: Budget | None = None) -> None:
        self.units = units
        self.left = units
        self.of = of

    def spend(self, units: int) -> None:
        """Take units away.  Raises Exhausted when there are no more."""
        self.left -= units
        if self.left < 0:
            raise Exhausted(f"takes more than {self.units} steps")
        if self.of is not None:
            self.of.spend(units)
