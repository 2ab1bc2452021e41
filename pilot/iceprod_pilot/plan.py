"""From an order to what there is to do: the steering document fetched, its expressions expanded for this very task.

Steering is imported with the first task only: a pilot that starts should be heard of before it parses anything.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from iceprod_p2p.base.errors import BadInput, IceProdError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.external import ARCHIVE_ENDINGS, is_external, parse_external
from iceprod_p2p.model.files import is_pattern
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_pilot.attempt import TaskFailure
from iceprod_pilot.staging import Content, Staging, Wait

if TYPE_CHECKING:
    from iceprod_p2p.model.steering import ClassReference, Configuration, Data, Environment, Project
    from iceprod_p2p.steering.expanded import ExpandedModule, ExpandedTask, ExpandedTray

_LOG = get_logger("pilot.plan")
DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
GATHERED: Final = "inputs"  # The directory of files that a pattern finds, unless `local` names one.
DOCUMENTS_KEPT: Final = 8  # A pilot serves a few datasets at a time.
PLANS_KEPT: Final = 64  # Of tasks that are the same in every job, over all documents.
STEPS_KEPT: Final = 64  # A longer plan is made anew: what is kept must stay small.
_BLOB_URL: Final = re.compile(r"iceprod://sha256/([0-9a-f]{64})(?:/([^/#?]*))?")


@dataclass(frozen=True, slots=True)
class Move:
    """One file to bring or to take away: `remote` is a logical name or an address, `local` a path in the task."""

    remote: str
    local: str
    kind: str = "permanent"
    optional: bool = False
    compression: str = ""
    shared: bool = False
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class ClassUse:
    """Code that a module needs: a tarball by its digest, or what lies at `local` in the task's directory."""

    name: str
    digest: str = ""
    local: str = ""
    libs: str = ""
    env_vars: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one module, in its software; `inherited` are parameters that it takes if it declares them."""

    name: str
    class_name: str = ""
    src: str = ""
    args: object = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    env_shell: str = ""
    inherited: Mapping[str, object] = field(default_factory=dict)
    environment: Environment | None = None
    container: str = ""
    classes: tuple[ClassUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to do for one task, in order."""

    inputs: Sequence[Move]
    steps: Sequence[Step]
    outputs: Sequence[Move]


class Documents:
    """Steering documents by content, the last few parsed ones kept.  Thread-safe.

    The plan of a task that no phrase can make different from job to job is made once and then shared: nobody may
    change what is in a plan.
    """

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Configuration] = OrderedDict()
        # By document and index; None: each job's is made anew.
        self._plans: OrderedDict[tuple[str, int], Plan | None] = OrderedDict()

    def plan(self, order: pilot_pb2.Order, environ: Mapping[str, str], *, wait: Wait) -> Plan:
        """Return what `order` asks for; TaskFailure when its document cannot be had, read or expanded."""
        configuration = self._configuration(order.steering_sha256, wait)
        try:
            index = _index_of(configuration, order)
            key = (order.steering_sha256, index)
            with self._lock:
                is_known, plan = key in self._plans, self._plans.get(key)
                if is_known:
                    self._plans.move_to_end(key)
            if plan is not None:
                return plan
            plan = expanded(configuration, order, environ)
            if not is_known:
                self._keep(key, plan if _is_shared(configuration, index, plan) else None)
            return plan
        except BadInput as wrong:
            raise TaskFailure(FailReason.BAD_STEERING, str(wrong)) from wrong

    def _keep(self, key: tuple[str, int], plan: Plan | None) -> None:
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)

    def _configuration(self, digest: str, wait: Wait) -> Configuration:
        with self._lock:
            known = self._kept.get(digest)
            if known is not None:
                self._kept.move_to_end(digest)
                return known
        try:
            text = self._staging.read(
                Content(digest, name="the steering document"), size_max=DOCUMENT_BYTES_MAX, wait=wait
            )
        except (NotFound, Unavailable) as missing:
            raise TaskFailure(
                FailReason.STORAGE, f"the steering document could not be fetched: {missing}"
            ) from missing
        from iceprod_p2p.steering.read import read

        try:
            configuration = read(text, name=f"steering document {digest[:12]}")
        except IceProdError as wrong:
            raise TaskFailure(FailReason.BAD_STEERING, str(wrong)) from wrong
        with self._lock:
            self._kept[digest] = configuration
            while len(self._kept) > DOCUMENTS_KEPT:
                self._kept.popitem(last=False)
        return configuration


def expanded(configuration: Configuration, order: pilot_pb2.Order, environ: Mapping[str, str]) -> Plan:
    """Return the plan of one task with every expression evaluated; BadInput for what cannot run."""
    from iceprod_p2p.steering.expand import expand_task, job_arguments

    ref = order.ref
    index = _index_of(configuration, order)
    task = expand_task(
        configuration,
        index,
        args=job_arguments(
            dataset=order.follows or ref.dataset,
            job=ref.job,
            jobs=order.jobs,
            task=order.task_name,
            task_index=index,
            seed=order.seed,
        ),
        system=dict(order.system),
        options={},
        environ=environ,
        seed=order.seed,
    )
    if task.problems:
        _LOG.info("phrases left as they stand", task=order.task_name, first=str(task.problems[0])[:300])
    data = [item for item in task.all_data() if item.transfer.value != "false"]
    inputs = [_move_data(item) for item in data if item.movement.value != "output"]
    classes = [reference for holder in _holders(task) for reference in holder.classes]
    return Plan(
        inputs=_once([*_code(classes), *_resources(task), *inputs]),
        steps=[_step(task, tray, module) for tray in task.trays for module in tray.modules],
        outputs=_once([_move_data(item) for item in data if item.movement.value != "input"]),
    )


