"""Gateways of former grids as profiles of the declarative plugin: CREAM, gLite's workload management, and EDG's.

Their services have ended: CREAM in 2020, the gLite WMS about 2017, EDG's before that.  What is here follows their
manuals and what their clients printed; it was run against commands that play these, and against no living service.
Successors: ARC (`arc`), HTCondor-CE (`htcondor-ce`).

Sources: "CREAM User's Guide" (EGEE-JRA1-TEC-595770), "JDL Attributes Specification for CREAM" (EGEE-JRA1-TEC-592336),
"gLite 3.2 User Guide" (CERN-LCG-GDEIS-722398), "LCG-2 User Guide" (CERN-LCG-GDEIS-454439).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Self

from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids.base import Capabilities, GridRequest
from iceprod_p2p.grids.command import Commands
from iceprod_p2p.grids.declarative import NEVER, DeclarativeGrid

_COMMANDS: Final = (
    Setting("bin_directory", "path", "", "where the commands are; empty: in PATH"),
    Setting("environment", "table", {}, "for the commands, such as X509_USER_PROXY"),
    Setting("timeout_s", "number", 120.0, "for one command", 1, 3_600),
)
_TAG: Final = r"(?P<name>iceprod\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)"
_DOWN: Final = (
    "[Cc]onnection refused|[Nn]o route to host|[Nn]ame or service not known|[Hh]ost not found|[Uu]nknown host"
)
_SILENT: Final = "[Tt]imed? ?out|[Cc]onnection (?:error|reset|closed)|EOF|No response|[Ii]nternal error"

# The script brings the pilot's files along; only it travels in the sandbox.
_JDL: Final = (
    "[",
    'Type = "Job";',
    'JobType = "Normal";',
    'Executable = "grid.sh";',
    'StdOutput = "grid.out";',
    'StdError = "grid.err";',
    'InputSandbox = {"{script}"};',
    'OutputSandbox = {"grid.out", "grid.err"};',
)
_JDL_TAG: Final = 'Environment = {"ICEPROD_GRID_TAG={name}"};'


def block(first: str, fields: Mapping[str, str]) -> str:
    """Return an expression for a record of many lines: it begins where `first` matches, which finds the id.

    Each of `fields` is looked for before the next record, in any order, and may be absent; `state` must be there.
    """
    inside = rf"(?:(?!{first.replace('?P<id>', '?:')})[\s\S])*?"
    parts = [
        rf"(?={inside}{field})" if name == "state" else rf"(?=(?:{inside}{field})?)"
        for name, field in fields.items()
    ]
    return first + "".join(parts)


CREAM_STATUS: Final = block(
    r"JobID\s*=\s*\[(?P<id>https://[^\]\s]+)\]",
    {
        "state": r"^\s*(?:Current )?Status\s*=\s*\[(?P<state>[A-Z-]+)\]",
        "code": r"^\s*ExitCode\s*=\s*\[(?P<code>[^\]]*)\]",
        "reason": r"^\s*FailureReason\s*=\s*\[(?P<reason>[^\]]*)\]",
        "host": r"^\s*Worker Node\s*=\s*\[(?P<host>[^\]]*)\]",
        "name": _TAG,
    },
)
LB_STATUS: Final = block(
    r"Status info for the Job\s*:\s*(?P<id>https://\S+)",
    {
        "state": r"^\s*Current Status:\s*(?P<state>[A-Za-z]+(?: ?\([^)\n]*\))?)",
        "code": r"^\s*[Ee]xit [Cc]ode:[ \t]*(?P<code>-?\d+)",
        "reason": r"^\s*Status Reason:[ \t]*(?P<reason>.*)$",
        "host": r"^\s*Destination:[ \t]*(?P<host>\S+)",
        "name": _TAG,
    },
)
CREAM_STATES: Final = {
    "REGISTERED": "queued",
    "PENDING": "queued",
    "IDLE": "queued",
    "RUNNING": "running",
    "REALLY-RUNNING": "running",
    "HELD": "held",
    "DONE-OK": "completed",
    "DONE-FAILED": "failed",
    "ABORTED": "failed",
    "CANCELLED": "removed",
    "*": "queued",
}
LB_STATES: Final = {
    "Submitted": "queued",
    "Waiting": "queued",
    "Ready": "queued",
    "Scheduled": "queued",
    "Running": "running",
    "Done (Success)": "completed",
    "Done (Exit Code !=0)": "completed",
    "Done (Failed)": "failed",
    "Done (Cancelled)": "removed",
    "Done": "completed",
    "Cleared": "completed",
    "Aborted": "failed",
    "Cancelled": "removed",
    "*": "queued",
}


class Gateway(DeclarativeGrid):
    """What these have in common: worker nodes share nothing, and descriptions are JDL."""

    @classmethod
    def of_profile(cls, options: Mapping[str, object], profile: Mapping[str, object]) -> Self:
        """Make the plugin from a site's options and its system's profile."""
        commands = Commands.from_options(options)
        usual = {"history": (), "history_line": "", "forget": (), "unknown": NEVER, "forward_signals": False}
        return cls(commands, {**usual, "down": _DOWN, "silent": _SILENT, **profile})

    def capabilities(self) -> Capabilities:
        """Return what is sure: files travel in the script; limits are those of the system behind the gateway."""
        return Capabilities(transfers_files=True)

    def impossible(self, request: GridRequest) -> str:
        """Return why a request cannot run: worker nodes behind a gateway never see this host's files."""
        if not request.carry:
            return "worker nodes behind a gateway share no directory with this host: shared_directory = false"
        return "JDL has no words for GPUs: name them in extra_lines" if request.gpus else ""


