"""The steering tree: what a dataset is, as written by its author.

One tree stands behind three syntaxes (XML, YAML, JSON).  Expressions such as ``$steering(seed)`` stay in it as text:
they are expanded per job on the worker node, by `iceprod_p2p.steering.expand`.

    Configuration
    ├── options, steering (parameters, system, batchsys, resources, data), metadata (DIF and Plus)
    └── tasks
        ├── requirements, batchsys, container, parameters, resources, data, classes, projects
        └── trays (iterations, environment)
            └── modules (class or src, args)

Every node is frozen.  A `Value` is plain JSON data; nobody alters one after it is in the tree.  Deliberately absent:
positions in the file (they belong to reading) and anything computed (it belongs to expanding or planning).
Source: arXiv:1311.5904, section 3; IceProd's ``iceprod.v3.dtd`` and dataset schema 3.1 and 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias, Union

Value: TypeAlias = Union[bool, int, float, str, "list[Value]", "dict[str, Value]", None]


class ParameterType(StrEnum):
    """The declared type of a parameter; `ANY` is a text that is typed only after its expressions are expanded."""

    ANY = "any"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DOUBLE = "double"
    STRING = "string"
    BOOL_LIST = "bool_list"
    INT_LIST = "int_list"
    FLOAT_LIST = "float_list"
    DOUBLE_LIST = "double_list"
    STRING_LIST = "string_list"
    JSON = "json"

    @property
    def is_list(self) -> bool:
        """Return whether values are lists."""
        return self.value.endswith("_list")

    @property
    def element(self) -> ParameterType:
        """Return the type of one element of a list type; the type itself otherwise."""
        return ParameterType(self.value.removesuffix("_list"))


class DataType(StrEnum):
    """How long a file lives and who may see it."""

    PERMANENT = "permanent"
    JOB_TEMP = "job_temp"
    DATASET_TEMP = "dataset_temp"
    SITE_TEMP = "site_temp"


class After(StrEnum):
    """What a task waits for beside the tasks that it names."""

    PARENTS = "parents"  # Nothing.
    JOB = "job"  # Every task of its job that is not such a one: it runs once for each job, at its end.
    DATASET = "dataset"  # Every job of the dataset: it runs once for the dataset.


class Movement(StrEnum):
    """Whether a file is brought before a task runs, taken away after it, or both."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"


class Transfer(StrEnum):
    """Whether a file is moved: always, never, or if it exists."""

    TRUE = "true"
    FALSE = "false"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named value.  A numeric value with a unit (``5@GeV``) is kept as its text."""

    name: str
    value: Value
    type: ParameterType = ParameterType.ANY


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options for one kind of batch system, or for all of them when `name` is ``*``."""

    name: str
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """A file that is fetched before the work begins and may be cached; `checksum` as in `Data`."""

    remote: str = ""
    local: str = ""
    compression: str = ""
    transfer: Transfer = Transfer.TRUE
    arch: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """A file that a task reads, writes, or both.

    A `shared` input is kept once on each worker node, for all the tasks there that read it; none may alter it.
    `checksum` is what an input must have: ``sha256:HEX``, ``md5:HEX`` or others, several parted by blanks.
    """

    remote: str = ""
    local: str = ""
    type: DataType = DataType.PERMANENT
    movement: Movement = Movement.INPUT
    transfer: Transfer = Transfer.TRUE
    compression: str = ""
    shared: bool = False
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class ClassReference:
    """Python code that a module needs: fetched from `src`, or found in a resource.

    With `sha256` it is that content and no other: what `src` and `revision` named when the dataset was submitted.
    """

    name: str
    src: str = ""
    resource_name: str = ""
    recursive: bool = False
    libs: str = ""
    env_vars: str = ""
    revision: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """A project of a meta-project, as IceProd's DTD names it."""

    class_name: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """The software in which modules run: a published build or a tarball, a CVMFS path, a container image.

    Of task, tray and module the nearest that has one counts.
    """

    software: str = ""
    version: str = ""
    platform: str = ""
    sha256: str = ""
    cvmfs: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a task needs, as written: whole numbers, decimal numbers, expressions, or None where nothing is said.

    `memory` and `disk` are GB (of 1024 MiB) and `time` is hours unless the text carries a unit;
    `iceprod_p2p.steering.plan` turns them into whole MiB and seconds.
    """

    cpu: int | float | str | None = None
    gpu: int | float | str | None = None
    memory: int | float | str | None = None
    disk: int | float | str | None = None
    time: int | float | str | None = None
    os: tuple[str, ...] = ()
    arch: str = ""
    site: str = ""
    attributes: tuple[str, ...] = ()
    extra: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Module:
    """One step of a tray: a class with Execute, or a script or executable."""

    name: str = ""
    class_name: str = ""
    src: str = ""
    args: str | list[Value] | dict[str, Value] = ""
    env_shell: str = ""
    env_clear: bool = True
    environment: Environment | None = None
    parameters: tuple[Parameter, ...] = ()
    resources: tuple[Resource, ...] = ()
    data: tuple[Data, ...] = ()
    classes: tuple[ClassReference, ...] = ()
    projects: tuple[Project, ...] = ()
    configs: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tray:
    """Modules that run one after the other in one software environment, `iterations` times."""

    name: str = ""
    iterations: int | str = 1
    environment: Environment | None = None
    parameters: tuple[Parameter, ...] = ()
    modules: tuple[Module, ...] = ()
    resources: tuple[Resource, ...] = ()
    data: tuple[Data, ...] = ()
    classes: tuple[ClassReference, ...] = ()
    projects: tuple[Project, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One vertex of a job's DAG.

    `depends` holds names of tasks, their indices in decimal, or ``dataset:task`` for another dataset's task.  With
    `after` a task comes after a whole job, or after the whole dataset.
    """

    name: str
    depends: tuple[str, ...] = ()
    after: After = After.PARENTS
    requirements: Requirements = Requirements()
    batchsys: tuple[BatchOptions, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    trays: tuple[Tray, ...] = ()
    resources: tuple[Resource, ...] = ()
    data: tuple[Data, ...] = ()
    classes: tuple[ClassReference, ...] = ()
    projects: tuple[Project, ...] = ()
    task_files: bool = False
    container: str = ""
    environment: Environment | None = None
    token_scopes: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Steering:
    """Parameters that every task sees, and files and batch options common to all tasks."""

    parameters: tuple[Parameter, ...] = ()
    system: tuple[Parameter, ...] = ()
    batchsys: tuple[BatchOptions, ...] = ()
    resources: tuple[Resource, ...] = ()
    data: tuple[Data, ...] = ()


@dataclass(frozen=True, slots=True)
class MetadataField:
    """One element of DIF or Plus: a text, or further elements.  Equal names stand next to each other."""

    name: str
    value: str | tuple[MetadataField, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The DIF_Plus block: what the data are, for catalogues."""

    dif: tuple[MetadataField, ...] = ()
    plus: tuple[MetadataField, ...] = ()


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole dataset as written: the root of the tree."""

    version: str = "3.2"
    description: str = ""
    parent_id: int | str | None = None
    iceprod_version: str = ""
    categories: tuple[str, ...] = ()
    options: tuple[Parameter, ...] = ()
    steering: Steering = Steering()
    tasks: tuple[Task, ...] = ()
    metadata: Metadata | None = None
    extra: dict[str, Value] = field(default_factory=dict)
