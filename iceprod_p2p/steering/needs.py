"""Requirements as written to whole numbers, for the ledger and for sites."""

from __future__ import annotations

from collections.abc import Callable

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.resources import Requirements as Needs
from iceprod_p2p.model.steering import Requirements, Value
from iceprod_p2p.steering import amounts
from iceprod_p2p.steering.expressions.evaluate import Expander

DEFAULT_NEEDS = Needs()  # IceProd's defaults: one CPU, 1 GB of memory and of disk, one hour.


def needs(requirements: Requirements, expander: Expander, place: str) -> Needs:
    """Return requirements in CPUs, MiB and seconds; expressions are evaluated in the expander's context.

    Raises BadInput, naming the place, when an amount is unresolved or is none.  Operating systems, architecture and
    site become attributes such as ``os=RHEL_9_x86_64``; several systems, of which any will do, are joined by ``|``.
    """

    def amount(name: str, value: Value, rule: Callable[[Value], int], default: int) -> int:
        if value is None:
            return default
        expansion = expander.expand(value, f"{place}.{name}")
        try:
            return rule(expansion.value)
        except amounts.BadAmount as bad:
            why = str(expansion.problems[0]) if expansion.problems else f"allowed: {bad}"
            raise BadInput(f"{place}.{name}: {str(expansion.value)[:80]!r} is no amount; {why}") from bad

    def text(name: str, value: str) -> str:
        expansion = expander.expand(value, f"{place}.{name}", as_text=True)
        if not expansion.resolved:
            raise BadInput(f"{place}.{name}: {expansion.problems[0]}")
        return str(expansion.value)

    words = {text("attributes", word) for word in requirements.attributes}
    systems = sorted({text("os", name) for name in requirements.os} - {""})
    if systems:
        words.add(f"os={'|'.join(systems)}")
    if arch := text("arch", requirements.arch):
        words.add(f"arch={arch}")
    if site := text("site", requirements.site):
        words.add(f"site={site}")
    return Needs(
        cpus=max(1, amount("cpu", requirements.cpu, amounts.count, DEFAULT_NEEDS.cpus)),
        gpus=amount("gpu", requirements.gpu, amounts.count, DEFAULT_NEEDS.gpus),
        memory_mib=amount("memory", requirements.memory, amounts.mebibytes, DEFAULT_NEEDS.memory_mib),
        disk_mib=amount("disk", requirements.disk, amounts.mebibytes, DEFAULT_NEEDS.disk_mib),
        walltime_s=amount("time", requirements.time, amounts.seconds, DEFAULT_NEEDS.walltime_s),
        attributes=tuple(sorted(words - {""})),
    )
