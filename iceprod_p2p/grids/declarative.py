"""A plugin without code: the batch system's commands, regular expressions and states stand in `site.toml`.

It keeps the same promises as the others, as far as the description lets it: the tag has to be found in what
the system lists.  See docs/grids/declarative.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import declarative_text as text
from iceprod_p2p.grids.base import (
    Capabilities,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.command import CommandResult, Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.submitting import in_parts, submit_each

NEVER: Final = r"(?!)"  # Matches nothing.


class DeclarativeGrid(Grid):
    """A batch system described by data."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("bin_directory", "path", "", "where the commands are; empty: in PATH"),
        Setting("environment", "table", {}, "for the commands"),
        Setting("timeout_s", "number", 60.0, "for one command", 1, 3_600),
        Setting("submit", "texts", None, "command line; the script comes by standard input or as {script}"),
        Setting("description", "texts", (), "lines of a job description, written to {description}"),
        Setting("submit_id", "text", None, "finds (?P<id>...) in what submit printed"),
        Setting("status", "texts", None, "command line that lists grid jobs, of all or of {ids}"),
        Setting("status_line", "text", None, "finds id, name and state, and may find host, code, reason"),
        Setting("history", "texts", (), "command line for ended ones; empty: status knows them"),
        Setting("history_line", "text", "", "as status_line; empty: the same"),
        Setting("states", "table", None, "word of the system to queued, running, held, completed, ..."),
        Setting("remove", "texts", None, "command line with {ids}"),
        Setting("forget", "texts", (), "command line with {ids} of ended ones that are noted"),
        Setting("unknown", "text", NEVER, "finds a complaint about unknown ids, which is no error"),
        Setting("down", "text", NEVER, "finds a complaint that the system cannot be reached"),
        Setting("silent", "text", NEVER, "finds a complaint that leaves a submission unclear"),
        Setting("forward_signals", "switch", False, "the system warns by USR1 or USR2; make it TERM"),
    )

    def __init__(self, commands: Commands, options: Mapping[str, object]) -> None:
        def texts(name: str) -> tuple[str, ...]:
            value = options[name]
            return tuple(map(str, value)) if isinstance(value, list | tuple) else ()

        def states() -> dict[str, str]:
            value = options["states"]
            return (
                {str(word): str(kind) for word, kind in value.items()} if isinstance(value, Mapping) else {}
            )

        self._commands = commands
        self._submit, self._status = texts("submit"), texts("status")
        self._history, self._remove = texts("history"), texts("remove")
        self._description, self._forget = texts("description"), texts("forget")
        text.check_states(states())
        text.check_line("submit", self._submit, text.REQUEST_PLACEHOLDERS)
        text.check_line("status", self._status, frozenset({"ids"}))
        text.check_line("remove", self._remove, frozenset({"ids"}), needs="ids")
        text.check_description(self._description)
        if self._forget:
            text.check_line("forget", self._forget, frozenset({"ids"}), needs="ids")
        if self._history:
            text.check_line("history", self._history, frozenset({"ids"}))
        self._id = text.pattern("submit_id", str(options["submit_id"]), ("id",))
        line = text.pattern("status_line", str(options["status_line"]), ("id", "name", "state"))
        end_text = str(options["history_line"])
        end = text.pattern("history_line", end_text, ("id", "state")) if end_text else line
        self._listed, self._ended = text.Pattern(line, states()), text.Pattern(end, states())
        self._unknown = text.pattern("unknown", str(options["unknown"]), ())
        self._down = text.pattern("down", str(options["down"]), ())
        self._silent = text.pattern("silent", str(options["silent"]), ())
        self._forward = bool(options["forward_signals"])

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; raises ConfigError for a description that cannot work."""
        commands = Commands.from_options(options)
        return cls(commands, options)

    def capabilities(self) -> Capabilities:
        """Return the little that a description tells."""
        submit = " ".join((*self._submit, *self._description))
        walltime = "{minutes}" in submit or "{walltime_s}" in submit
        return Capabilities(enforces=frozenset({"walltime"} if walltime else ()), gpus="{gpus}" in submit)

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return the command line and the script; it enters its directory by itself."""
        first = [] if request.carry else [f"cd {shlex.quote(request.work_directory)} || exit 1"]
        enter = shell_script(request, forward_signals=self._forward, first=first)
        line = text.submit_line(self._submit, request, with_extra_lines=not self._description)
        return SubmitConfig(line, enter)

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one."""
        return submit_each(requests, self._submit_one)

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live."""
        wanted = set(grid_job_ids)
        found = self._ask(self._status, self._listed, sorted(wanted)) if wanted else []
        return {
            job.grid_job_id: job.state
            for job in found
            if job.grid_job_id in wanted and not is_final(job.state)
        }

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends, as far as the system tells them."""
        wanted = set(grid_job_ids)
        line, how = (self._history, self._ended) if self._history else (self._status, self._listed)
        found = self._ask(line, how, sorted(wanted)) if wanted else []
        ended = [job for job in found if job.grid_job_id in wanted and is_final(job.state)]
        return {job.grid_job_id: text.history_of(job) for job in ended}

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Ask for their end."""
        for part in in_parts(sorted(set(grid_job_ids))):
            result = self._commands.run(text.ids_line(self._remove, part))
            if result.exit_code and not self._unknown.search(result.stdout + result.stderr):
                raise self._failure(result)

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Let the system drop what it keeps of ended ones, where the description says how."""
        for part in in_parts(sorted(set(grid_job_ids))) if self._forget else ():
            result = self._commands.run(text.ids_line(self._forget, part))
            if result.exit_code and not self._unknown.search(result.stdout + result.stderr):
                raise self._failure(result)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs by their tags; without ids the status command has to list all."""
        return [
            GridJobStatus(job.grid_job_id, job.tag, job.state)
            for job in self._ask(self._status, self._listed, ())
            if job.tag is not None and job.tag.owner == owner
        ]

    def check(self) -> str:
        """Return how many grid jobs are listed."""
        return f"declarative: {len(self._ask(self._status, self._listed, ()))} grid jobs listed"

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        config = self.write_config(request)
        by_file = any("{script}" in item for item in (*self._submit, *self._description))
        if self._description:
            described = text.description_file(self._description, request)
            Path(request.work_directory, text.DESCRIPTION_NAME).write_text(described)
        if by_file:
            script = Path(request.work_directory, text.SCRIPT_NAME)
            script.write_text(config.text)
            script.chmod(0o700)
        result = self._commands.run(config.arguments, stdin="" if by_file else config.text)
        if result.exit_code == 0:
            found = self._id.search(result.stdout)
            if found is None:
                return Unclear(request.tag, f"{config.arguments[0]} printed no id but: {result.said}")
            return Submitted(request.tag, found["id"])
        error = self._failure(result)
        if isinstance(error, GridDown):
            raise error
        if self._silent.search(result.stderr + result.stdout):
            return Unclear(request.tag, str(error))
        return NotSubmitted(request.tag, result.said)

    def _ask(self, line: Sequence[str], how: text.Pattern, ids: Sequence[str]) -> list[text.Found]:
        found: list[text.Found] = []
        for part in in_parts(ids) if text.IDS in " ".join(line).split() and ids else [()]:
            result = self._commands.run(text.ids_line(line, part))
            said = result.stdout + result.stderr
            if result.exit_code and not self._unknown.search(said):
                raise self._failure(result)
            found += text.find(result.stdout, how)
        return found

    def _failure(self, result: CommandResult) -> GridError:
        down = self._down.search(result.stderr + result.stdout) is not None
        return failure(
            result, down=down, remedy="see the patterns `down`, `silent` and `unknown` of this grid"
        )
