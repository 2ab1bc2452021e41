"""The software of a task: found by name, fetched, unpacked, put into its environment; its container, if it has one.

An environment of the steering file names a published version (`software`, `version`), a tarball (`sha256`), or a
directory that the machine has already (`cvmfs`).  What cannot be had here is a fault of the site, not of the task:
another one may have it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.base.machine import this_machine
from iceprod_p2p.model.software import (
    Build,
    BuildKind,
    Host,
    NotAPlatform,
    Platform,
    best_build,
    parse_platform,
    within,
)
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot.attempt import TaskFailure
from iceprod_pilot.container import IMAGE_SCHEMES, Container
from iceprod_pilot.link import patiently
from iceprod_pilot.source import Source
from iceprod_pilot.staging import DIGEST, Content, Staging, Wait
from iceprod_pilot.trees import TreeCache, entry_name

if TYPE_CHECKING:
    from iceprod_p2p.model.steering import Environment

BUILDS_SHOWN_MAX: Final = 8
KNOWN_MAX: Final = 64  # Versions whose builds are remembered.
BLOB: Final = "iceprod://sha256/"
_SUBDIRECTORIES: Final[Mapping[str, tuple[str, ...]]] = {
    "PATH": ("bin",),
    "LD_LIBRARY_PATH": ("lib", "lib64"),
    "PYTHONPATH": ("python", "lib/python{python}/site-packages", "lib64/python{python}/site-packages"),
}


_USUAL: Final = ("bin", "sbin", "lib", "lib64", "python", "share", "include", "etc")


@dataclass(frozen=True, slots=True)
class Tree:
    """One directory of software, and what it sets: values may hold ``{root}``."""

    root: Path
    variables: Mapping[str, str]

    def apply(self, environ: dict[str, str], *, python: str) -> None:
        """Put the tree into an environment: its own directories go before what is there."""
        for name, places in _SUBDIRECTORIES.items():
            found = [self.root / place.format(python=python) for place in places]
            before = [str(path) for path in found if path.is_dir()]
            if before and name not in self.variables:
                environ[name] = ":".join([*before, *filter(None, [environ.get(name)])])
        for name, value in self.variables.items():
            value = value.replace("{root}", str(self.root))
            if name.endswith("PATH") and environ.get(name):
                value = f"{value}:{environ[name]}"
            environ[name] = value


@dataclass(frozen=True, slots=True)
class Provided:
    """What an environment came to: trees from the outermost in, and a container."""

    trees: tuple[Tree, ...] = ()
    container: Container | None = None

    def environment(self, environ: Mapping[str, str], *, python: str) -> dict[str, str]:
        """Return `environ` with every tree put into it."""
        result = dict(environ)
        for tree in self.trees:
            tree.apply(result, python=python)
        if self.trees:
            # A tree is shared and must stay as it is.
            result["PYTHONDONTWRITEBYTECODE"] = "1"
        return result


class Software:
    """Finds and unpacks.  Thread-safe."""

    def __init__(
        self, source: Source, staging: Staging, trees: TreeCache, *, host: Host | None = None
    ) -> None:
        """`host` is this machine unless given."""
        machine = this_machine()
        self._host = host or Host(machine.systems, machine.arch, machine.libc, machine.python)
        self._source = source
        self._staging = staging
        self._trees = trees
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[common_pb2.SoftwareBuild, ...]] = {}

    @property
    def python(self) -> str:
        """The minor version of Python that modules run under."""
        return self._host.python

    def provide(
        self, environment: Environment | None, container: str, *, leases: ExitStack, wait: Wait
    ) -> Provided:
        """Return what an environment and a container come to; `leases` keeps it until it is closed.

        TaskFailure says what cannot be had, and why.
        """
        trees: list[Tree] = []
        inside: Container | None = None
        if environment is not None:
            container = environment.container or container
            if environment.cvmfs:
                trees.append(Tree(self._directory(environment.cvmfs, "software"), {}))
            if environment.software:
                build = self._build(environment, wait)
                tree = self._unpacked(build, f"{environment.software} {environment.version}", leases, wait)
                if build.kind is BuildKind.CONTAINER:
                    inside = Container(root=tree.root)
                else:
                    trees.append(tree)
            elif environment.sha256:
                build = Build(Platform(), _digest(environment.sha256), 0)
                trees.append(self._unpacked(build, f"tarball {environment.sha256[:12]}", leases, wait))
        if container:
            inside = self._container(container, leases, wait)
        return Provided(tuple(trees), inside)

    def archive(self, digest: str, name: str, *, leases: ExitStack, wait: Wait) -> Path:
        """Return the directory that a tarball is unpacked in."""
        return self._leased(Build(Platform(), _digest(digest), 0), name, leases, wait)

    def shared(self, content: Content, *, leases: ExitStack, wait: Wait) -> Path:
        """Return the path of a file that many tasks read, verified; errors as `Staging.deliver`."""

        def make(directory: Path) -> None:
            directory.mkdir(mode=0o700)
            self._staging.deliver(content, directory / "content", wait=wait)

        lease = self._trees.lease(entry_name(content.sha256, "file"), make, wait=wait)
        leases.callback(lease.close)
        return lease.path / "content"

    def _build(self, environment: Environment, wait: Wait) -> Build:
        name, version = environment.software, environment.version
        label = f"{name} {version}".strip()
        try:
            wanted = parse_platform(environment.platform)
        except NotAPlatform as wrong:
            raise TaskFailure(FailReason.BAD_STEERING, f"software {label}: {wrong}") from wrong
        builds = tuple(map(_build_of, self._builds(name, version, wait)))
        chosen = within(wanted, builds)
        if environment.sha256:
            chosen = tuple(build for build in chosen if build.sha256 == environment.sha256)
        best = best_build(chosen, self._host)
        if best is None:
            has = ", ".join(build.platform.text for build in builds[:BUILDS_SHOWN_MAX])
            asked = f" that is {wanted.text}" if wanted != Platform() else ""
            raise TaskFailure(
                FailReason.SOFTWARE,
                f"software {label}{asked}: no build for this platform ({self._host.text}): has {has}",
            )
        return best

    def _builds(self, name: str, version: str, wait: Wait) -> tuple[common_pb2.SoftwareBuild, ...]:
        with self._lock:
            known = self._known.get((name, version))
        if known is not None and best_build(tuple(map(_build_of, known)), self._host) is not None:
            return known
        request = pilot_pb2.SoftwareRequest(name=name, version=version)
        try:
            reply = patiently(partial(self._source.software, request), stop=wait, what=f"look-up of {name}")
        except NotFound as unknown:
            raise TaskFailure(FailReason.SOFTWARE, unknown.message) from unknown
        except IceProdError as silent:
            raise TaskFailure(
                FailReason.STORAGE, f"software {name} {version} could not be looked up: {silent.message}"
            ) from silent
        with self._lock:
            self._known[name, version] = tuple(reply.builds)
            while len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        return tuple(reply.builds)

    def _unpacked(self, build: Build, label: str, leases: ExitStack, wait: Wait) -> Tree:
        path = self._leased(build, label, leases, wait)
        return Tree(path if build.kind is BuildKind.CONTAINER else _only_directory(path), build.variables)

    def _leased(self, build: Build, label: str, leases: ExitStack, wait: Wait) -> Path:
        is_root = build.kind is BuildKind.CONTAINER
        size_bytes = build.size_bytes or -1

        def make(directory: Path) -> None:
            # Only tasks with software pay for this import.
            from iceprod_p2p.modules.archive import unpack

            archive = directory.with_name(f"{directory.name}.tar")
            try:
                self._staging.deliver(Content(build.sha256, size_bytes, label), archive, wait=wait)
                unpack(archive, directory, root_filesystem=is_root, go_on=lambda: _go_on(wait))
                directory.chmod(0o700)
            finally:
                archive.unlink(missing_ok=True)

        try:
            lease = self._trees.lease(
                entry_name(build.sha256, "root" if is_root else "tree"), make, wait=wait
            )
        except BadInput as refused:
            raise TaskFailure(FailReason.BAD_STEERING, f"software {label}: {refused.message}") from refused
        except (NotFound, IntegrityError, Unavailable) as missing:
            raise TaskFailure(
                FailReason.SOFTWARE, f"software {label} could not be had: {missing.message}"
            ) from missing
        leases.callback(lease.close)
        return lease.path

    def _container(self, container: str, leases: ExitStack, wait: Wait) -> Container:
        if container.startswith(BLOB):
            digest = container.removeprefix(BLOB).split("/")[0]
            build = Build(Platform(), _digest(digest), 0, BuildKind.CONTAINER)
            return Container(root=self._unpacked(build, f"container {digest[:12]}", leases, wait).root)
        if container.startswith(IMAGE_SCHEMES):
            return Container(image=container)
        if os.path.isfile(container):
            return Container(image=container)
        return Container(root=self._directory(container, "container"))

    def _directory(self, path: str, what: str) -> Path:
        if not path.startswith("/") or ".." in path.split("/"):
            raise TaskFailure(FailReason.BAD_STEERING, f"the {what} {path[:200]!r} is no absolute path")
        if not os.path.isdir(path):
            raise TaskFailure(FailReason.SOFTWARE, f"there is no directory {path!r} on this machine")
        return Path(path)


def class_environment(environ: dict[str, str], local: Path, *, libs: str, env_vars: str, python: str) -> None:
    """Make the code of a class importable, and set its variables, as IceProd does.

    `local` is its file or directory; where that holds one directory alone, that one is meant.  `libs` are directories
    in it, with colons between; `env_vars` are ``NAME=VALUE;NAME=VALUE`` where ``$CLASS`` stands for `local`; a variable
    that is there already keeps its value behind the new one.
    """
    if local.is_dir():
        outer, local = local, _only_directory(local)
        paths = [local, *sorted(local.glob("lib*")), local / f"lib/python{python}/site-packages", outer]
        paths += [local / word for word in libs.split(":") if word and ".." not in word.split("/")]
        found = [str(path) for path in dict.fromkeys(paths) if path.is_dir()]
        for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
            environ[name] = ":".join([*found, *filter(None, [environ.get(name)])])
    for pair in env_vars.split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals and name:
            value = value.replace("$CLASS", str(local))
            environ[name] = f"{value}:{environ[name]}" if environ.get(name) else value


def _build_of(message: common_pb2.SoftwareBuild) -> Build:
    platform = Platform(message.os, message.arch, message.libc, message.python)
    kind = BuildKind.CONTAINER if message.kind == BuildKind.CONTAINER else BuildKind.TREE
    return Build(platform, message.sha256, message.size_bytes, kind, dict(message.variables))


def _digest(text: str) -> str:
    if DIGEST.fullmatch(text) is None:
        raise TaskFailure(FailReason.BAD_STEERING, f"{text[:80]!r} is no SHA-256")
    return text


def _only_directory(path: Path) -> Path:
    """Return the one directory that a tarball consists of, as most do; else the whole."""
    entries = list(path.iterdir())
    if len(entries) != 1 or entries[0].is_symlink() or not entries[0].is_dir():
        return path
    return path if entries[0].name in _USUAL else entries[0]


def _go_on(wait: Wait) -> None:
    if wait(0.0):
        raise Unavailable("the unpacking was ended")
