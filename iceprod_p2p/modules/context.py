"""What a running module may say while it runs: progress, statistics, and log lines.

The child process gives every module a context.  A module run anywhere else (a test, a notebook) has one
that only collects, so its code is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from iceprod_p2p.modules.protocol import Message, Progress, Statistic
from iceprod_p2p.modules.statistics import check_name, check_value


def _discard(_message: Message) -> None:
    """Send nothing: the module runs outside a pilot."""


@dataclass(slots=True)
class ModuleContext:
    """One run of one module.  `send` carries messages to the pilot; `work_dir` is the current directory.

    Not for use from several threads at once.
    """

    work_dir: Path = field(default_factory=Path.cwd)
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("iceprod.module"))
    send: Callable[[Message], None] = _discard
    statistics: dict[str, float] = field(default_factory=dict)

    def statistic(self, name: str, value: float) -> None:
        """Set one statistic now, so that it is known even if the module is killed later.

        BadInput, naming it, when `value` is not a finite number.
        """
        number = check_value(check_name(name), value)
        self.statistics[name] = number
        self.send(Statistic(name, number))

    def progress(self, fraction: float, note: str = "") -> None:
        """Say how far the module is, from 0 to 1; values outside are cut."""
        self.send(Progress(fraction, note))
