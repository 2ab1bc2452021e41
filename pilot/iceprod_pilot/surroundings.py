"""What a module finds around it: the environment of its software, the code of its classes, its container."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.model.states import FailReason
from iceprod_pilot.attempt import TaskFailure
from iceprod_pilot.container import Container, command_line, environment_inside
from iceprod_pilot.isolation import Isolation
from iceprod_pilot.plan import ClassUse, Step
from iceprod_pilot.software import Provided, Software, class_environment
from iceprod_pilot.staging import Wait
from iceprod_pilot.workspace import TaskDirectory, inside

# What the process of a class imports beside the standard library; brought into a container that has a Python alone.
LIBRARIES: Final = ("iceprod_p2p", "msgpack")
NOT_ISOLATED: Final = Isolation()
BUNDLE_FACTS: Final = Path(__file__).parent.parent / "bundle.json"
# -P: a file of the payload that bears a library's name must not be imported in its place.
BY_NAME: Final = ("-P", "-m", "iceprod_p2p.modules.child")
# How a module's Python process is started outside containers: by path where the pilot came as a bundle.
CHILD: Final = ("-P", str(Path(__file__).with_name("child_main.py"))) if BUNDLE_FACTS.exists() else BY_NAME


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment of one module, and how its command line is put into its container, if it has one."""

    environ: Mapping[str, str]
    work: Path
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    container: Container | None = None
    gpus: bool = False
    isolation: Isolation = NOT_ISOLATED

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that starts `argv` in these surroundings."""
        if self.container is None:
            return self.isolation.wrap(argv, self.environ, self.work)
        return command_line(
            self.container,
            argv,
            work=self.work,
            writable=self.writable,
            readable=self.readable,
            gpus=self.gpus,
        )

    @property
    def python(self) -> str:
        """The Python that runs modules here: the pilot's own, or that of a container which does not see it."""
        return sys.executable if self.container is None or self.container.has(sys.executable) else "python3"

    def child(self) -> list[str]:
        """Return the command line of the process that runs a class, without its pipes."""
        return [self.python, *(CHILD if self.container is None else BY_NAME)]


@dataclass(slots=True)
class Provider:
    """Makes the surroundings of the steps of one task; for the attempt's own thread alone."""

    software: Software
    directory: TaskDirectory
    environ: Mapping[str, str]
    outside: Mapping[str, str]
    leases: ExitStack
    wait: Wait
    gpus: bool
    caches: tuple[Path, ...]
    isolation: Isolation = NOT_ISOLATED
    _known: dict[object, Surroundings] = field(default_factory=dict)

    def of(self, step: Step) -> Surroundings:
        """Return the surroundings of a step; TaskFailure when its software cannot be had."""
        key = (step.environment, step.container, step.classes)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._made(step)
        return known

    def _made(self, step: Step) -> Surroundings:
        provided = self.software.provide(step.environment, step.container, leases=self.leases, wait=self.wait)
        base = dict(self.environ)
        container = provided.container
        libraries: tuple[Path, ...] = ()
        if container is not None:
            base = environment_inside(base, outside=self.outside)
            if step.class_name:
                packages = tuple(map(_package, LIBRARIES))
                libraries = tuple(path for path in packages if not _is_seen(container, path))
                # Those of the software go before: a class may bring its own msgpack.
                roots = dict.fromkeys(str(path.parent) for path in packages)
                base["PYTHONPATH"] = ":".join([*filter(None, [base.get("PYTHONPATH")]), *roots])
        environ = provided.environment(base, python=self.software.python)
        for use in step.classes:
            self._add_class(environ, use)
        return Surroundings(
            environ=environ,
            work=self.directory.work,
            writable=(self.directory.root,),
            readable=() if container is None else self._readable(provided, libraries),
            container=container,
            gpus=self.gpus,
            isolation=self.isolation,
        )

    def _readable(self, provided: Provided, libraries: tuple[Path, ...]) -> tuple[Path, ...]:
        return (*filter(Path.is_dir, self.caches), *libraries, *_outside(provided))

    def _add_class(self, environ: dict[str, str], use: ClassUse) -> None:
        if use.digest:
            local = self._fetched(
                use, lambda: self.software.archive(use.digest, use.name, leases=self.leases, wait=self.wait)
            )
            environ["PYTHONDONTWRITEBYTECODE"] = "1"
        elif use.local:
            local = inside(self.directory.work, use.local)
        else:
            return
        python = self.software.python
        class_environment(environ, local, libs=use.libs, env_vars=use.env_vars, python=python)

    def _fetched(self, use: ClassUse, fetch: Callable[[], Path]) -> Path:
        try:
            return fetch()
        except IceProdError as missing:
            if isinstance(missing, TaskFailure):
                raise
            raise TaskFailure(
                FailReason.SOFTWARE, f"class {use.name!r} could not be had: {missing.message}"
            ) from missing


def _is_seen(container: Container, path: Path) -> bool:
    """Return whether a container that has this path shows the one of this machine."""
    return container.root == Path("/") and not str(path).startswith(("/tmp/", "/run/"))


def _package(name: str) -> Path:
    """Return the directory of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _outside(provided: Provided) -> tuple[Path, ...]:
    """Return the trees that lie outside the caches, such as those of CVMFS."""
    return tuple(tree.root for tree in provided.trees if not str(tree.root).startswith("/cvmfs/"))
