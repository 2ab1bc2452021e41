"""Finds a module by the name a steering file gives it, and says what it is.

A module's class is, in this order: a class in a file (`src` given, or ``path.py:Class``), a built-in short
name, a name in the entry-point group ``iceprod_p2p.modules``, or a dotted path
``package.module.Class``.  This is the only place that looks at that entry-point group.  Finding a module
runs its file: the child process does so for jobs, the CLI for its own user, a node never.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.modules.base import IPModule, Statistics, nearest
from iceprod_p2p.modules.function import FunctionModule, is_module_function
from iceprod_p2p.modules.parameters import ParameterSpec
from iceprod_p2p.modules.statistics import clip

ENTRY_POINT_GROUP = "iceprod_p2p.modules"

BUILT_IN: Mapping[str, str] = {
    "Executable": "iceprod_p2p.modules.executable.Executable",
    "Transfer": "iceprod_p2p.modules.transfer.Transfer",
    "Pack": "iceprod_p2p.modules.archive.Pack",
    "Unpack": "iceprod_p2p.modules.archive.Unpack",
    "Checksum": "iceprod_p2p.modules.checksum.Checksum",
    "Concatenate": "iceprod_p2p.modules.files.Concatenate",
    "WaitForFiles": "iceprod_p2p.modules.files.WaitForFiles",
    "Merge": "iceprod_p2p.modules.merge.Merge",
    "Catalogue": "iceprod_p2p.modules.merge.Catalogue",
    "Notify": "iceprod_p2p.modules.notify.Notify",
    "OptionScript": "iceprod_p2p.modules.options.OptionScript",
    "IceTray": "iceprod_p2p.modules.icetray.IceTray",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """What is known of a module.

    `fault` says in one sentence why it could not be loaded, and is empty when it could.
    """

    name: str
    origin: str
    description: str = ""
    parameters: tuple[ParameterSpec, ...] = ()
    fault: str = ""


class CallableModule(IPModule):
    """Any other callable as a module: the parameters are its keyword arguments, `args` its positional ones.

    A mapping it returns is its statistics, a whole number its code.
    """

    def __init__(self, target: Callable[..., Any]) -> None:
        super().__init__()
        self.target = target
        self.positional: tuple[Any, ...] = ()
        self.keywords: dict[str, Any] = {}

    def SetParameter(self, name: str, value: Any) -> None:
        """Keep one keyword argument, whatever its name; `execute` stays the framework's."""
        if name.lower() == "execute":
            super().SetParameter(name, value)
        else:
            self.keywords[name] = value

    def Execute(self, stats: Statistics) -> Any:
        """Call it."""
        result = self.target(*self.positional, **self.keywords)
        if isinstance(result, Mapping):
            stats.update(result)
            return 0
        return result if isinstance(result, int) else 0


def create(class_name: str, src: str = "") -> Any:
    """Return a new module of this class, ready for SetParameter and Execute.

    An IPModule, or an object with the same methods when the file brings its own IPBaseClass.  NotFound when
    there is no such class; BadInput when it cannot be a module.  Whatever the module's own file raises
    comes through.
    """
    found = find(class_name, src)
    if inspect.isclass(found) and any(base.__name__ in ("IPModule", "IPBaseClass") for base in found.__mro__):
        return found()
    if is_module_function(found):
        return FunctionModule(found)
    if callable(found):
        return CallableModule(found)
    raise BadInput(f"{class_name!r} is {clip(found)}, which cannot be run as a module")


def find(class_name: str, src: str = "") -> Any:
    """Return the class or function a steering file names.

    NotFound, with the nearest right name, when there is none.
    """
    path, _, name = class_name.rpartition(":")
    if src or path.endswith(".py"):
        return _from_file(Path(src or path), name)
    if class_name in BUILT_IN:
        return _from_path(BUILT_IN[class_name])
    if "." in class_name:
        return _from_path(class_name.replace(":", "."))
    for entry_point in _entry_points():
        if entry_point.name == class_name:
            return entry_point.load()
    known = [*BUILT_IN, *(entry_point.name for entry_point in _entry_points())]
    raise NotFound(f"there is no module {clip(class_name)}", remedy=nearest(class_name, known))


def inspect_module(class_name: str, src: str = "") -> ModuleSpec:
    """Return a module's parameters and description; raises as `create` does."""
    module = create(class_name, src)
    specs = module.parameter_specs() if isinstance(module, IPModule) else ()
    text = inspect.getdoc(_described(module)) or ""
    return ModuleSpec(
        name=class_name,
        origin=_origin(class_name, src),
        description=text.strip(),
        parameters=specs,
    )


def list_modules() -> tuple[ModuleSpec, ...]:
    """Return every built-in and every installed module by name; one that cannot be loaded says why."""
    names = [*BUILT_IN, *(entry_point.name for entry_point in _entry_points())]
    return tuple(_inspect_or_fault(name) for name in sorted(set(names), key=str.lower))


def installed_names() -> tuple[str, ...]:
    """Return the short names of modules that other packages have installed, without loading any."""
    return tuple(entry_point.name for entry_point in _entry_points())


def modules_in(path: Path) -> tuple[str, ...]:
    """Return the names of the modules that a Python file defines; runs the file."""
    loaded = _load_file(path)
    own = [value for value in vars(loaded).values() if getattr(value, "__module__", None) == loaded.__name__]
    return tuple(
        value.__name__
        for value in own
        if is_module_function(value) or (inspect.isclass(value) and issubclass(value, IPModule))
    )


def _inspect_or_fault(name: str) -> ModuleSpec:
    try:
        return inspect_module(name)
    except Exception as fault:  # an installed module may raise anything when it is imported
        return ModuleSpec(name=name, origin=_origin(name, ""), fault=f"{type(fault).__name__}: {fault}")


def _described(module: Any) -> Any:
    if isinstance(module, FunctionModule):
        return module.function
    if isinstance(module, CallableModule):
        return module.target
    return type(module)


def _origin(class_name: str, src: str) -> str:
    if src:
        return src
    if class_name in BUILT_IN:
        return "built-in"
    return "package" if "." in class_name else "entry point"


def _entry_points() -> list[Any]:
    from importlib.metadata import entry_points  # costs 30 ms, and built-in modules never need it

    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry_point: entry_point.name)


def _from_path(dotted: str) -> Any:
    package, _, name = dotted.rpartition(".")
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{package}.".startswith(f"{missing.name}."):
            raise  # the package is there, but something that it imports is not
        raise NotFound(
            f"there is no Python package {missing.name!r} for module {dotted!r}",
            remedy="install it on the worker nodes, or ship the file with src",
        ) from missing
    return _attribute(found, name, where=package)


def _from_file(path: Path, class_name: str) -> Any:
    loaded = _load_file(path)
    return _attribute(loaded, class_name.rpartition(".")[2], where=str(path))


def _attribute(owner: ModuleType, name: str, *, where: str) -> Any:
    if not hasattr(owner, name):
        public = [key for key, value in vars(owner).items() if callable(value) and not key.startswith("_")]
        raise NotFound(f"{where} has no class {clip(name)}", remedy=nearest(name, public))
    return getattr(owner, name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise NotFound(f"the module's file {str(path)!r} does not exist")
    path = path.resolve()
    # A name of its own: a file called statistics.py or numpy.py must not pass for the real one.
    name = f"iceprod_src_{path.stem}" if path.stem.isidentifier() else f"iceprod_src_{len(sys.modules)}"
    # A file fetched by its checksum has no suffix, so the loader is named outright.
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise BadInput(f"{str(path)!r} cannot be loaded as Python")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses and type hints look their module up by name
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded
