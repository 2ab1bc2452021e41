"""The plugin for an HTCondor-CE: a schedd elsewhere, by name and port, with a token and -spool.

It is the HTCondor plugin with other options; the computing element routes each grid job to the batch system behind it.
Source: https://htcondor.com/htcondor-ce/v23/remote-job-submission/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Self

from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import htcondor_text as text
from iceprod_p2p.grids.base import Capabilities, GridRequest
from iceprod_p2p.grids.command import Commands
from iceprod_p2p.grids.htcondor import HtcondorGrid

PORT: Final = 9619
METHODS: Final = "_CONDOR_SEC_CLIENT_AUTHENTICATION_METHODS"


class HtcondorCeGrid(HtcondorGrid):
    """One computing element, spoken to by the commands of HTCondor."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("endpoint", "text", None, "of the computing element: its host, with :9619 or another port"),
        Setting("schedd", "text", "", "the name of its schedd; empty: the host"),
        Setting("authentication", "text", "SCITOKENS,SSL", "methods that are tried, as HTCondor names them"),
        Setting("bin_directory", "path", "", "where HTCondor's commands are; empty: in PATH"),
        Setting(
            "environment", "table", {}, "for HTCondor's commands; BEARER_TOKEN_FILE is [queue] credential"
        ),
        Setting("timeout_s", "number", 120.0, "for one command", 1, 3_600),
        Setting("history_scan", "whole", 20_000, "how many ended jobs are looked through", 1, 10_000_000),
    )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        endpoint = str(options["endpoint"])
        host, _, port = endpoint.partition(":")
        environment: dict[str, str] = dict(options["environment"])  # type: ignore[call-overload]
        commands = Commands(
            bin_directory=str(options["bin_directory"]),
            environment={METHODS: str(options["authentication"]), **environment},
            timeout_s=float(str(options["timeout_s"])),
        )
        where = text.HtcondorOptions(
            "yes", str(options["schedd"]) or host, f"{host}:{port or PORT}", spool=True, routed=True
        )
        return cls(commands, where, history_scan=int(str(options["history_scan"])))

    def capabilities(self) -> Capabilities:
        """Return what is sure; limits are those of the batch system behind it."""
        return Capabilities(transfers_files=True, enforces=frozenset({"walltime"}), gpus=True)

    def impossible(self, request: GridRequest) -> str:
        """Return why a request cannot run: what is behind a computing element never sees this host's files."""
        return (
            ""
            if request.carry
            else "worker nodes behind it share no directory with this host: shared_directory = false"
        )

    def check(self) -> str:
        """Return HTCondor's version and as whom the computing element lets this node submit."""
        version = super().check()
        said = self._succeed("condor_ping", *self._options.where(), "-type", "SCHEDD", "-table", "WRITE")
        return f"{version}; {' '.join(said.split())}"
