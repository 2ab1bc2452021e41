"""What the ledger must know of a dataset: its tasks in order, who waits for whom, and amounts as whole numbers."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.steering import After, Configuration
from iceprod_p2p.steering.cycles import shown_way
from iceprod_p2p.steering.depends import (
    OtherDataset,
    cycle,
    names_of,
    resolve_depends,
    too_early,
    topological,
    waits,
)
from iceprod_p2p.steering.expand import base_context
from iceprod_p2p.steering.expressions.evaluate import Expander
from iceprod_p2p.steering.needs import needs


def ordered(configuration: Configuration) -> Configuration:
    """Return the configuration with parents before their children, and tasks after the whole dataset last; otherwise
    it stays as it was.  Indices become names.

    Submission stores the document in this order, so that a task's index is its place in the ledger.  Raises BadInput
    for an unknown dependency or a cycle.
    """
    parents, _outside = dependencies(configuration)
    order = topological(parents)
    order.sort(
        key=lambda index: configuration.tasks[index].after is After.DATASET
    )  # Stable: parents stay before.
    if order == list(range(len(parents))):
        return configuration
    names = names_of(configuration.tasks)
    tasks = []
    for index in order:
        written = configuration.tasks[index].depends
        found = (resolve_depends(one, names) for one in written)
        named = tuple(
            configuration.tasks[parent].name if isinstance(parent, int) else one
            for one, parent in zip(written, found, strict=True)
        )
        tasks.append(replace(configuration.tasks[index], depends=named))
    return replace(configuration, tasks=tuple(tasks))


def dependencies(
    configuration: Configuration,
) -> tuple[list[tuple[int, ...]], tuple[tuple[int, OtherDataset], ...]]:
    """Return per task the indices of its parents, sorted, and the tasks of other datasets that tasks wait for.

    Raises BadInput for an unknown dependency or a cycle.
    """
    names = names_of(configuration.tasks)
    parents: list[tuple[int, ...]] = []
    outside: list[tuple[int, OtherDataset]] = []
    for index, task in enumerate(configuration.tasks):
        inside: set[int] = set()
        for written in task.depends:
            found = resolve_depends(written, names)
            if found is None:
                raise BadInput(f"tasks[{index}] waits for {written[:80]!r}, which is no task of the dataset")
            if isinstance(found, OtherDataset):
                outside.append((index, found))
            elif too_early(configuration.tasks, index, found):
                raise BadInput(f"tasks[{index}] waits for {written[:80]!r}, which comes only after it")
            else:
                inside.add(found)
        parents.append(tuple(sorted(inside)))
    around = cycle(parents)
    if around:
        way = shown_way([configuration.tasks[index].name for index in around])
        raise BadInput(f"tasks wait for each other: {way}")
    return waits(configuration.tasks, parents), tuple(outside)


def task_shapes(configuration: Configuration) -> tuple[TaskShape, ...]:
    """Return the shape of every task of a job, in the document's order; see `all_shapes`."""
    return all_shapes(configuration)[: _jobs_tasks(configuration)]


def closing_shapes(configuration: Configuration) -> tuple[TaskShape, ...]:
    """Return the shapes of the tasks that come once, after the whole dataset; parents are counted among them."""
    first = _jobs_tasks(configuration)
    return tuple(
        msgspec.structs.replace(shape, parents=tuple(parent - first for parent in shape.parents))
        for shape in all_shapes(configuration)[first:]
    )


def _jobs_tasks(configuration: Configuration) -> int:
    """Return how many tasks a job has."""
    return sum(1 for task in configuration.tasks if task.after is not After.DATASET)


def all_shapes(configuration: Configuration) -> tuple[TaskShape, ...]:
    """Return the shape of every task, in the document's order: parents first, those after the dataset last.

    Requirements may use steering parameters and options, not arguments of a job: all jobs have equal shapes.  Raises
    BadInput when an amount is none, an order is wrong, or a task waits for another dataset's (see `dependencies`).
    """
    parents, outside = dependencies(configuration)
    if outside:
        index, other = outside[0]
        raise BadInput(
            f"task {configuration.tasks[index].name!r} waits for {other.dataset}:{other.task} of another dataset",
            remedy="submit it when that dataset is complete, or name only tasks of this dataset",
        )
    shapes: list[TaskShape] = []
    of_job = _jobs_tasks(configuration)
    context = base_context(configuration, args={}, system={}, options={}, environ={}, seed=0)
    for index, task in enumerate(configuration.tasks):
        early = task.after is After.DATASET and index < of_job
        if early or any(parent >= index for parent in parents[index]):
            raise BadInput(
                f"task {task.name!r} stands before a task it waits for",
                remedy="order the tasks with `ordered`",
            )
        place = f"tasks[{index}]"
        values = {parameter.name: parameter.value for parameter in task.parameters}
        expander = Expander(replace(context, scopes=((f"{place}.parameters", values),)))
        shapes.append(
            TaskShape(task.name, parents[index], needs(task.requirements, expander, f"{place}.requirements"))
        )
    return tuple(shapes)