class CreamGrid(Gateway):
    """One queue of a CREAM computing element, by the commands ``glite-ce-job-*``."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        *_COMMANDS,
        Setting("endpoint", "text", None, "of the queue, such as ce.example.org:8443/cream-pbs-long"),
    )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        endpoint = str(options["endpoint"])
        jdl = (
            *_JDL,
            'OutputSandboxBaseDestUri = "gsiftp://localhost";',
            _JDL_TAG,
            "CpuNumber = {cores};",
            "SMPGranularity = {cores};",
            "{extra_lines}",
            "]",
        )
        profile = {
            "submit": ("glite-ce-job-submit -a -r", endpoint, "{description}"),
            "description": jdl,
            "submit_id": r"^(?P<id>https://\S+/CREAM\d+)\s*$",
            "status": (f"glite-ce-job-status --level 2 --all --endpoint {endpoint.partition('/')[0]}",),
            "status_line": CREAM_STATUS,
            "states": CREAM_STATES,
            "remove": ("glite-ce-job-cancel --noint {ids}",),
            "forget": ("glite-ce-job-purge --noint {ids}",),
            "unknown": "[Jj]ob not found|does not exist|not found|status does not match",
        }
        return cls.of_profile(options, profile)


class GliteGrid(Gateway):
    """The gLite workload management, by the commands ``glite-wms-job-*``."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        *_COMMANDS,
        Setting("endpoint", "text", "", "of the WMProxy; empty: as the commands are configured"),
    )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        endpoint = f"-e {options['endpoint']}" if options["endpoint"] else ""
        profile = {
            "submit": ("glite-wms-job-submit --noint -a", endpoint, "-r {queue}", "{description}"),
            "description": (*_JDL, _JDL_TAG, "CpuNumber = {cores};", *_REQUIREMENTS, "{extra_lines}", "]"),
            "submit_id": r"identifier[\s\S]*?is:\s*-?\s*(?P<id>https://\S+)",
            "status": ("glite-wms-job-status --noint -v 3 --all",),
            "status_line": LB_STATUS,
            "states": LB_STATES,
            "remove": ("glite-wms-job-cancel --noint {ids}",),
            "unknown": "[Nn]o matching jobs|already|not allowed in the current state|unable to find",
        }
        return cls.of_profile(options, profile)


class EdgGrid(Gateway):
    """The EDG (LCG-2) workload management, by the commands ``edg-job-*``."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        *_COMMANDS,
        Setting("vo", "text", "", "virtual organisation; empty: as the commands are configured"),
    )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        vo = f"--vo {options['vo']}" if options["vo"] else ""
        profile = {
            "submit": ("edg-job-submit --noint --nolisten", vo, "-r {queue}", "{description}"),
            "description": (*_JDL, _JDL_TAG, *_REQUIREMENTS, "{extra_lines}", "]"),
            "submit_id": r"identifier[\s\S]*?is:\s*-?\s*(?P<id>https://\S+)",
            "status": ("edg-job-status --noint -v 2 --all",),
            "status_line": LB_STATUS,
            "states": LB_STATES,
            "remove": ("edg-job-cancel --noint {ids}",),
            "unknown": "[Nn]o matching jobs|already|not allowed in the current state|unable to find",
        }
        return cls.of_profile(options, profile)


_REQUIREMENTS: Final = ("Requirements = other.GlueCEPolicyMaxWallClockTime >= {minutes};",)