def _is_shared(configuration: Configuration, index: int, plan: Plan) -> bool:
    """Return whether a plan may serve every job of its dataset, and is small enough to be kept."""
    from iceprod_p2p.steering.constant import is_constant

    return len(plan.steps) <= STEPS_KEPT and is_constant(configuration, index)


def _index_of(configuration: Configuration, order: pilot_pb2.Order) -> int:
    """Return where the task stands in the document: those after the whole dataset are counted for themselves."""
    if not order.follows:
        return order.ref.task
    names = [task.name for task in configuration.tasks]
    if order.task_name not in names:
        raise BadInput(f"the steering document has no task {order.task_name[:80]!r}")
    return names.index(order.task_name)


def _step(task: ExpandedTask, tray: ExpandedTray, module: ExpandedModule) -> Step:
    environment = module.environment or tray.environment or task.environment
    classes = {reference.name: reference for reference in (*task.classes, *tray.classes, *module.classes)}
    _refuse_unknown_projects((*task.projects, *tray.projects, *module.projects), classes)
    return Step(
        name=module.name,
        class_name=module.class_name,
        src=module.src,
        args=module.args,
        parameters={parameter.name: parameter.value for parameter in module.parameters},
        env_shell=module.env_shell,
        inherited={parameter.name: parameter.value for parameter in module.inherited},
        environment=environment,
        container=task.container,
        classes=tuple(_class_use(reference) for reference in classes.values()),
    )


def _refuse_unknown_projects(projects: Sequence[Project], classes: Mapping[str, ClassReference]) -> None:
    """Raise BadInput for a project that no class brings: to run without it would be to run another task."""
    for project in projects:
        if project.class_name not in classes:
            raise BadInput(
                f"the project {project.name or project.class_name!r} is of class {project.class_name!r}, "
                "which is not there",
                remedy="name the class in `classes`, or the software in `environment`",
            )


def _class_use(reference: ClassReference) -> ClassUse:
    digest = local = ""
    if reference.src:
        content, name = _source(reference)
        if content and name.endswith(ARCHIVE_ENDINGS):
            digest = content
        else:
            local = name
    else:
        local = reference.resource_name
    return ClassUse(reference.name, digest, local, reference.libs, reference.env_vars)


def _source(reference: ClassReference) -> tuple[str, str]:
    """Return the digest of a class's content, where it is known, and the name of its file."""
    found = _BLOB_URL.fullmatch(reference.src)
    if found is not None:
        return found[1], found[2] or f"m{found[1][:12]}.py"
    if is_external(reference.src):
        if not reference.sha256:
            raise BadInput(
                f"the external module {reference.src[:200]!r} was not pinned: jobs fetch nothing from outside",
                remedy="submit the dataset to a cluster, which fetches it once, or put the module beside it",
            )
        return reference.sha256, parse_external(reference.src, reference.revision).file_name
    return "", _base_name(reference.src)


def _holders(task: ExpandedTask) -> list[ExpandedTask | ExpandedTray | ExpandedModule]:
    return [task, *task.trays, *(module for tray in task.trays for module in tray.modules)]


def _code(classes: Sequence[ClassReference]) -> list[Move]:
    """Return the files of classes that are brought into the task's directory; tarballs by digest are not."""
    moves = []
    for reference in classes:
        if not reference.src:
            continue
        digest, name = _source(reference)
        if digest and name.endswith(ARCHIVE_ENDINGS):
            continue
        remote = f"iceprod://sha256/{digest}/{name}" if digest else reference.src  # Else a logical name.
        moves.append(Move(remote, name, compression="" if name.endswith(".py") else "true"))
    return moves


def _resources(task: ExpandedTask) -> list[Move]:
    """Return what is fetched before the work begins: of the task, then of its trays and modules."""
    return [
        Move(
            remote=resource.remote,
            local=resource.local or _base_name(resource.remote),
            optional=resource.transfer.value == "maybe",
            compression=_compression(resource.compression),
            checksum=resource.checksum,
        )
        for holder in _holders(task)
        for resource in holder.resources
        if resource.transfer.value != "false" and resource.remote
    ]


def _move_data(item: Data) -> Move:
    return Move(
        remote=item.remote or item.local,
        local=GATHERED if is_pattern(item.local) else item.local,
        kind=item.type.value,
        optional=item.transfer.value == "maybe",
        compression=_compression(item.compression),
        shared=item.shared,
        checksum=item.checksum if item.movement.value == "input" else "",
    )


def _compression(word: str) -> str:
    return "" if word in ("none", "false") else word


def _base_name(remote: str) -> str:
    return PurePosixPath(remote.partition("?")[0]).name


def _once(moves: Sequence[Move]) -> tuple[Move, ...]:
    """Return moves without repeats; BadInput when two different files would take one place."""
    found: dict[str, Move] = {}
    for move in moves:
        known = found.setdefault(move.local, move)
        if known.remote != move.remote:
            raise BadInput(
                f"{known.remote[:200]!r} and {move.remote[:200]!r} would both be {move.local[:200]!r}",
                remedy="give one of them another local name",
            )
    return tuple(found.values())
