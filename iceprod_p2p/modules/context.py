"""What a running module may say while it runs: progress, statistics, files, log lines, and calls to its site.

The child process gives every module a context.  A module run anywhere else (a test, a notebook) has one
that only collects, so its code is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.modules.protocol import Answer, Message, Progress, SiteCall, Statistic, Value
from iceprod_p2p.modules.statistics import check_name, check_value


class SiteRefused(IceProdError):
    """The site did not do what a module asked it; the message is the site's word."""


def _no_site(_call: SiteCall) -> Answer:
    return Answer(refusal="this module runs without a site: there is nobody to ask")


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
    ask: Callable[[SiteCall], Answer] = _no_site

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

    def call_site(self, method: str, argument: Value = None) -> Value:
        """Ask the site and return its answer; methods are told in docs/modules.md.

        `argument` is JSON-like data of at most 48 KiB.  SiteRefused when there is no such method, the site says no,
        or calls come too fast; BadInput when the argument cannot be carried.  A call may reach the site twice when a
        node fails meanwhile.
        """
        answer = self.ask(SiteCall(method, argument))
        if answer.refusal:
            raise SiteRefused(answer.refusal)
        return answer.value

    def record_file(self, path: str, name: str = "", kind: str = "permanent") -> None:
        """Make a file of the work directory an output of the task, beside those that the steering file names.

        It is stored and recorded as `name` (the path, if empty) when the task ends well.  SiteRefused for a path that
        leads out of the work directory, or a name that is taken.
        """
        self.call_site("record_file", {"path": path, "name": name or path, "kind": kind})
